"""Peak resident memory of the daemon over its cache, at 1B and at 70B."""

import os
import pathlib
import random

import meld

from . import recipes
from .context import Bench
from .measure import Result, below, forget, peak

MIB = 1 << 20
CONSTANT_MIB, THREAD_MIB, FREE_THREADS, SAME_MIB = 48, 2, 4, 8
SIZES = {"64M": 64, "256M": 256, "1G": 1024}
STRETCH = 4 * MIB


def read_much(folder: pathlib.Path, total: int) -> None:
    """Stretches of all weight files in turn, at random places: more than any cache holds."""
    dice, files = random.Random(0), sorted(folder.glob("*.safetensors"))
    while total > 0:
        for path in files:
            fd = os.open(path, os.O_RDONLY)
            off = dice.randrange(max(1, path.stat().st_size - STRETCH))
            for part in range(off, off + STRETCH, MIB):
                total -= len(os.pread(fd, MIB, part))
            os.close(fd)
    for path in files:
        forget(path)


def over(bench: Bench, shape: str, size: str, method: str) -> float:
    """MiB, over what the cache may hold of such a model."""
    merge = bench.recipe(shape, recipes.text(method))
    options = [f"cache={size}"]
    with meld.Mount(merge, bench.scratch / "mnt", *options, foreground=True, **bench.fresh()) as mount:
        served = sum(path.stat().st_size for path in mount.point.glob("*.safetensors"))
        read_much(mount.point, 2 * SIZES[size] * MIB)
        return peak(mount.process.pid) / MIB - min(SIZES[size], served / MIB)


def limit() -> float:
    return CONSTANT_MIB + THREAD_MIB * max(0, len(os.sched_getaffinity(0)) - FREE_THREADS)


def size_row(size: str):
    def row(bench: Bench) -> list[Result]:
        small, large = (over(bench, shape, size, "task_arithmetic") for shape in ("1b", "70b"))
        both = {"1b_mib": small, "70b_mib": large}
        found = [below(f"memory {size}, {shape}", value, limit(), "MiB", "over the cache", figures=both)
                 for shape, value in (("1b", small), ("70b", large))]  # fmt: skip
        gap = below(f"memory {size}, 70b - 1b", max(large - small, 0), SAME_MIB, "MiB", figures=both)
        return [*found, gap]

    return row


ROWS = {"memory": {size: size_row(size) for size in SIZES}}
LEFT_OUT = {("memory", size): ("quick",) for size in ("256M", "1G")}  # that model fills no larger cache than 64M
