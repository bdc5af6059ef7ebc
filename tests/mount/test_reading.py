"""Every way of reading gives the bytes of `export`, while the cache is so small that everything is evicted at once."""

import concurrent.futures
import hashlib
import mmap
import multiprocessing
import os
import random
import subprocess

import meld
import pytest

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def mount(large, tmp_path_factory):
    with meld.Mount(large.recipe, tmp_path_factory.mktemp("reading") / "mnt", "cache=4M") as mount:
        yield mount


@pytest.fixture(scope="module")
def expected(large) -> bytes:
    return (large.exported / WEIGHTS).read_bytes()


@pytest.fixture(autouse=True)
def forget(mount):
    """The kernel keeps no page from the test before."""
    forget_pages(mount / WEIGHTS)


def forget_pages(path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def test_same_files(mount, large):
    meld.same_files(mount.point, large.exported)


def test_sequential(mount, expected):
    assert meld.pread_file(mount / WEIGHTS) == expected


def test_random_pread(mount, expected):
    dice = random.Random(20)
    size = len(expected)
    fd = os.open(mount / WEIGHTS, os.O_RDONLY)
    try:
        for i in range(2000):
            off = dice.choice([dice.randrange(size), size - dice.randrange(1, 5000), dice.randrange(12000)]) | 1
            length = dice.choice([1, 3, dice.randrange(1, 5000), dice.randrange(1, 100_000)])
            if i % 16 == 0:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(fd, length, off) == expected[off : off + length], (i, off, length)
        assert os.pread(fd, 100, size) == b""
        assert os.pread(fd, 100, size + 12345) == b""
        assert os.pread(fd, 100, size - 7) == expected[-7:]
    finally:
        os.close(fd)


def read_mapped(path, flags: int, seed: int) -> str:
    """Digest of the file, its pages touched in an order of their own."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ) as view:
        starts = list(range(0, len(view), 65536))
        random.Random(seed).shuffle(starts)
        parts = {start: view[start : start + 65536] for start in starts}
    return hashlib.sha256(b"".join(parts[start] for start in sorted(parts))).hexdigest()


def test_mmap_from_several_processes(mount, expected):
    right = hashlib.sha256(expected).hexdigest()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as pool:
        jobs = [
            pool.submit(read_mapped, mount / WEIGHTS, [mmap.MAP_SHARED, mmap.MAP_PRIVATE][seed % 2], seed)
            for seed in range(6)
        ]
        assert [job.result(300) for job in jobs] == [right] * 6


def read_direct(path, step: int, starts) -> dict[int, bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    parts = {}
    try:
        with mmap.mmap(-1, step) as buffer:  # aligned to a page
            for start in starts:
                n = os.preadv(fd, [buffer], start)
                parts[start] = buffer[:n]
    finally:
        os.close(fd)
    return parts


def test_direct_512k_from_threads(mount, expected):
    step = 512 << 10
    starts = list(range(0, len(expected), step))
    random.Random(1).shuffle(starts)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(read_direct, mount / WEIGHTS, step, starts[i::4]) for i in range(4)]
        for job in jobs:
            for start, part in job.result(300).items():
                assert part == expected[start : start + step], start


def test_direct_4k(mount, expected):
    pages = random.Random(2).sample(range(0, len(expected) // 4096), 400)
    pages += range(0, 20)
    pages.append(len(expected) // 4096)  # the last one, not full
    for start, part in read_direct(mount / WEIGHTS, 4096, [4096 * page for page in pages]).items():
        assert part == expected[start : start + 4096], start


def test_many_threads(mount, expected):
    """Sixteen readers, each with its own descriptor and stride, over the same file at once."""

    def reader(seed: int) -> None:
        dice = random.Random(seed)
        fd = os.open(mount / WEIGHTS, os.O_RDONLY)
        try:
            off = dice.randrange(len(expected))
            for _ in range(60):
                length = dice.randrange(1, 200_000)
                assert os.pread(fd, length, off) == expected[off : off + length], (seed, off, length)
                off = (off + dice.choice([length, length + 9999, 7 << 20])) % len(expected)
        finally:
            os.close(fd)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for job in [pool.submit(reader, seed) for seed in range(16)]:
            job.result(300)


def test_plain_tools(mount, large, expected, tmp_path):
    def tool(*words) -> bytes:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout

    assert tool("cat", mount / WEIGHTS) == expected
    forget_pages(mount / WEIGHTS)
    tool("cp", "-r", mount.point, tmp_path / "copy")
    meld.same_files(tmp_path / "copy", large.exported)
    forget_pages(mount / WEIGHTS)
    tool("tar", "-C", mount.point, "-Scf", tmp_path / "model.tar", ".")
    (tmp_path / "untarred").mkdir()
    tool("tar", "-C", tmp_path / "untarred", "-xf", tmp_path / "model.tar")
    meld.same_files(tmp_path / "untarred", large.exported)
    found = tool("find", mount.point, "-type", "f", "-name", "*.safetensors").decode().split()
    assert found == [str(mount / WEIGHTS)]
    assert str(len(expected)) in tool("ls", "-l", mount.point).decode()
    assert int(tool("du", "-sb", "--apparent-size", mount / WEIGHTS).split()[0]) == len(expected)
    tool("diff", "-r", mount.point, large.exported)


def test_a_killed_reader_harms_nobody(mount, expected):
    """Readers that die in the middle of a read leave a mount that works."""
    for i in range(5):
        reader = subprocess.Popen(["cat", mount / WEIGHTS], stdout=subprocess.PIPE)
        assert len(reader.stdout.read(1000 + 300_000 * i)) == 1000 + 300_000 * i
        reader.kill()
        reader.wait(meld.PATIENCE)
        reader.stdout.close()
        forget_pages(mount / WEIGHTS)
    assert meld.pread_file(mount / WEIGHTS) == expected


def test_status_names_the_mount(mount):
    text = meld.good("status", mount.point)
    assert str(mount.point) in text, text
