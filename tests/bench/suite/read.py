"""Reads of the mount: cold and sequential beside a plain FUSE passthrough, again, and faults at random places."""

import contextlib
import os
import pathlib
import random
import time

import meld

from . import recipes
from .context import Bench
from .measure import Result, alternate, forget, mapped, median, passthrough, read, read_ahead, skipped, timed

DEFAULT_KB = 128
COLD_TARGET, COLD_TARGET_AVX2, SECOND_TARGET = 0.7, 0.55, 0.9


def has_avx512() -> bool:
    return "avx512bw" in pathlib.Path("/proc/cpuinfo").read_text()


def merge(bench: Bench) -> pathlib.Path:
    return bench.recipe("1b", recipes.text("task_arithmetic"))


def native(bench: Bench) -> pathlib.Path:
    return bench.models("1b") / "base/model.safetensors"


@contextlib.contextmanager
def both(bench: Bench):
    """The merge and the base model's file as FUSE serves them, and the daemon."""
    with meld.Mount(merge(bench), bench.scratch / "mnt", foreground=True, **bench.fresh()) as mount, \
            passthrough(bench.passthrough, native(bench), bench.scratch / "plain") as plain:  # fmt: skip
        yield mount / "model.safetensors", plain, mount


def cold(path: pathlib.Path) -> float:
    """Bytes a second."""
    forget(path)
    size = path.stat().st_size
    rate = size / timed(lambda: read(path))
    forget(path)
    return rate


def with_read_ahead(path: pathlib.Path, kb: int) -> float:
    read_ahead(path.parent).write_text(str(kb))
    return cold(path)


def cold_row(row: str, ours: list, beside: dict[str, list], target: float | None, note: str) -> Result:
    name, best = max(beside.items(), key=lambda side: median(side[1]))
    figures = {"ours": ours} | beside
    return Result(row, f"{median(ours) / 1e9:.2f} GB/s", f"{name} {median(best) / 1e9:.2f} GB/s",
                  median(ours) / median(best), target, note, figures)  # fmt: skip


def sequential(bench: Bench) -> list[Result]:
    """The rows of an administrator, of an ordinary user, and beside the native file, of the same rounds."""
    with both(bench) as (ours, plain, _):
        own = read_ahead(ours.parent).read_text().strip()
        root = os.access(read_ahead(ours.parent), os.W_OK)
        read(native(bench))
        cold(ours)
        sides = [lambda: cold(ours), lambda: cold(plain), lambda: native(bench).stat().st_size / timed(
            lambda: read(native(bench)))]  # fmt: skip
        if not root:
            mine, default, file = alternate(bench.repeat, *sides)
            return [cold_row("read cold, user", mine, {"passthrough": default}, COLD_TARGET, f"read-ahead {own} KiB"),
                    cold_row("read cold, native", mine, {"native": file}, None, ""),
                    skipped("read cold, root", "only root may set a mount's read-ahead")]  # fmt: skip
        sides = [lambda: with_read_ahead(ours, int(own)), lambda: with_read_ahead(ours, DEFAULT_KB),
                 lambda: with_read_ahead(plain, DEFAULT_KB), lambda: with_read_ahead(plain, 1024),
                 lambda: with_read_ahead(plain, 4096), sides[2]]  # fmt: skip
        mine, user, default, one, four, file = alternate(bench.repeat, *sides)
    best = {"passthrough at 1 MiB": one, "passthrough at 4 MiB": four}
    return [cold_row("read cold, root", mine, best, COLD_TARGET if has_avx512() else COLD_TARGET_AVX2,
                     f"own read-ahead {own} KiB"),
            cold_row("read cold, user", user, {"passthrough": default}, COLD_TARGET, f"read-ahead {DEFAULT_KB} KiB"),
            cold_row("read cold, native", mine, {"native": file}, None, "")]  # fmt: skip


def second(bench: Bench) -> list[Result]:
    """What was read already, from the page cache of the kernel."""
    with meld.Mount(merge(bench), bench.scratch / "mnt", foreground=True, **bench.fresh()) as mount:
        ours, file = mount / "model.safetensors", native(bench)
        read(ours)
        read(file)
        mine, other = alternate(2 * bench.repeat, lambda: ours.stat().st_size / timed(lambda: read(ours)),
                                lambda: file.stat().st_size / timed(lambda: read(file)))  # fmt: skip
        forget(ours)
    return [cold_row("read second", mine, {"native": other}, SECOND_TARGET, "")]


def touch(path: pathlib.Path, unit: int, places: list[int]) -> list[float]:
    """Seconds of each first touch."""
    forget(path)
    with mapped(path) as data:
        if unit > 4096:
            data.madvise(0)  # MADV_NORMAL: the kernel reads what is around
        found = []
        for place in places:
            start = time.perf_counter()
            data[place * unit]
            found.append(time.perf_counter() - start)
    return found


def faults(bench: Bench) -> list[Result]:
    found = []
    with both(bench) as (ours, plain, _):
        for unit, n in ((4096, 2000), (131072, 500)):
            dice = random.Random(unit)
            places = dice.sample(range(min(ours.stat().st_size, plain.stat().st_size) // unit), n)
            mine, other = alternate(3, lambda: touch(ours, unit, places), lambda: touch(plain, unit, places))
            mine, other = sorted(sum(mine, [])), sorted(sum(other, []))
            for name, at in (("p50", 0.5), ("p99", 0.99)):
                a, b = mine[int(at * len(mine))] * 1e6, other[int(at * len(other))] * 1e6
                found.append(Result(f"read fault {unit >> 10} KiB, {name}", f"{a:.0f} us", f"passthrough {b:.0f} us",
                                    b / a, figures={"ours_us": a, "passthrough_us": b}))  # fmt: skip
    return found


ROWS = {"read": {"cold": sequential, "second": second, "faults": faults}}
