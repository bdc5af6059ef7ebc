"""A folder of merge files as a folder of models."""

import os
import shutil
import time

import meld
import pytest

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(small, tmp_path):
    """Two recipes and one that is wrong."""
    path = tmp_path / "recipes"
    path.mkdir()
    (path / "one.yml").write_text(small.read_text())
    (path / "two.v2.yaml").write_text(small.read_text().replace("0.6", "0.3"))
    (path / "wrong.yml").write_text(small.read_text().replace("linear", "linaer"))
    (path / "notes.txt").write_text("no recipe")
    (path / ".hidden.yml").write_text(small.read_text())
    return path


def names(mount) -> list[str]:
    return sorted(os.listdir(mount.point))


@pytest.mark.quick
def test_each_recipe_is_a_directory(folder, tmp_path):
    with meld.Mount(folder, tmp_path / "mnt") as mount:
        assert names(mount) == ["one", "two.v2"]
        for name, file in {"one": "one.yml", "two.v2": "two.v2.yaml"}.items():
            meld.good("export", folder / file, tmp_path / f"{name}.out")
            meld.same_files(mount / name, tmp_path / f"{name}.out")
            assert {e.inode() for e in os.scandir(mount.point) if e.name == name} == {(mount / name).stat().st_ino}
        assert not (mount / "wrong").exists() and not (mount / "beta.weight=0.5").exists()
        text = meld.good("status", mount.point)
        assert "linaer" in text and "one" in text and "two.v2" in text
        assert mount.point.stat().st_nlink == 4


def test_names_come_and_go(folder, tmp_path):
    with meld.Mount(folder, tmp_path / "mnt") as mount:
        assert not (mount / "three").exists()
        shutil.copy(folder / "one.yml", folder / "three.yml")
        meld.until(lambda: (mount / "three").is_dir(), "a new recipe")
        assert names(mount) == ["one", "three", "two.v2"]
        (folder / "one.yml").unlink()
        meld.until(lambda: not (mount / "one").exists(), "a recipe to go")
        assert names(mount) == ["three", "two.v2"]
        (folder / "three.yml").rename(folder / "four.yml")
        meld.until(lambda: names(mount) == ["four", "two.v2"], "a recipe to be renamed")
        assert meld.pread_file(mount / "four" / WEIGHTS)


def test_edits(folder, tmp_path):
    with meld.Mount(folder, tmp_path / "mnt") as mount:
        two = (mount / "two.v2" / WEIGHTS).stat().st_ino
        old = meld.pread_file(mount / "one" / WEIGHTS)
        text = (folder / "one.yml").read_text()
        (folder / "one.yml").write_text(text.replace("linear", "linaer"))
        meld.until(lambda: meld.good("status", mount.point).count("linaer") == 2, "the reason")
        assert meld.pread_file(mount / "one" / WEIGHTS) == old
        (folder / "one.yml").write_text(text.replace("0.6", "0.9"))
        meld.until(lambda: "0.9" in (mount / "one/mergekit_config.yml").read_text(), "the new generation")
        assert meld.pread_file(mount / "one" / WEIGHTS) != old
        assert (mount / "two.v2" / WEIGHTS).stat().st_ino == two
        (folder / "wrong.yml").write_text(text)
        meld.until(lambda: (mount / "wrong").is_dir(), "what is not wrong any more")
        assert "linaer" not in meld.good("status", mount.point)


def test_variants_and_commands(folder, tmp_path):
    with meld.Mount(folder, tmp_path / "mnt") as mount:
        meld.good("export", folder / "one.yml", tmp_path / "out", "--set", "beta.weight=0.5")
        path = meld.good("path", mount / "one", "1.weight=0.50").strip()
        assert path == str(mount / "one/beta.weight=0.5")
        meld.same_tensors(path, tmp_path / "out")
        meld.good("export", path, tmp_path / "again")
        meld.same_files(path, tmp_path / "again")
        old = os.getxattr(mount / "one", "user.meldfs.generation").decode()
        pinned = mount / f"one/generation={old}"
        assert meld.pread_file(pinned / "config.json")
        assert pinned.stat().st_ino != (mount / "one").stat().st_ino
        done = meld.run("export", mount.point, tmp_path / "none")
        assert done.returncode == 1 and "name one" in done.stderr


def test_what_is_no_merge_file(folder, tmp_path):
    """None of it hangs the mount, then or later, or hides in the status."""
    os.mkfifo(folder / "fifo.yml")
    (folder / "folder.yml").mkdir()
    (folder / "zero.yml").symlink_to("/dev/zero")
    (folder / "loop.yml").symlink_to("loop.yml")
    (folder / "deep.yml").write_text("[" * 100_000)
    os.truncate(os.open(folder / "huge.yml", os.O_CREAT | os.O_WRONLY), 1 << 32)
    for name in (b"a=b", b"generation=0123456789abcdef", b"sp ace", b"new\nrecipe x", b"a..b"):
        shutil.copy(folder / "one.yml", os.fsencode(folder) + b"/" + name + b".yml")
    with meld.Mount(folder, tmp_path / "mnt") as mount:
        served = ["a..b", "a=b", "generation=0123456789abcdef", "one", "sp ace", "two.v2"]
        assert names(mount) == served
        for name in served:
            assert meld.pread_file(mount / name / WEIGHTS)
        assert "fifo.yml: not a regular file" in meld.good("status", mount.point)
        assert "\nrecipe x" not in meld.good("status", mount.point)
        os.mkfifo(folder / "later.yml")
        name = os.fsdecode(b"bad\xff")
        shutil.copy(folder / "one.yml", folder / f"{name}.yml")
        meld.until(lambda: (mount / name / WEIGHTS).is_file(), "a new recipe")


def test_an_empty_folder(tmp_path):
    (tmp_path / "recipes").mkdir()
    with meld.Mount(tmp_path / "recipes", tmp_path / "mnt") as mount:
        assert names(mount) == []


def test_a_folder_that_is_replaced(folder, tmp_path):
    with meld.Mount(folder, tmp_path / "mnt") as mount:
        shutil.copytree(folder, tmp_path / "new")
        (tmp_path / "new/one.yml").rename(tmp_path / "new/five.yml")
        folder.rename(tmp_path / "old")
        meld.until(lambda: "recipes: No such file" in meld.good("status", mount.point), "the reason in the status")
        assert meld.pread_file(mount / "one" / WEIGHTS)
        (tmp_path / "new").rename(folder)
        meld.until(lambda: names(mount) == ["five", "two.v2"], "the new folder")
        assert "No such file" not in meld.good("status", mount.point)


def test_on_itself(folder):
    done = meld.run("mount", folder, folder)
    assert done.returncode == 1 and "lies on the mountpoint" in done.stderr, done


def test_documents(models, tmp_path):
    """Named documents are directories beside the result's files."""
    path = tmp_path / "stages.yml"
    path.write_text(
        f"name: stage\nmerge_method: linear\ndtype: bfloat16\nmodels:\n"
        f"  - {{model: {models}/llama/alpha, parameters: {{weight: 1}}}}\n"
        f"  - {{model: {models}/llama/beta, parameters: {{weight: 3}}}}\n"
        f"---\nmerge_method: linear\ndtype: bfloat16\nmodels:\n"
        f"  - {{model: stage, parameters: {{weight: 1}}}}\n"
        f"  - {{model: {models}/llama/gamma, parameters: {{weight: 1}}}}\n")  # fmt: skip
    alone = tmp_path / "alone.yml"
    alone.write_text(path.read_text().split("---")[0].replace("name: stage\n", ""))
    meld.good("export", alone, tmp_path / "out")
    with meld.Mount(path, tmp_path / "mnt") as mount:
        meld.same_tensors(mount / "stage", tmp_path / "out")
        assert "stage" not in os.listdir(mount.point)
        assert (mount / "stage/beta.weight=1").is_dir()
        assert os.readlink(mount / "stage/1.weight=1") == "beta.weight=1"
        assert not (mount / "stage/stage").exists()
        meld.good("export", mount / "stage/beta.weight=1", tmp_path / "variant")
        meld.same_files(mount / "stage/beta.weight=1", tmp_path / "variant")


def test_a_thousand_recipes(small, tmp_path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    for i in range(1000):
        (folder / f"r{i:04}.yml").write_text(small.read_text().replace("0.6", f"0.{i + 1000}"))
    started = time.monotonic()
    with meld.Mount(folder, tmp_path / "mnt") as mount:
        took = time.monotonic() - started
        assert len(names(mount)) == 1000
        assert meld.pread_file(mount / "r0500" / WEIGHTS)
        shutil.copy(folder / "r0000.yml", folder / "s.yml")
        meld.until(lambda: (mount / "s").is_dir(), "another one", 5)
    assert took < 30, took
