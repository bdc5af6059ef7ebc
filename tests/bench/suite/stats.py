"""Statistics of whole tensors: gigabytes of donor a second and core, reading included."""

import json
import os
import pathlib
import struct
import time

import meld

from . import inputs, recipes
from .context import Bench
from .measure import Result, above, alternate, median, timed

TARGET = {"ties": 2.5}
TENSOR = "model.embed_tokens.weight"
READ = 1 << 20


def span(path: pathlib.Path) -> tuple[int, int]:
    """First and last byte of the largest tensor."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        (length,) = struct.unpack("<Q", file.read(8))
        begin, end = json.loads(os.pread(file.fileno(), length, 8))[TENSOR]["data_offsets"]
    return 8 + length + begin, 8 + length + end


def read_page(path: pathlib.Path, off: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert len(os.pread(fd, 4096, off)) == 4096
    os.close(fd)


def method_row(method: str):
    def row(bench: Bench) -> list[Result]:
        merge, folder = bench.recipe("1b", recipes.text(method)), bench.models("1b")
        names = [name for name in inputs.DONORS if f"<{name}>" in recipes.text(method)]
        files = [folder / name / "model.safetensors" for name in names]
        begin, end = span(files[0])
        donated = (len(files) - 1) * (end - begin)

        def ours() -> float:
            """The first page of a tensor waits for its statistics, which one thread computes."""
            with meld.Mount(merge, bench.scratch / "mnt", "threads=1", foreground=True, **bench.fresh()) as mount:
                path = mount / "model.safetensors"
                off, _ = span(path)
                start = time.monotonic()
                read_page(path, off)
                return donated / (time.monotonic() - start)

        def theirs() -> float:
            """The same bytes only read."""

            def read_all() -> None:
                buffer = bytearray(READ)
                for path in files:
                    with open(path, "rb", buffering=0) as file:
                        for off in range(begin, end, READ):
                            os.preadv(file.fileno(), [memoryview(buffer)[: min(READ, end - off)]], off)

            return donated / timed(read_all)

        mine, reading = alternate(bench.repeat, ours, theirs)
        rate, bound = median(mine) / 1e9, median(reading) / 1e9
        note, figures = f"read only: {bound:.2f} GB/s", {"ours": mine, "reading": reading}
        if method in TARGET:
            return [above(f"stats {method}", rate, TARGET[method], "GB/s", note, figures=figures)]
        return [Result(f"stats {method}", f"{rate:.2f} GB/s", note, rate / bound, figures=figures)]

    return row


ROWS = {"stats": {method: method_row(method) for method in ("ties", "breadcrumbs", "della", "sce", "slerp",
                                                            "model_stock")}}  # fmt: skip
