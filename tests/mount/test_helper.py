"""mount(8) and fstab: the installed helper, and `mount -t fuse.meldfs` as root."""

import os
import pathlib
import subprocess

import meld
import pytest

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="session")
def helper(tmp_path_factory) -> pathlib.Path:
    """What `meson install` puts into sbin, in a folder of its own."""
    build = pathlib.Path(os.environ["MELDFS_BUILD"])
    root = tmp_path_factory.mktemp("root")
    subprocess.run(
        ["meson", "install", "-C", str(build), "--no-rebuild", "--destdir", str(root)], check=True,
        stdout=subprocess.DEVNULL)  # fmt: skip
    found = sorted(path for path in root.rglob("mount*") if path.parent.name == "sbin")
    assert found, f"no mount helper in {sorted(root.rglob('*'))}"
    os.environ["PATH"] = f"{next(root.rglob('bin/meldfs')).parent}:{os.environ['PATH']}"
    return found[0]


def readable(point) -> None:
    try:
        assert meld.is_mounted(point)
        assert meld.pread_file(point / WEIGHTS)
    finally:
        meld.good("umount", point)
    meld.until(lambda: not meld.is_mounted(point), "the mount to go")


@pytest.mark.parametrize("options", ["ro,cache=4M", "ro,noauto,user,nofail,_netdev,x-systemd.automount,cache=8M"])
def test_helper(helper, small, tmp_path, options):
    """As mount(8) calls it: absolute paths, options that are mount's own among ours, another working directory."""
    point = tmp_path / "mnt"
    point.mkdir()
    done = subprocess.run([helper, str(small), str(point), "-o", options], cwd="/", text=True, timeout=meld.PATIENCE,
                          stdout=subprocess.DEVNULL, stderr=(tmp_path / "log").open("w"))  # fmt: skip
    assert done.returncode == 0, (tmp_path / "log").read_text()
    readable(point)


def test_helper_takes_relative_models_from_the_recipes_folder(helper, small, tmp_path):
    """In fstab there is no working directory: what lies there must not be found."""
    small.write_text(small.read_text().replace(f"{tmp_path}/", ""))
    point = tmp_path / "mnt"
    point.mkdir()
    other = tmp_path / "other"
    (other / "models/alpha").mkdir(parents=True)
    done = subprocess.run([helper, str(small), str(point), "-o", "ro"], cwd=other, timeout=meld.PATIENCE, text=True,
                          stdout=subprocess.DEVNULL, stderr=(tmp_path / "log").open("w"))  # fmt: skip
    assert done.returncode == 0, (tmp_path / "log").read_text()
    readable(point)


def test_helper_pretends(helper, small, tmp_path):
    """`mount -f`, with a merge file and with a folder of them: planned, not mounted."""
    (tmp_path / "mnt").mkdir()
    (tmp_path / "recipes").mkdir()
    small.rename(tmp_path / "recipes/small.yml")
    for config in (tmp_path / "recipes/small.yml", tmp_path / "recipes"):
        done = subprocess.run([helper, config, tmp_path / "mnt", "-f", "-o", "ro"], capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == "", done
        assert not meld.is_mounted(tmp_path / "mnt")
    done = subprocess.run([helper, tmp_path / "none.yml", tmp_path / "mnt", "-f"], capture_output=True, text=True)
    assert done.returncode == 1 and "none.yml" in done.stderr, done


def test_helper_fails_loudly(helper, small, tmp_path):
    small.write_text(small.read_text().replace("linear", "linaer"))
    (tmp_path / "mnt").mkdir()
    done = subprocess.run([helper, str(small), str(tmp_path / "mnt"), "-o", "ro"], capture_output=True, text=True)
    assert done.returncode != 0 and "linaer" in done.stderr, done


@pytest.mark.skipif(os.geteuid() != 0, reason="mount(8) takes an arbitrary type from root alone")
def test_mount_command(helper, small, tmp_path):
    point = tmp_path / "mnt"
    point.mkdir()
    link = pathlib.Path("/sbin") / helper.name
    made = not link.exists()
    if made:
        link.symlink_to(helper)
    try:
        kind = helper.name.removeprefix("mount.")
        done = subprocess.run(["mount", "-t", kind, str(small), str(point), "-o", "cache=4M"], text=True,
                              stdout=subprocess.DEVNULL, stderr=(tmp_path / "log").open("w"))  # fmt: skip
        assert done.returncode == 0, (tmp_path / "log").read_text()
        readable(point)
    finally:
        if made:
            link.unlink()
