"""How long until the first byte of a tensor: of a mount, and of new weights in one that is there."""

import json
import os
import pathlib
import struct
import time

import meld

from . import recipes
from .context import Bench
from .measure import Result, alternate, below, child, median, skipped

MOUNT_MS = {"1b": 20, "70b": 60, "deepseek": 400}
VARIANT_MS = {"1b": 10, "deepseek": 50}
VARIANTS = 20


def first_shard(folder: pathlib.Path) -> pathlib.Path:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return folder / "model.safetensors"
    return folder / min(set(json.loads(index.read_text())["weight_map"].values()))


def first_bytes(path: pathlib.Path) -> bytes:
    """Of the data: one page. Nothing is read ahead."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        (length,) = struct.unpack("<Q", os.pread(fd, 8, 0))
        return os.pread(fd, 4096, 8 + length)
    finally:
        os.close(fd)


def statistics_done(point: pathlib.Path) -> str:
    """What the daemon says of them."""
    lines = meld.good("status", point).splitlines()
    return "".join(line for line in lines if line.split()[:1] == ["statistics"])


def mount_row(shape: str):
    def row(bench: Bench) -> list[Result]:
        merge = bench.recipe(shape, recipes.text("task_arithmetic"))
        with meld.Mount(merge, bench.scratch / "mnt", **bench.fresh()) as mount:
            name = first_shard(mount.point).name

        def mounted() -> float:
            mount = meld.Mount(merge, bench.scratch / "mnt", **bench.fresh())
            start = time.monotonic()
            mount.__enter__()
            first_bytes(mount / name)
            seconds = time.monotonic() - start
            mount.__exit__(None, None, None)
            return seconds * 1e3

        def planned() -> float:
            return child([bench.meldfs, "check", merge]).wall * 1e3

        mine, check = alternate(2 * bench.repeat, mounted, planned)
        return [below(f"first mount-{shape}", median(mine), MOUNT_MS[shape], "ms", f"check {median(check):.4g} ms",
                      figures={"ours_ms": mine, "check_ms": check})]  # fmt: skip

    return row


def weights(i: int) -> str:
    return f"one.weight={0.3 + i / 1000:.4g}"


def variant_row(name: str, shape: str, method: str):
    name = f"first {name}"

    def row(bench: Bench) -> list[Result]:
        merge = bench.recipe(shape, recipes.text(method))
        with meld.Mount(merge, bench.scratch / "mnt", foreground=True, **bench.fresh()) as mount:
            shard = first_shard(mount.point).name
            plain = first_bytes(mount / shard)
            before = statistics_done(mount.point)
            if not (mount / weights(0) / shard).exists():
                return [skipped(name, "this build has no variants")]
            mine = []
            for i in range(1, VARIANTS + 1):
                start = time.monotonic()
                got = first_bytes(mount / weights(i) / shard)
                mine.append((time.monotonic() - start) * 1e3)
                assert shape != "1b" or got != plain, "a variant that changes nothing"
            recomputed = statistics_done(mount.point) != before
        result = below(name, median(mine), VARIANT_MS[shape], "ms", figures={"ours_ms": mine})
        if recomputed:
            result.met, result.note = False, "statistics were computed anew"
        return [result]

    return row


ROWS = {"first": {f"mount-{shape}": mount_row(shape) for shape in MOUNT_MS}
                 | {name: variant_row(name, shape, method) for name, shape, method in (
                     ("variant-1b", "1b", "task_arithmetic"), ("variant-ties", "1b", "ties"),
                     ("variant-deepseek", "deepseek", "task_arithmetic"))}}  # fmt: skip
