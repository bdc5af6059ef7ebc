"""Export that is interrupted, killed and gone on with, in parts, and where it may not write."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import meld
import pytest

WEIGHTS = "model.safetensors"


def start(recipe, out, *options) -> subprocess.Popen:
    return subprocess.Popen([meld.BINARY, "export", str(recipe), str(out), *options], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def hidden(folder) -> list[str]:
    return sorted(path.name for path in pathlib.Path(folder).rglob(".*"))


def interrupt(recipe, out) -> str:
    """Ctrl-C somewhere in the weights; what was said. Sooner, nothing is kept; later, it is complete."""
    for attempt in range(200):
        shutil.rmtree(out, ignore_errors=True)
        process = start(recipe, out, "-o", "threads=1")
        meld.until(lambda: process.poll() is not None or (out / f".{WEIGHTS}.partial").exists(), "the first file")
        time.sleep(0.0005 * 1.04**attempt)  # how long there is a middle depends on machine and build
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=meld.PATIENCE)[1]
        if process.returncode == 1 and out.exists():
            return text
        assert process.returncode == 0 or not out.exists(), text
    pytest.fail("never interrupted in the middle")


@pytest.mark.quick
def test_interrupted_and_gone_on_with(large, tmp_path):
    out = tmp_path / "out"
    text = interrupt(large.recipe, out)
    assert "interrupted" in text and "are kept" in text
    assert hidden(out) == [".meldfs-export", f".{WEIGHTS}.partial", f".{WEIGHTS}.synced"]
    assert [path.name for path in out.iterdir() if path.name[0] != "."] == []
    done = meld.run("export", large.recipe, out)
    assert done.returncode == 0 and "goes on" in done.stderr, done
    assert hidden(out) == []
    meld.same_files(out, large.exported)


def test_killed_at_any_moment(large, tmp_path):
    out, seed = tmp_path / "out", random.Random(7)
    for _ in range(10):
        patience = 0.05
        while not (out / WEIGHTS).exists() or hidden(out):
            process = start(large.recipe, out)
            time.sleep(seed.random() * patience)
            process.kill()
            text = process.communicate(timeout=meld.PATIENCE)
            assert process.returncode in (0, -signal.SIGKILL), text
            patience *= 1.1
        meld.same_files(out, large.exported)
        shutil.rmtree(out)


def test_changed_in_between(small, tmp_path, large):
    """What was begun with other sources or another recipe is neither used nor lost unasked."""
    out, recipe = tmp_path / "out", tmp_path / "task.yml"
    shutil.copy(large.recipe, recipe)
    interrupt(recipe, out)
    before = (out / f".{WEIGHTS}.synced").read_bytes()
    recipe.write_text(recipe.read_text().replace("0.4", "0.3"))
    done = meld.run("export", recipe, out)
    assert done.returncode == 1 and "--afresh" in done.stderr and str(out) in done.stderr, done
    assert (out / f".{WEIGHTS}.synced").read_bytes() == before
    meld.good("export", recipe, out, "--afresh")
    assert hidden(out) == []
    meld.good("export", recipe, tmp_path / "expected")
    meld.same_files(out, tmp_path / "expected")


def test_a_source_that_changed_in_between(small, tmp_path):
    """The same recipe over a model that was written to since has another fingerprint."""
    out = tmp_path / "out"
    meld.good("export", small, out)
    record = tmp_path / "record"
    done = meld.run("export", small, record, "--part", "2/2")
    assert done.returncode == 0 and hidden(record) == [".meldfs-export"], done
    os.utime(tmp_path / "models/beta" / WEIGHTS)
    done = meld.run("export", small, record)
    assert done.returncode == 1 and "--afresh" in done.stderr, done
    meld.good("export", small, record, "--afresh")
    meld.same_files(record, out)


@pytest.mark.quick
def test_parts_at_once(large, tmp_path):
    """More parts than weight files: the others have nothing to do. Any may be the last to end."""
    for _ in range(5):
        out = tmp_path / "out"
        parts = [start(large.recipe, out, "--part", f"{i}/3") for i in (1, 2, 3)]
        for part in parts:
            text = part.communicate(timeout=meld.PATIENCE)
            assert part.returncode == 0, text
        assert hidden(out) == []
        meld.same_files(out, large.exported)
        shutil.rmtree(out)


def test_wrong_parts(small, tmp_path):
    for part in ("0/2", "3/2", "1", "a/b", ""):
        done = meld.run("export", small, tmp_path / "out", "--part", part)
        assert done.returncode == 2 and "--part" in done.stderr, done
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_too_small(large, tmp_path):
    """Told before anything is computed, and nothing is left."""
    script = 'mount -t tmpfs -o size=8M none "$1" && "$2" export "$3" "$1/out"; s=$?; ls -A "$1"; exit $s'
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", tmp_path / "disk", meld.BINARY, large.recipe],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=meld.PATIENCE)  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts of one's own here: {done.stderr}")
    assert done.returncode == 1 and "free" in done.stderr and done.stdout == "", done


def test_a_folder_that_is_read_only(small, tmp_path):
    """A read-only file system refuses everybody, root too."""
    script = 'mount -t tmpfs -o ro none "$1" && "$2" export "$3" "$1/out"'
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", tmp_path / "disk", meld.BINARY, small],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=meld.PATIENCE)  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts of one's own here: {done.stderr}")
    assert done.returncode == 1 and "Read-only" in done.stderr, done
