#!/usr/bin/env python3
"""Export by every method, beside mergekit where asked: seconds and peak memory.

    MELDFS=.../meldfs bench_methods.py [METHOD...] [--mergekit] [--layers N] [--repeat N]

Three models as bench.py makes them; bfloat16, two donors (slerp, nearswap and arcee_fusion take one).
"""

import argparse
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

import bench
import meld

DONORS = "models:\n  - {model: one, parameters: {weight: 1.0%s}}\n  - {model: two, parameters: {weight: 0.6%s}}\n"
BASE = "base_model: base\n"
ALONE = "models:\n  - model: one\n"


def donors(more: str = "") -> str:
    return DONORS % (more, more)


RECIPES = {
    "task_arithmetic": BASE + donors(),
    "linear": donors(),
    "ties": BASE + donors(", density: 0.5"),
    "dare_linear": BASE + donors(", density: 0.5"),
    "dare_ties": BASE + donors(", density: 0.5"),
    "breadcrumbs": BASE + donors(", density: 0.9, gamma: 0.01"),
    "breadcrumbs_ties": BASE + donors(", density: 0.9, gamma: 0.01"),
    "della": BASE + donors(", density: 0.5, epsilon: 0.1"),
    "della_linear": BASE + donors(", density: 0.5, epsilon: 0.1"),
    "sce": BASE + donors() + "parameters: {select_topk: 0.5}\n",
    "ram": BASE + donors(),
    "ramplus_tl": BASE + donors(),
    "slerp": BASE + ALONE + "parameters: {t: 0.4}\n",
    "nuslerp": donors(),
    "multislerp": BASE + donors(),
    "karcher": donors(),
    "model_stock": BASE + donors(),
    "nearswap": BASE + ALONE + "parameters: {t: 0.001}\n",
    "arcee_fusion": BASE + ALONE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=list(RECIPES))
    parser.add_argument("--mergekit", action="store_true")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    room = shutil.disk_usage("/dev/shm").free > 14e9
    with tempfile.TemporaryDirectory(dir="/dev/shm" if room else None) as name:
        folder = pathlib.Path(name)
        for seed, model in enumerate(("base", "one", "two")):
            bench.make(folder / model, args.layers, seed)
        size = (folder / "base/model.safetensors").stat().st_size
        print(f"export of {size / 1e9:.2f} GB from 3 models in {name}, {os.cpu_count()} CPUs")
        for method in args.methods:
            (folder / "merge.yml").write_text(f"merge_method: {method}\ndtype: bfloat16\n{RECIPES[method]}")
            compare(method, folder, args.repeat, args.mergekit)


def compare(method: str, folder: pathlib.Path, repeat: int, mergekit: bool) -> None:
    out = folder / "out"
    runs = []
    for _ in range(repeat):
        shutil.rmtree(out, ignore_errors=True)
        runs.append(bench.child([meld.BINARY, "export", "merge.yml", str(out)], folder))
    ours = statistics.median(run[0] for run in runs)
    line = f"  {method:<18} {ours:7.2f} s {max(run[1] for run in runs) / 2**20:6.0f} MiB"
    shutil.rmtree(out)
    if mergekit:
        command = [sys.executable, "-m", "mergekit.scripts.run_yaml", "merge.yml", str(out), "--no-copy-tokenizer",
                   "--no-write-model-card"]  # fmt: skip
        seconds, memory = bench.child(command, folder)
        line += f"   mergekit {seconds:7.1f} s {memory / 2**20:6.0f} MiB {seconds / ours:6.1f}x"
        shutil.rmtree(out)
    print(line, flush=True)


if __name__ == "__main__":
    main()
