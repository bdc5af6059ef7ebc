"""From a merge file to every tensor loaded in Python: mount and load, beside mergekit-yaml and load."""

import shutil
import subprocess

import meld

from . import export, recipes
from .context import Bench
from .measure import Result, alternate, forget, median, timed

TARGET = 10
# safetensors maps the file: a byte of each page makes the loading real. Imports are not counted.
LOADER = """\
import sys, time
import torch
from safetensors.torch import load_file
print("ready", flush=True)
for path in sys.stdin:
    start = time.monotonic()
    state = load_file(path.strip())
    total = sum(int(t.contiguous().view(-1).view(torch.uint8)[::4096].sum()) for t in state.values())
    print(time.monotonic() - start, len(state), total, flush=True)
    del state
"""


class Loader:
    """A Python that loads what it is told to, and says how long it took."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen([python, "-c", LOADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def seconds(self, path) -> float:
        print(path, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline().split()[0])


def task_arithmetic(bench: Bench) -> list[Result]:
    merge, out = bench.recipe("1b", recipes.text("task_arithmetic")), bench.scratch / "out"

    def ours(loader: Loader) -> float:
        mount = meld.Mount(merge, bench.scratch / "mnt", **bench.fresh())
        start = timed(mount.__enter__)
        try:
            return start + loader.seconds(mount / "model.safetensors")
        finally:
            forget(mount / "model.safetensors")
            mount.__exit__(None, None, None)

    def theirs(loader: Loader) -> float:
        return export.mergekit(bench, merge, out).wall + loader.seconds(out / "model.safetensors")

    with Loader(bench.python) as loader:
        ours(loader)
        mine, other = alternate(bench.repeat if bench.quick else 3, lambda: ours(loader), lambda: theirs(loader))
    shutil.rmtree(out, ignore_errors=True)
    return [Result("load task_arithmetic", f"{median(mine):.2f} s", f"mergekit {median(other):.2f} s",
                   median(other) / median(mine), TARGET, "YAML to every tensor loaded",
                   {"ours": mine, "mergekit": other})]  # fmt: skip


ROWS = {"load": {"task_arithmetic": task_arithmetic}}
