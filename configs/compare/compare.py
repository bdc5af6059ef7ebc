#!/usr/bin/env python3
"""Runs lm-evaluation-harness over model directories, variants of a mount for instance, into one table.

    compare.py DIR... [--tasks TASK,...]

Its own tasks need no hub: `answers`, how likely a model finds the answers that configs/search tunes for, on the
questions that are held out there, and `facts`, which of four endings of a sentence is the right one. lm-eval takes its
arguments apart at commas, but for those in brackets and quotes: a DIR must have none of these, and no variant has.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
BATCH = 8
MARGIN = 2


def command(model, args: argparse.Namespace, out) -> list[str]:
    words = ["-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--device",
             "cpu", "--batch_size", BATCH, "--apply_chat_template", "--include_path", HERE / "tasks", "--tasks",
             args.tasks, "--output_path", out]  # fmt: skip
    return [str(word) for word in words + (["--limit", args.limit] if args.limit else [])]


def evaluated(model: pathlib.Path, args: argparse.Namespace, scratch: pathlib.Path) -> dict[str, str]:
    """What lm-eval finds for a model, by task and metric."""
    out = pathlib.Path(tempfile.mkdtemp(dir=scratch))
    environment = os.environ | ENVIRONMENT | {"HF_HOME": str(scratch)}
    done = subprocess.run([sys.executable, *command(model, args, out / "results.json")], cwd=HERE, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    written = list(out.glob("results_*.json"))
    if done.returncode != 0 or not written:
        sys.exit(f"{done.stdout[-3000:]}\nlm-eval cannot run on {model}")
    tasks = json.loads(written[0].read_text())["results"]
    return {f"{task} {key.split(',')[0]}": cell(value, row.get(key.replace(",", "_stderr,")))
            for task, row in tasks.items()
            for key, value in row.items() if key.endswith(",none") and "_stderr" not in key}  # fmt: skip


def cell(value: float, error) -> str:
    return f"{value:.3f}" + (f" ± {error:.3f}" if isinstance(error, float) else "")


class Table:
    """Rows that are printed as they come."""

    def __init__(self, names: list[str]):
        self.width = max(map(len, names))
        self.head: list[str] = []

    def add(self, name: str, row: dict[str, str]) -> None:
        if not self.head:
            self.head = list(row)
            self._line("", self.head)
        self._line(name, [row[key] for key in self.head])

    def _line(self, name: str, cells: list[str]) -> None:
        words = [f"{cell:>{max(len(key), 13) + MARGIN}}" for cell, key in zip(cells, self.head)]
        print(f"  {name:{self.width}}{''.join(words)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="DIR")
    parser.add_argument("--tasks", default="answers,facts")
    parser.add_argument("--limit", type=int, help="use so many items of each task")
    args = parser.parse_args()
    print(f"Each by\n  python {' '.join(command('DIR', args, 'results.json'))}\n", flush=True)
    table = Table(args.models)
    with tempfile.TemporaryDirectory() as scratch:
        for model in args.models:
            table.add(model, evaluated(pathlib.Path(model).absolute(), args, pathlib.Path(scratch)))


if __name__ == "__main__":
    main()
