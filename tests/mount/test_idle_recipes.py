"""Recipes of a folder whose plans were dropped, and are made again where they are needed.

With the smallest cache two or three plans stay.
"""

import concurrent.futures
import json
import mmap
import os
import pathlib
import shutil
import signal

import meld
import pytest

N = 10
WEIGHTS = "model.safetensors"
RECIPE = """\
merge_method: linear
models:
  - {{model: {one}, parameters: {{weight: 0.{weight}}}}}
  - {{model: {two}, parameters: {{weight: 0.4}}}}
dtype: bfloat16
"""
SMALLEST = "cache=4M"


def status(mount) -> dict:
    return json.loads(meld.good("status", "--json", mount.point))["mounts"][0]


def attributes(path) -> tuple:
    st = os.stat(path)
    return st.st_ino, st.st_size, st.st_mtime_ns, st.st_mode, os.getxattr(path, "user.meldfs.generation"), \
        os.getxattr(path, "user.meldfs.recipe")  # fmt: skip


def tree(folder) -> dict[str, tuple]:
    return {str(p.relative_to(folder)): attributes(p) for p in sorted(pathlib.Path(folder).rglob("*"))}


def read(path, off: int = 0, n: int = 1 << 16) -> bytes:
    """What the daemon says, not what the kernel remembers."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, n, off)
    finally:
        os.close(fd)


def make_idle(mount, name: str) -> None:
    """Others are read until the recipe's plan is dropped: its are not the last ones."""
    others = [other for other in sorted(os.listdir(mount.point)) if other != name and other.startswith("r")]
    for other in others[:4]:
        read(mount / other / WEIGHTS)


@pytest.fixture
def folder(models, tmp_path) -> pathlib.Path:
    """N recipes beside copies of their models, and one of its own models."""
    for name in ("alpha", "beta", "gamma"):
        shutil.copytree(models / "llama" / name, tmp_path / "models" / name)
    path = tmp_path / "recipes"
    path.mkdir()
    for i in range(N):
        text = RECIPE.format(one=tmp_path / "models/alpha", two=tmp_path / "models/beta", weight=i + 1)
        (path / f"r{i}.yml").write_text(text)
    (path / "own.yml").write_text(
        RECIPE.format(one=tmp_path / "models/gamma", two=tmp_path / "models/alpha", weight=5))  # fmt: skip
    return path


def test_plans_are_dropped_and_made_again(folder, tmp_path):
    with meld.Mount(folder, tmp_path / "mnt", SMALLEST) as mount:
        before = tree(mount.point)
        dropped = status(mount)
        assert 0 < dropped["plans"] < N and dropped["plan_bytes"] <= max(4 << 20 >> 4, 200_000), dropped
        assert dropped["plans_again"] == 0
        for _ in range(2):
            for i in range(N):
                out = tmp_path / f"out{i}"
                if not out.exists():
                    meld.good("export", folder / f"r{i}.yml", out)
                for name, path in meld.files(out).items():
                    size = path.stat().st_size
                    assert read(mount / f"r{i}" / name, 0, size) == path.read_bytes(), (i, name)
        assert tree(mount.point) == before
        again = status(mount)
        assert again["plans_again"] >= 2 * N - 4 and again["plans"] < N and again["failed"] == 0, again
        assert "made again" in meld.good("status", mount.point)


def test_one_recipe_keeps_its_plan(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt", SMALLEST) as mount:
        read(mount / WEIGHTS)
        assert status(mount)["plans"] == 1 and status(mount)["plans_again"] == 0


def test_what_is_open_goes_on(folder, tmp_path):
    """With the models that it began with, though their names lead nowhere any more."""
    with meld.Mount(folder, tmp_path / "mnt", SMALLEST) as mount:
        path = mount / "own" / WEIGHTS
        good = meld.pread_file(path)
        with open(path, "rb", buffering=0) as held, open(path, "rb") as mapped:
            held.read(1)
            mapping = mmap.mmap(mapped.fileno(), 0, prot=mmap.PROT_READ)
            mapped.close()
            make_idle(mount, "own")
            shutil.move(tmp_path / "models/gamma", tmp_path / "gamma")
            os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(held.fileno(), len(good), 0) == good  # before the mapping: SIGBUS would end all tests
            os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert mapping[:] == good
            mapping.close()
        assert status(mount)["failed"] == 0


def test_a_source_that_is_gone(folder, tmp_path):
    with meld.Mount(folder, tmp_path / "mnt", SMALLEST, foreground=True) as mount:
        before, good = tree(mount / "own"), read(mount / "own" / WEIGHTS)
        make_idle(mount, "own")
        shutil.move(tmp_path / "models/gamma", tmp_path / "gamma")
        with pytest.raises(OSError, match="Input/output error"):
            read(mount / "own" / WEIGHTS)
        assert f"{folder}/own.yml: cannot be planned again" in mount.log.text() and "gamma" in mount.log.text()
        with pytest.raises(OSError, match="Input/output error"):
            (mount / "own/gamma.weight=0.25").stat()
        assert tree(mount / "own") == before
        assert meld.run("path", mount / "own", "gamma.weight=0.5").returncode == 1
        assert read(mount / "r0" / WEIGHTS)
        shutil.move(tmp_path / "gamma", tmp_path / "models/gamma")
        assert read(mount / "own" / WEIGHTS) == good
        assert tree(mount / "own") == before


def test_a_source_that_has_changed(folder, models, tmp_path):
    """An error, until a reload serves it as it is now."""
    with meld.Mount(folder, tmp_path / "mnt", SMALLEST, foreground=True) as mount:
        old = attributes(mount / "own" / WEIGHTS)
        good = read(mount / "own" / WEIGHTS)
        make_idle(mount, "own")
        for other in ("delta", "epsilon"):  # of another type and size, and of the same
            shutil.rmtree(tmp_path / "models/gamma")
            shutil.copytree(models / "llama" / other, tmp_path / "models/gamma")
            with pytest.raises(OSError, match="Input/output error"):
                read(mount / "own" / WEIGHTS)
        assert "have changed on disk since" in mount.log.text()
        assert attributes(mount / "own" / WEIGHTS) == old
        os.kill(mount.pid(), signal.SIGHUP)
        meld.until(lambda: attributes(mount / "own" / WEIGHTS) != old, "the new generation")
        assert read(mount / "own" / WEIGHTS) != good
        make_idle(mount, "own")
        assert read(mount / "own" / WEIGHTS) != good


def test_an_edit_while_idle(folder, tmp_path):
    with meld.Mount(folder, tmp_path / "mnt", SMALLEST) as mount:
        good = read(mount / "own" / WEIGHTS)
        make_idle(mount, "own")
        old = os.getxattr(mount / "own", "user.meldfs.generation").decode()
        with open(mount / "own" / WEIGHTS, "rb", buffering=0) as held:
            text = (folder / "own.yml").read_text()
            (folder / "own.yml").write_text(text.replace("0.5", "0.7"))
            meld.until(lambda: b"0.7" in read(mount / "own/mergekit_config.yml"), "the edit")
            assert read(mount / "own" / WEIGHTS) != good
            make_idle(mount, "own")
            assert os.pread(held.fileno(), 1 << 16, 0) == good
        make_idle(mount, "own")
        assert read(mount / f"own/generation={old}" / WEIGHTS) == good
        make_idle(mount, "own")
        assert read(mount / "own" / WEIGHTS) != good
        (folder / "own.yml").unlink()
        meld.until(lambda: not (mount / "own").exists(), "it to go")


def test_variants(folder, tmp_path):
    with meld.Mount(folder, tmp_path / "mnt", SMALLEST) as mount:
        meld.good("export", folder / "own.yml", tmp_path / "out", "--set", "gamma.weight=0.25")
        make_idle(mount, "own")
        variant = mount / "own/gamma.weight=0.25"
        meld.same_tensors(variant, tmp_path / "out")
        before = tree(variant)
        make_idle(mount, "own")
        again = status(mount)["plans_again"]
        assert tree(variant) == before and status(mount)["plans_again"] == again
        assert read(variant / WEIGHTS, 0, 1 << 24) == (tmp_path / "out" / WEIGHTS).read_bytes()
        assert status(mount)["plans_again"] > again
        make_idle(mount, "own")
        path = meld.good("path", mount / "own", "0.weight=0.250", "alpha.weight=3").strip()
        assert path == str(mount / "own/alpha.weight=3/gamma.weight=0.25")
        make_idle(mount, "own")
        assert "no tensor" in (done := meld.run("path", mount / "own", "weight.nonsense=1")).stderr, done
        make_idle(mount, "own")
        assert not (mount / "own/gamma.weigth=1").exists()
        make_idle(mount, "own")
        assert os.readlink(mount / "own/0.weight=0.250") == "gamma.weight=0.25"
        make_idle(mount, "own")
        meld.good("export", variant, tmp_path / "again")
        meld.same_files(variant, tmp_path / "again")


def test_a_source_that_hangs(folder, models, tmp_path):
    """Nobody waits but who needs a plan: what is planned is read, and names, sizes and times are told."""
    sources = tmp_path / "identity.yml"
    sources.write_text(f"merge_method: passthrough\nmodels:\n  - model: {models}/llama/alpha\n")
    with meld.Mount(sources, tmp_path / "hanging") as hanging:
        (folder / "own.yml").write_text(
            RECIPE.format(one=hanging.point, two=tmp_path / "models/alpha", weight=5))  # fmt: skip
        with meld.Mount(folder, tmp_path / "mnt", SMALLEST) as mount:
            before, good = tree(mount / "own"), read(mount / "own" / WEIGHTS)
            make_idle(mount, "own")
            os.kill(hanging.pid(), signal.SIGSTOP)
            try:
                with concurrent.futures.ThreadPoolExecutor(2) as pool:
                    reader = pool.submit(read, mount / "own" / WEIGHTS)
                    looker = pool.submit(os.path.exists, mount / "own/alpha.weight=2")
                    try:
                        with pytest.raises(concurrent.futures.TimeoutError):
                            reader.result(0.5)
                        assert tree(mount / "own") == before
                        assert read(mount / "r3" / WEIGHTS)
                        assert status(mount)["requests"] > 0
                    finally:
                        os.kill(hanging.pid(), signal.SIGCONT)
                    assert reader.result(meld.PATIENCE) == good and looker.result(meld.PATIENCE)
            finally:
                os.kill(hanging.pid(), signal.SIGCONT)


def test_many_readers(folder, tmp_path):
    """Bytes of ten recipes, in random order, while they are dropped and edited."""
    with meld.Mount(folder, tmp_path / "mnt", SMALLEST) as mount:
        good = {f"r{i}": read(mount / f"r{i}" / WEIGHTS, 0, 1 << 24) for i in range(N)}

        def look(seed: int) -> None:
            for i in range(60):
                name = f"r{(seed * 7 + i * (seed % 3 + 1)) % N}"
                assert read(mount / name / WEIGHTS, 4096 * i, 8192) == good[name][4096 * i : 4096 * i + 8192]
                if i % 10 == seed:
                    assert (mount / name / f"beta.weight={i + seed + 1}" / WEIGHTS).stat().st_size
                if seed == 0 and i % 5 == 0:
                    text = (folder / "own.yml").read_text()
                    (folder / "own.yml").write_text(text + f"# {i}\n")

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(look, range(6)))
        assert status(mount)["failed"] == 0
