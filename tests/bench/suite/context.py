"""What a run of the benchmark has: its mode, its folders, its programs."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from . import inputs, measure

ROOM = {"quick": 3e9, "default": 14e9, "full": 14e9}  # bytes that mergekit and what it writes may take


@dataclasses.dataclass
class Bench:
    mode: str  # quick, default, full
    store: pathlib.Path  # of the inputs
    scratch: pathlib.Path  # in memory if there is room; gone at the end
    disk: pathlib.Path  # on a disk; gone at the end
    build: pathlib.Path  # where meson built the programs
    python: str  # that has mergekit
    warmed: set = dataclasses.field(default_factory=set)

    @property
    def meldfs(self) -> pathlib.Path:
        return self.build / "fs/meldfs"

    @property
    def passthrough(self) -> pathlib.Path:
        return self.build / "tests/bench/passthrough"

    @property
    def repeat(self) -> int:
        return 3 if self.mode == "quick" else 5

    @property
    def quick(self) -> bool:
        return self.mode == "quick"

    def models(self, shape: str) -> pathlib.Path:
        """`1b` is a tenth of it in a quick run. What has bytes is in the page cache afterwards."""
        shape = "1b-quick" if shape == "1b" and self.quick else shape
        folder = inputs.models(self.store, shape)
        if shape not in self.warmed:
            measure.warm(folder)
            self.warmed.add(shape)
        return folder

    def size(self, shape: str) -> int:
        """Bytes of one model's weights."""
        return sum(path.stat().st_size for path in (self.models(shape) / "base").glob("*.safetensors"))

    def recipe(self, shape: str, text: str, name: str = "merge.yml") -> pathlib.Path:
        """A merge file in the scratch folder, of the models of a shape."""
        path, folder = self.scratch / name, self.models(shape)
        for model in inputs.DONORS:
            text = text.replace(f"<{model}>", str(folder / model))
        path.write_text(text)
        return path

    def fresh(self) -> dict[str, str]:
        """Environment in which no statistics of an earlier run are found."""
        return {"XDG_CACHE_HOME": tempfile.mkdtemp(prefix="cache", dir=self.scratch)}


def available() -> int:
    """Bytes of memory."""
    text = pathlib.Path("/proc/meminfo").read_text()
    return int(text.split("MemAvailable:")[1].split()[0]) << 10


@contextlib.contextmanager
def folders(store: pathlib.Path, mode: str) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Two that are removed: in memory (on disk where there is no room, which is told), and on disk."""
    shared = pathlib.Path("/dev/shm")
    room = shared.is_dir() and min(shutil.disk_usage(shared).free, available()) > ROOM[mode]
    if not room:
        print(f"less than {ROOM[mode] / 1e9:.0f} GB of memory: what is written goes to disk, which is slower",
              flush=True)  # fmt: skip
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="meldfs-bench.", dir=shared if room else store))
    disk = pathlib.Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}.", dir=store))
    try:
        yield scratch, disk
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(disk, ignore_errors=True)
