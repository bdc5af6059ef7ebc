"""Reads of the mount: cold and sequential beside a plain FUSE passthrough, again, and faults at random places."""

import json
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


def mounted(bench: Bench, *options: str) -> meld.Mount:
    return meld.Mount(merge(bench), bench.scratch / "mnt", *options, foreground=True, **bench.fresh())


def computed(mount: meld.Mount) -> int:
    """Bytes, since the daemon began."""
    return json.loads(meld.good("status", "--json", mount.point))["mounts"][0]["computed_bytes"]


def cold(path: pathlib.Path, kb: int | None = None) -> float:
    """Bytes a second."""
    if kb:
        read_ahead(path.parent).write_text(str(kb))
    forget(path)
    size = path.stat().st_size
    rate = size / timed(lambda: read(path))
    forget(path)
    return rate


def merged(bench: Bench, kb: int | None = None) -> float:
    """The same of the merge. A daemon of its own: what another keeps in its cache need not be computed."""
    with mounted(bench) as mount:
        path = mount / "model.safetensors"
        rate, size = cold(path, kb), path.stat().st_size
        assert computed(mount) > 0.99 * size, f"{computed(mount)} of {size} bytes were computed"
        return rate


def cold_row(row: str, ours: list, beside: dict[str, list], target: float | None, note: str) -> Result:
    name, best = max(beside.items(), key=lambda side: median(side[1]))
    figures = {"ours": ours} | beside
    return Result(row, f"{median(ours) / 1e9:.2f} GB/s", f"{name} {median(best) / 1e9:.2f} GB/s",
                  median(ours) / median(best), target, note, figures)  # fmt: skip


def sequential(bench: Bench) -> list[Result]:
    """The rows of an administrator, of an ordinary user, and beside the native file, of the same rounds."""
    with mounted(bench) as mount:
        setting = read_ahead(mount.point)
        own, root = setting.read_text().strip(), os.access(setting, os.W_OK)
    file_size = native(bench).stat().st_size
    read(native(bench))
    with passthrough(bench.passthrough, native(bench), bench.scratch / "plain") as plain:
        sides = [lambda: merged(bench), lambda: cold(plain), lambda: file_size / timed(lambda: read(native(bench)))]
        if not root:
            mine, default, file = alternate(bench.repeat, *sides)
            return [cold_row("read cold, user", mine, {"passthrough": default}, COLD_TARGET, f"read-ahead {own} KiB"),
                    cold_row("read cold, native", mine, {"native": file}, None, ""),
                    skipped("read cold, root", "only root may set a mount's read-ahead")]  # fmt: skip
        sides = [lambda: merged(bench), lambda: merged(bench, DEFAULT_KB), lambda: cold(plain, DEFAULT_KB),
                 lambda: cold(plain, 1024), lambda: cold(plain, 4096), sides[2]]  # fmt: skip
        mine, user, default, one, four, file = alternate(bench.repeat, *sides)
    best = {"passthrough at 1 MiB": one, "passthrough at 4 MiB": four}
    return [cold_row("read cold, root", mine, best, COLD_TARGET if has_avx512() else COLD_TARGET_AVX2,
                     f"own read-ahead {own} KiB"),
            cold_row("read cold, user", user, {"passthrough": default}, COLD_TARGET, f"read-ahead {DEFAULT_KB} KiB"),
            cold_row("read cold, native", mine, {"native": file}, None, "")]  # fmt: skip


def second(bench: Bench) -> list[Result]:
    """What was read already, from the page cache of the kernel, which has small pages for FUSE, as the passthrough
    shows, and large ones for a file on a disk where it can."""
    with mounted(bench) as mount, passthrough(bench.passthrough, native(bench), bench.scratch / "plain") as plain:
        files = [mount / "model.safetensors", native(bench), plain]
        for file in files:
            read(file)
        sides = [lambda file=file: file.stat().st_size / timed(lambda: read(file)) for file in files]
        mine, other, fuse = alternate(2 * bench.repeat, *sides)
        forget(files[0])
        forget(plain)
    return [cold_row("read second", mine, {"native": other}, SECOND_TARGET, ""),
            cold_row("read second, FUSE", mine, {"passthrough": fuse}, None, "")]  # fmt: skip


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
    """Both with the default read-ahead, which a fault without advice reads, too. The cache is a tenth of the model,
    as it is of a real one: else the daemon would have most of what is asked for."""
    found, cache = [], max(16, (native(bench).stat().st_size >> 20) // 10)
    for unit, n in ((4096, 2000), (131072, 500)):
        dice = random.Random(unit)
        places = dice.sample(range(native(bench).stat().st_size // unit - 1), n)

        def ours() -> list[float]:
            with mounted(bench, f"cache={cache}M") as mount:
                if os.access(read_ahead(mount.point), os.W_OK):
                    read_ahead(mount.point).write_text(str(DEFAULT_KB))
                return touch(mount / "model.safetensors", unit, places)

        with passthrough(bench.passthrough, native(bench), bench.scratch / "plain") as plain:
            mine, other = alternate(3, ours, lambda: touch(plain, unit, places))
        mine, other = sorted(sum(mine, [])), sorted(sum(other, []))
        for name, at in (("p50", 0.5), ("p99", 0.99)):
            a, b = mine[int(at * len(mine))] * 1e6, other[int(at * len(other))] * 1e6
            found.append(Result(f"read fault {unit >> 10} KiB, {name}", f"{a:.0f} us", f"passthrough {b:.0f} us",
                                b / a, figures={"ours_us": a, "passthrough_us": b}))  # fmt: skip
    return found


ROWS = {"read": {"cold": sequential, "second": second, "faults": faults}}
