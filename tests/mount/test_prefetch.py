"""Computing ahead: never a wrong byte whatever readers do at once, and a daemon killed meanwhile hangs nobody.

    MELDFS_FUZZ_SECONDS=60 makes the fuzzing reader run for so long.
"""

import concurrent.futures
import mmap
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import meld
import pytest

WEIGHTS = "model.safetensors"
SECONDS = float(os.environ.get("MELDFS_FUZZ_SECONDS", "4"))
KILLS = 25
DIRECT = getattr(os, "O_DIRECT", 0)
LAPS = """\
import os, sys
buffer = bytearray(1 << 20)
while True:
    fd = os.open(sys.argv[1], os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    while os.readv(fd, [buffer]):
        pass
    os.close(fd)
"""


@pytest.fixture(scope="module")
def expected(large) -> bytes:
    return (large.exported / WEIGHTS).read_bytes()


def forget(fd: int) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def read_on(fd: int, dice: random.Random, expected: bytes) -> None:
    """Sequentially for some MiB, as a loader does, now and then skipping some or going back."""
    off, end = dice.randrange(len(expected)), dice.randrange(1, 16) << 20
    step = dice.choice([4096, 100_000, 1 << 17, 1 << 20])
    for at in range(off, min(off + end, len(expected)), step):
        at = min(max(0, at + (dice.randrange(-1 << 20, 4 << 20) if dice.random() < 0.02 else 0)), len(expected))
        assert os.pread(fd, step, at) == expected[at : at + step], (at, step)


def jump(fd: int, dice: random.Random, expected: bytes) -> None:
    for _ in range(50):
        off, length = dice.randrange(len(expected)), dice.randrange(1, 200_000)
        assert os.pread(fd, length, off) == expected[off : off + length], (off, length)


def fault(fd: int, dice: random.Random, expected: bytes) -> None:
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
        off = dice.randrange(len(expected))
        assert view[off : off + (4 << 20)] == expected[off : off + (4 << 20)], off
        for _ in range(100):
            off = dice.randrange(len(expected))
            assert view[off : off + 3000] == expected[off : off + 3000], off


def direct(fd: int, dice: random.Random, expected: bytes) -> None:
    length = dice.choice([4096, 1 << 17, 1 << 20])
    off = dice.randrange(len(expected)) // 4096 * 4096
    with mmap.mmap(-1, length) as buffer:
        for at in range(off, min(len(expected), off + dice.choice([1, 8]) * length), length):
            n = os.preadv(fd, [buffer], at)
            assert buffer[:n] == expected[at : at + length], (at, length)


def fuzz(path, expected: bytes, seed: int) -> int:
    dice, deadline, turns = random.Random(seed), time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline:
        how = dice.choice([read_on, read_on, jump, fault, direct])
        fd = os.open(path, os.O_RDONLY | (DIRECT if how is direct else 0))
        try:
            if dice.random() < 0.5:
                forget(fd)
            how(fd, dice, expected)
        finally:
            os.close(fd)
        turns += 1
    return turns


def test_everything_at_once(large, expected, tmp_path):
    with meld.Mount(large.recipe, tmp_path / "mnt", "cache=8M", foreground=True) as mount:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            turns = list(pool.map(lambda seed: fuzz(mount / WEIGHTS, expected, seed), range(8)))
    assert all(turns)


def counter(mount: meld.Mount, words: str) -> str:
    return next(line for line in meld.good("status", mount.point).splitlines() if words in line)


def test_a_sequential_reader_finds_what_it_wants(large, expected, tmp_path):
    """Pieces are there, or under way, before their first byte is asked for: few reads are the first."""
    with meld.Mount(large.recipe, tmp_path / "mnt", foreground=True) as mount:
        fd = os.open(mount / WEIGHTS, os.O_RDONLY | DIRECT)
        with mmap.mmap(-1, 1 << 20) as buffer:
            for off in range(0, len(expected), 1 << 20):
                n = os.preadv(fd, [buffer], off)
                assert buffer[:n] == expected[off : off + n]
        os.close(fd)
        pieces = counter(mount, "pieces").split()
        found = int(pieces[1]) + int(pieces[5])
        assert found >= len(expected) // 3 >> 20, pieces


def test_without_it(large, expected, tmp_path):
    with meld.Mount(large.recipe, tmp_path / "mnt", "noprefetch", foreground=True) as mount:
        fd = os.open(mount / WEIGHTS, os.O_RDONLY | DIRECT)
        with mmap.mmap(-1, 1 << 20) as buffer:
            for off in range(0, len(expected), 1 << 20):
                os.preadv(fd, [buffer], off)
        os.close(fd)
        assert " 0 hits" in counter(mount, "pieces")


def state(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_killed_at_any_moment(large, tmp_path):
    """A reader goes round and round; whenever the daemon dies the reader ends, and nothing waits for ever."""
    dice = random.Random(3)
    for _ in range(KILLS):
        with meld.Mount(large.recipe, tmp_path / "mnt", "cache=32M", foreground=True) as mount:
            reader = subprocess.Popen([sys.executable, "-c", LAPS, str(mount / WEIGHTS)], stderr=subprocess.DEVNULL)
            try:
                time.sleep(dice.uniform(0.05, 0.3))  # any moment: what is tested is that none is worse than others
                mount.process.send_signal(signal.SIGKILL)
                mount.status = -signal.SIGKILL
                assert mount.process.wait(meld.PATIENCE) == -signal.SIGKILL
                assert reader.wait(meld.PATIENCE) != 0
            finally:
                reader.kill()
                reader.wait(meld.PATIENCE)
            meld.detach(mount.point)


# ---- the udev rule's program

READ_AHEAD = pathlib.Path(__file__).parents[2] / "udev/meldfs-read-ahead"


def read_ahead(device: str) -> pathlib.Path:
    return pathlib.Path(f"/sys/class/bdi/{device}/read_ahead_kb")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set the read-ahead of a mount")
def test_udev_raises_the_read_ahead_of_ours_alone(large, tmp_path):
    with meld.Mount(large.recipe, tmp_path / "mnt") as mount:
        number = os.stat(mount / WEIGHTS).st_dev
        device = f"{os.major(number)}:{os.minor(number)}"
        meld.until(lambda: read_ahead(device).read_text() == "4096\n", "the daemon to set its own")
        read_ahead(device).write_text("128")
        seen = dict(os.environ, MOUNTINFO="/proc/self/mountinfo")
        subprocess.run([READ_AHEAD, device], check=True, env=seen)
        assert read_ahead(device).read_text() == "4096\n"
        other = tmp_path / "mountinfo"
        other.write_text(f"40 28 {device} / /mnt rw,nosuid - fuse.sshfs a rw\n")
        read_ahead(device).write_text("128")
        subprocess.run([READ_AHEAD, device], check=True, env=dict(os.environ, MOUNTINFO=str(other)))
        assert read_ahead(device).read_text() == "128\n"
