"""`meldfs status --json` for programs, and `meldfs top` in a terminal of its own."""

import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import meld
import pytest

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


def status(*args, code=0) -> list[dict]:
    done = meld.run("status", "--json", *args)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    answer = json.loads(done.stdout)
    assert list(answer) == ["mounts"]
    return answer["mounts"]


def test_json(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt", "cache=8M") as mount:
        size = len(meld.pread_file(mount / "model.safetensors"))
        (found,) = status(mount.point)
        assert found["mountpoint"] == str(mount.point) and found["answers"] is True
        assert found["recipe"] == str(small) and found["pid"] == mount.pid()
        assert isinstance(found["generation"], str) and isinstance(found["version"], str)
        assert found["served_bytes"] >= size and found["failed"] == 0 and found["cache_bytes"] == 8 << 20
        assert isinstance(found["uptime_seconds"], float)
        assert 0 <= found["memory_other_bytes"] <= found["memory_bytes"]
        assert found["hit_ratio"] is None or 0 <= found["hit_ratio"] <= 1
        assert found["mountpoint"] in [other["mountpoint"] for other in status()]


def test_a_donor_that_changes_nothing(models, tmp_path):
    """The status names it, and the log once, with its place in the merge file."""
    shutil.copytree(models / "large/base", tmp_path / "same")
    recipe = tmp_path / "merge.yml"
    recipe.write_text("merge_method: task_arithmetic\nbase_model: base\nmodels:\n- model: one\n  parameters: {weight: 1}\n"
                      f"- model: {tmp_path}/same\n  parameters: {{weight: 1}}\n")  # fmt: skip
    with meld.Mount(recipe, tmp_path / "mnt", cwd=models / "large", foreground=True) as mount:
        assert "idle_donor_name" not in status(mount.point)[0]
        for _ in range(2):
            meld.pread_file(mount / "model.safetensors")
        assert status(mount.point)[0]["idle_donor_name"] == f"{tmp_path}/same"
        said = meld.until(lambda: re.findall(r"(.*) changes nothing", mount.log.text()), "the warning")
    assert len(said) == 1 and f"{recipe}:6:10: {tmp_path}/same" in said[0]


TIES = """\
merge_method: ties
base_model: {models}/base
models:
  - {{model: {models}/one, parameters: {{weight: 1.0, density: 0.5}}}}
  - {{model: {models}/two, parameters: {{weight: 0.4, density: 0.5}}}}
dtype: bfloat16
"""


def test_statistics(models, tmp_path):
    """Computed by the first mount, found on disk by the second, told by both."""
    recipe, cache = tmp_path / "ties.yml", tmp_path / "cache"
    recipe.write_text(TIES.format(models=models / "large"))
    cache.mkdir()
    for known, other in (("stats_done", "stats_loaded"), ("stats_loaded", "stats_done")):
        with meld.Mount(recipe, tmp_path / "mnt", XDG_CACHE_HOME=str(cache)) as mount:
            meld.pread_file(mount / "model.safetensors")
            (found,) = status(mount.point)
            assert found[known] > 0 and found[other] == found["stats_todo"] == found["stats_todo_bytes"] == 0
            assert (found["stats_bytes_read"] > 0) == (known == "stats_done")
            assert "  statistics  of " in meld.good("status", mount.point)


def test_json_of_names_that_need_escaping(small, tmp_path):
    with meld.Mount(small, tmp_path / 'a"b\\c\t') as mount:
        (found,) = status(mount.point)
        assert found["mountpoint"] == str(mount.point)


def test_json_of_a_dead_daemon(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt", foreground=True) as mount:
        mount.status = -signal.SIGKILL
        mount.process.kill()
        mount.process.wait(meld.PATIENCE)
        (found,) = status(mount.point, code=1)
        assert found["answers"] is False and "died" in found["error"] and found["recipe"] == str(small)


def test_json_of_what_is_no_mount(tmp_path):
    assert status(tmp_path, code=1) == []
    assert "takes no option" in meld.run("check", "--json", tmp_path).stderr


# ---- top


class Terminal:
    """`meldfs top ARGS` on a terminal."""

    def __init__(self, *args, rows=40, columns=120):
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(
            [meld.BINARY, "top", *map(str, args)], stdin=self.slave, stdout=self.slave, stderr=self.slave,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(meld.PATIENCE)
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds=0.05):
        while select.select([self.master], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                self.output += os.read(self.master, 65536)
        return self.output

    def screens(self) -> list[list[str]]:
        """Every picture that was drawn whole, as lines without control sequences."""
        drawn = re.findall(rb"\x1b\[H(.*?)\x1b\[J", self.read(), re.DOTALL)
        return [[line.strip("\r") for line in re.sub(r"\x1b\[K", "", picture.decode()).split("\n")] for picture in drawn]

    def shows(self, pattern: str):
        return meld.until(
            lambda: (screens := self.screens()) and re.search(pattern, "\n".join(screens[-1])), f"{pattern} in top")

    def type(self, keys: bytes):
        os.write(self.master, keys)

    def ends(self, status=0):
        until = time.monotonic() + meld.PATIENCE
        while self.process.poll() is None and time.monotonic() < until:
            self.read()
        assert self.process.poll() == status, self.output
        assert self.read().rstrip().endswith(LEAVE) and self.output.count(ENTER) == self.output.count(LEAVE)
        assert b"\x1b[?25h" in self.output
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not as it was"


@pytest.mark.parametrize("end", [b"q", b"\x03", signal.SIGTERM])
def test_top_ends(end, small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt") as mount, Terminal(mount.point) as terminal:
        terminal.shows(r"served .*computed .*cache hits .*errors 0")
        terminal.shows(r"memory .*: cache .* of .*, statistics .*, other ")
        terminal.shows(r"statistics of \d+ tensors, .*\d+ under way")
        if isinstance(end, bytes):
            terminal.type(b"x" + end)
        else:
            terminal.process.send_signal(end)
        terminal.ends()


def test_top_shows_rates_every_second(large, tmp_path):
    with meld.Mount(large.recipe, tmp_path / "mnt", "cache=4M") as mount, Terminal(mount.point) as terminal:
        terminal.shows("served -")  # no rate yet
        terminal.shows("served 0 bytes/s")
        meld.pread_file(mount / "model.safetensors")
        terminal.shows(r"served [\d.]+ [kM]B/s +computed [\d.]+ [kM]B/s")
        count = len(terminal.screens())
        time.sleep(2.5)
        assert 1 <= len(terminal.screens()) - count <= 4
        terminal.type(b"q")
        terminal.ends()


def fits(screen: list[str], rows: int, columns: int) -> bool:
    return len(screen) <= rows and max(map(len, screen)) <= columns


def test_top_of_several_in_any_window(small, large, tmp_path):
    with meld.Mount(small, tmp_path / "a") as a, meld.Mount(large.recipe, tmp_path / "b") as b, Terminal() as terminal:
        terminal.shows(re.escape(str(a.point)) + r"(.|\n)*" + re.escape(str(b.point)))
        for rows, columns in ((12, 30), (1, 5), (50, 200), (2, 1), (24, 80)):
            terminal.resize(rows, columns)  # the kernel tells the program by SIGWINCH
            meld.until(lambda: fits(terminal.screens()[-1], rows, columns), "a picture that fits")
        terminal.type(b"q")
        terminal.ends()


def test_top_sees_mounts_come_and_go(small, tmp_path):
    with Terminal() as terminal:
        terminal.shows("meldfs top")
        with meld.Mount(small, tmp_path / "mnt") as mount:
            terminal.shows(re.escape(str(mount.point)))
        meld.until(lambda: str(mount.point) not in "\n".join(terminal.screens()[-1]), "the mount to go")
        terminal.type(b"q")
        terminal.ends()


def test_top_of_one_that_goes(small, tmp_path):
    """It says so where the shell is again, and ends."""
    with meld.Mount(small, tmp_path / "mnt") as mount:
        terminal = Terminal(mount.point)
        terminal.shows("served")
    with terminal:
        meld.until(lambda: terminal.read() is not None and terminal.process.poll() is not None, "top to end")
        assert terminal.process.returncode == 1
        assert re.search(rb"\x1b\[\?1049l.*meldfs: .*mnt", terminal.read(), re.DOTALL), terminal.output
        assert termios.tcgetattr(terminal.slave) == terminal.before


def test_top_is_suspended_and_goes_on(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt") as mount, Terminal(mount.point) as terminal:
        terminal.shows("served")
        terminal.process.send_signal(signal.SIGTSTP)
        meld.until(lambda: "State:\tT" in open(f"/proc/{terminal.process.pid}/status").read(), "top to stop")
        assert terminal.read().endswith(LEAVE)
        assert termios.tcgetattr(terminal.slave) == terminal.before
        count = len(terminal.screens())
        terminal.process.send_signal(signal.SIGCONT)
        meld.until(lambda: len(terminal.screens()) > count, "a new picture")
        terminal.type(b"q")
        terminal.ends()


def test_top_ends_while_a_daemon_hangs(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt") as mount, Terminal(mount.point) as terminal:
        terminal.shows("served")
        pid = mount.pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            terminal.shows("does not answer")
            terminal.type(b"q")
            terminal.ends()
        finally:
            os.kill(pid, signal.SIGCONT)


def test_top_wants_a_terminal_and_a_mount(tmp_path):
    done = meld.run("top")
    assert done.returncode == 1 and "no terminal" in done.stderr and "meldfs status" in done.stderr
    with Terminal(tmp_path) as terminal:
        meld.until(lambda: terminal.read() is not None and terminal.process.poll() is not None, "top to end")
        assert terminal.process.returncode == 1 and ENTER not in terminal.read()
        assert b"meldfs: " in terminal.output


# ---- log


def test_a_detached_daemon_speaks_to_syslog(small, tmp_path):
    private = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*private, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no mount namespace can be made here (root may)")
    (tmp_path / "mnt").mkdir()
    source = tmp_path / "models/beta/model.safetensors"
    script = pathlib.Path(__file__).with_name("syslog.py")
    done = subprocess.run([*private, sys.executable, script, meld.BINARY, small, tmp_path / "mnt", source],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    spoken = done.stdout.splitlines()
    assert spoken[0] == "Input/output error", spoken
    priority = re.match(r"<(\d+)>.*meldfs\[\d+\]: .*beta/model.safetensors", spoken[1])
    assert priority and int(priority[1]) == (3 << 3 | 3), "facility daemon, severity error: " + spoken[1]
    assert (tmp_path / "mnt.stderr").read_text() == ""
