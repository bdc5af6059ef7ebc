"""The meldfs binary for tests: run it, mount with it, and compare what it serves."""

import array
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass

BINARY = os.environ.get("MELDFS", "meldfs")
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "meldfs-tests"
PATIENCE = 60  # seconds: for what takes milliseconds, but a sanitizer on a busy machine does not


@contextlib.contextmanager
def environment(env: dict):
    """No statistics that another test has left: a folder of its own for them, unless `env` names one."""
    with tempfile.TemporaryDirectory(prefix="meldfs-cache.") as folder:
        yield os.environ | {"XDG_CACHE_HOME": folder} | env


def run(*args, cwd=None, timeout=300, **env) -> subprocess.CompletedProcess:
    """`meldfs ARGS`, whatever its exit status."""
    with environment(env) as whole:
        return subprocess.run(
            [BINARY, *map(str, args)], cwd=cwd, timeout=timeout, env=whole, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def good(*args, **options) -> str:
    """The output of `meldfs ARGS`, which must succeed."""
    done = run(*args, **options)
    assert done.returncode == 0, f"meldfs {args}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def until(condition, what: str, seconds: float = PATIENCE):
    """Poll until condition() is true; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.005)
    return value


def mounts() -> list[str]:
    """All mount points; touches none of them."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4].encode().decode("unicode_escape") for line in lines]


def is_mounted(point) -> bool:
    return os.path.realpath(point) in mounts()


def daemons(point) -> list[int]:
    """Processes with both the program's name and this mount point in their command line."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if os.fsencode(str(point)) in words and any(w.endswith(b"meldfs") for w in words):
                found.append(int(entry.parent.name))
    return [pid for pid in found if pid != os.getpid()]


def pread_file(path) -> bytes:
    """A whole file by plain reads."""
    with open(path, "rb", buffering=0) as file:
        parts = []
        while part := file.read(1 << 20):
            parts.append(part)
    return b"".join(parts)


@dataclass
class Log:
    path: pathlib.Path

    def text(self) -> str:
        return self.path.read_text(errors="replace")


class Mount:
    """A mounted merge, unmounted at the end whatever happens.

    foreground: run with -f as a child, so that `process` is the daemon and `log` what it prints.
    """

    def __init__(self, config, point, *options, cwd=None, foreground=False, **env):
        self.config, self.point, self.cwd, self.foreground = config, pathlib.Path(point), cwd, foreground
        self.options, self.env, self.stack = list(options), env, contextlib.ExitStack()
        self.process = None
        self.status = 0  # that the daemon should end with, where it is a child
        self.log = Log(self.point.with_name(self.point.name + ".log"))

    def command(self) -> list[str]:
        words = [BINARY, "mount", str(self.config), str(self.point)]
        if self.options:
            words += ["-o", ",".join(self.options)]
        return words + (["-f"] if self.foreground else [])

    def __enter__(self) -> "Mount":
        self.env = self.stack.enter_context(environment(self.env))
        self.point.mkdir(exist_ok=True)
        if not self.foreground:
            done = subprocess.run(
                self.command(), cwd=self.cwd, env=self.env, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=self.log.path.open("w"))  # fmt: skip
            assert done.returncode == 0, f"mount: status {done.returncode}\n{self.log.text()}"
            assert is_mounted(self.point), "the parent returned before the mount was there"
            return self
        with self.log.path.open("w") as log:
            self.process = subprocess.Popen(self.command(), cwd=self.cwd, env=self.env, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)  # fmt: skip
        try:
            until(self._answers, "the mount")
        except BaseException:
            self._clear()
            raise
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"status {self.process.returncode}\n{self.log.text()}"
        return is_mounted(self.point) and run("status", self.point).returncode == 0

    def __exit__(self, kind, value, trace) -> None:
        try:
            if is_mounted(self.point):
                done = run("umount", self.point)
                if kind is None:
                    assert done.returncode == 0, f"umount: status {done.returncode}\n{done.stderr}"
            if kind is None:
                self.gone()
        finally:
            self._clear()
            self.stack.close()

    def __truediv__(self, name) -> pathlib.Path:
        return self.point / name

    def pid(self) -> int:
        return self.process.pid if self.process else daemons(self.point)[0]

    def gone(self) -> None:
        """No mount and no process are left, and the daemon ended well."""
        until(lambda: not is_mounted(self.point), "the mount to go")
        if self.process:
            status = self.process.wait(PATIENCE)
            assert status == self.status, f"the daemon ended with status {status}\n{self.log.text()}"
        until(lambda: not daemons(self.point), "the daemon to end")

    def _clear(self) -> None:
        if is_mounted(self.point):
            detach(self.point)
        for pid in daemons(self.point):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.kill()
            self.process.wait(PATIENCE)


def detach(point) -> None:
    lazily = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
    subprocess.run([*lazily, str(point)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def files(folder) -> dict[str, pathlib.Path]:
    """Every file under folder by its relative name."""
    folder = pathlib.Path(folder)
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def digest(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weight_files(folder) -> list[pathlib.Path]:
    """The safetensors files of a model, which must be exactly those of its index, if it has one."""
    folder = pathlib.Path(folder)
    there = sorted(path.name for path in folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    named = ["model.safetensors"]
    if index.exists():
        named = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    assert there == named, (there, named)
    return [folder / name for name in there]


def tensors(folder) -> dict[str, tuple[str, list[int], bytes]]:
    """dtype, shape and bytes of every tensor of a model."""
    result = {}
    for path in weight_files(folder):
        content = pread_file(path)
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        for name, info in header.items():
            begin, end = info["data_offsets"]
            result[name] = info["dtype"], info["shape"], content[8 + length + begin : 8 + length + end]
    return result


FORMATS = {"BF16": ("H", 0x7F80, 0x7F), "F16": ("H", 0x7C00, 0x3FF), "F32": ("I", 0x7F800000, 0x7FFFFF),
           "F64": ("Q", 0x7FF0000000000000, 0xFFFFFFFFFFFFF)}  # fmt: skip


def no_nan_bits(dtype: str, data: bytes) -> bytes:
    """data with every NaN spelt alike."""
    word, exponent, mantissa = FORMATS[dtype]
    values = array.array(word, data)
    for i, value in enumerate(values):
        if value & exponent == exponent and value & mantissa:
            values[i] = exponent | mantissa
    return values.tobytes()


def same_tensors(ours, theirs, nan_bits: bool = True, share: float = 0) -> None:
    """The same names both ways, each with the same type, shape and bytes (nan_bits: those of NaN, too).

    share: of all elements, so many may differ.
    """
    a, b = tensors(ours), tensors(theirs)
    spare = share * sum(len(data) // struct.calcsize(FORMATS.get(dtype, "H")[0]) for dtype, _, data in b.values())
    assert sorted(a) == sorted(b)
    for name in b:
        assert a[name][:2] == b[name][:2], name
        x, y = a[name][2], b[name][2]
        if x != y and not nan_bits:
            x, y = no_nan_bits(a[name][0], x), no_nan_bits(a[name][0], y)
        if x != y:
            width = struct.calcsize(FORMATS.get(a[name][0], "H")[0])
            wrong = [i for i in range(0, len(y), width) if x[i : i + width] != y[i : i + width]]
            i = wrong[0]
            spare -= len(wrong)
            if spare >= 0:
                continue
            raise AssertionError(
                f"{name} {a[name][0]} {a[name][1]}: {len(wrong)} of {len(y) // width} elements differ, first at "
                f"{i // width}: {x[i : i + width][::-1].hex()}, not {y[i : i + width][::-1].hex()}")  # fmt: skip


def same_files(ours, theirs) -> None:
    """The same files with the same bytes."""
    a, b = files(ours), files(theirs)
    assert list(a) == list(b)
    for name in a:
        assert a[name].stat().st_size == b[name].stat().st_size, name
        assert digest(a[name]) == digest(b[name]), f"{name} differs"
