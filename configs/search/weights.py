#!/usr/bin/env python3
"""Tunes parameters of a mounted merge with Optuna: each trial is a path.

    weights.py MOUNT KEY... [--beside DIR]

KEY is that of a variant, `math.weight` for one, and a trial reads MOUNT/KEY=VALUE/KEY=VALUE/. What is made smaller is
the loss that judge.py defines, on its tune.jsonl; what is reported at the end, beside the recipe as it is mounted and
the models named by --beside, is that on held-out.jsonl, too. The last lines are the YAML to keep.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

import optuna
from judge import Judge, add_arguments, table

MELDFS = os.environ.get("MELDFS", "meldfs")


def variant(mount: pathlib.Path, values: dict[str, float]) -> pathlib.Path:
    """The directory of the merge with these values."""
    pairs = [f"{key}={value:g}" for key, value in values.items()]
    path = mount.joinpath(*pairs)
    if not path.is_dir():
        subprocess.run([MELDFS, "path", mount, *pairs])  # tells why
        sys.exit(f"there is no {path}")
    return path


def study(mount: pathlib.Path, judge: Judge, args: argparse.Namespace) -> dict[str, float]:
    """The best values of args.trials trials."""

    def loss(trial: optuna.Trial) -> float:
        start = time.monotonic()
        values = {key: trial.suggest_float(key, args.low, args.high, step=args.step) for key in args.keys}
        path = variant(mount, values)
        result = judge.loss(path)
        print(f"  trial {trial.number + 1:2d}  {path.relative_to(mount)!s:36}  {result:8.4f}"
              f"  {time.monotonic() - start:5.1f} s", flush=True)  # fmt: skip
        return result

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.GPSampler(seed=args.seed, n_startup_trials=min(6, args.trials))
    search = optuna.create_study(sampler=sampler)
    search.optimize(loss, n_trials=args.trials)
    return search.best_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mount", type=pathlib.Path)
    parser.add_argument("keys", nargs="+", metavar="KEY")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--low", type=float, default=0.0)
    parser.add_argument("--high", type=float, default=2.0)
    parser.add_argument("--step", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    add_arguments(parser)
    args = parser.parse_args()
    judge = Judge(args.mount, args)
    print(f"Loss of each trial in nats per token of {len(judge.splits['tune'])} answers that are wanted:\n")
    best = variant(args.mount, study(args.mount, judge, args))
    table(judge, {"the recipe as given": args.mount, str(best.relative_to(args.mount)): best})
    print(f"\nTo keep ($ meldfs yaml {best}):\n", flush=True)
    subprocess.run([MELDFS, "yaml", best], check=True)


if __name__ == "__main__":
    main()
