"""Clocks, processes and mounts: what every group of rows measures with."""

import contextlib
import dataclasses
import mmap
import os
import pathlib
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import meld

BLOCK = 1 << 20


@dataclasses.dataclass
class Used:
    """What something took: wall and CPU seconds, peak resident bytes (0: not known)."""

    wall: float
    cpu: float = 0
    rss: int = 0


@dataclasses.dataclass
class Result:
    """A row. `ratio` is of medians, and the larger the better; `target` what it should reach at least."""

    row: str
    ours: str
    beside: str = ""
    ratio: float | None = None
    target: float | None = None
    note: str = ""
    figures: dict = dataclasses.field(default_factory=dict)
    met: bool | None = None  # told by ratio and target, unless it is told otherwise

    def __post_init__(self) -> None:
        if self.met is None and self.ratio is not None and self.target is not None:
            self.met = self.ratio >= self.target


def below(row: str, value: float, most: float, unit: str, beside: str = "", **more) -> Result:
    """A row whose figure has a limit of its own: `value` at most `most`."""
    return Result(row, f"{value:.4g} {unit}", beside, most / value if value > 0 else None, 1, f"at most {most:g} {unit}",
                  met=value <= most, **more)  # fmt: skip


def above(row: str, value: float, least: float, unit: str, beside: str = "", **more) -> Result:
    return Result(row, f"{value:.4g} {unit}", beside, value / least, 1, f"at least {least:g} {unit}", **more)


def skipped(row: str, why: str) -> Result:
    return Result(row, "-", note=f"not measured: {why}")


def median(values) -> float:
    return statistics.median(values)


def middle(runs: list[Used]) -> Used:
    """Medians of times, the most of the memory."""
    return Used(median(r.wall for r in runs), median(r.cpu for r in runs), max(r.rss for r in runs))


def timed(action: Callable) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


def alternate(repeat: int, *sides: Callable) -> list[list]:
    """What each of the sides gave in `repeat` rounds, one after the other in each."""
    rounds = [[side() for side in sides] for _ in range(repeat)]
    return [list(column) for column in zip(*rounds)]


def peak(pid: int) -> int:
    """Peak resident bytes of a living process. ru_maxrss would count what the process was before its exec."""
    with contextlib.suppress(OSError):
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        if "VmHWM:" in text:
            return int(text.split("VmHWM:")[1].split()[0]) << 10
    return 0


def child(command: list, cwd: pathlib.Path | None = None, **env: str) -> Used:
    """Run it to its end, which must be good."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as said:
        start, rss, usage = time.monotonic(), 0, None
        process = subprocess.Popen(words, cwd=cwd, env=os.environ | env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=said)  # fmt: skip
        try:
            while usage is None:
                rss = max(rss, peak(process.pid))
                time.sleep(0.002)
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                usage = usage if pid else None
            wall, process.returncode = time.monotonic() - start, os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            said.seek(0)
            text = said.read()[-2000:].decode(errors="replace")
            raise RuntimeError(f"{' '.join(words)}: status {process.returncode}: {text}")
    return Used(wall, usage.ru_utime + usage.ru_stime, rss)


def forget(path: pathlib.Path) -> None:
    """Out of the page cache. What is not written yet stays there."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def read(path: pathlib.Path) -> int:
    """Sequentially, into one buffer: nothing but the reading."""
    buffer, n = bytearray(BLOCK), 0
    with open(path, "rb", buffering=0) as file:
        while got := file.readinto(buffer):
            n += got
    return n


def read_folder(folder: pathlib.Path) -> float:
    """Seconds that reading all weights takes, cold."""
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        forget(path)
    return timed(lambda: [read(path) for path in files])


def warm(folder: pathlib.Path) -> None:
    """Into the page cache from the disk, as for a user who did not write them just now: a read has the kernel take large
    pages, a writer of small blocks leaves 4 KiB ones, which read at half the rate. Holes are left as they are."""
    for path in folder.glob("*/*.safetensors"):
        if path.stat().st_blocks * 512 > path.stat().st_size // 2:
            write_back(path)
            forget(path)
            read(path)


def write_back(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


@contextlib.contextmanager
def mapped(path: pathlib.Path) -> Iterator[mmap.mmap]:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        data.madvise(mmap.MADV_RANDOM)
        yield data


def read_ahead(point: pathlib.Path) -> pathlib.Path:
    """The setting of a mount. It goes with it."""
    device = os.stat(point).st_dev
    return pathlib.Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")


@contextlib.contextmanager
def passthrough(program: pathlib.Path, file: pathlib.Path, point: pathlib.Path) -> Iterator[pathlib.Path]:
    """A mount of one plain file, answered by pread and nothing else; the file in it."""
    point.mkdir(exist_ok=True)
    process = subprocess.Popen([program, file, point], stdin=subprocess.DEVNULL)
    try:
        meld.until(lambda: meld.is_mounted(point) or process.poll() is not None, "the passthrough")
        if process.poll() is not None:
            raise RuntimeError(f"{program}: status {process.returncode}")
        yield point / "model.safetensors"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            meld.detach(point)
            process.kill()
            process.wait()
