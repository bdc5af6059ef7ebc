"""Statistics on disk: found again by the next mount, and whatever happens to them, no byte changes."""

import contextlib
import json
import os
import random
import shutil
import stat
import threading

import meld
import pytest

TIES = """\
merge_method: ties
base_model: base
models:
- {model: one, parameters: {weight: 1, density: 0.4}}
- {model: two, parameters: {weight: 0.5, density: 0.6}}
dtype: bfloat16
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("statistics") / "ties.yml"
    path.write_text(TIES)
    return path


@pytest.fixture(scope="module")
def plain(recipe, models, tmp_path_factory) -> bytes:
    """The weights, computed without a store."""
    out = tmp_path_factory.mktemp("plain") / "out"
    meld.good("export", recipe, out, "-o", "nostats", cwd=models / "large")
    return (out / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def filled(recipe, models, plain, tmp_path_factory):
    """A cache folder with all the statistics of the merge."""
    folder = tmp_path_factory.mktemp("filled")
    assert seen(recipe, models, folder, plain)["stats_done"] > 0
    return folder


def mounted(recipe, models, point, cache, *options):
    return meld.Mount(recipe, point, *options, cwd=models / "large", XDG_CACHE_HOME=str(cache))


def counters(mount) -> dict:
    return json.loads(meld.good("status", "--json", mount.point))["mounts"][0]


def seen(recipe, models, cache, plain, *options) -> dict:
    """Mount, read everything, compare: the counters then."""
    with mounted(recipe, models, cache / "mnt", cache, *options) as mount:
        assert meld.pread_file(mount / "model.safetensors") == plain
        return counters(mount)


def test_the_next_mount_finds_them(recipe, models, plain, filled):
    found = seen(recipe, models, filled, plain)
    assert found["stats_loaded"] > 0 and found["stats_done"] == 0 and found["stats_bytes_read"] == 0


def test_they_are_ours_alone(filled):
    folder = filled / "meldfs"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())


def test_other_weights_use_them_and_another_density_adds_to_them(recipe, models, filled, tmp_path):
    cache = copied(filled, tmp_path)
    with mounted(recipe, models, tmp_path / "mnt", cache) as mount:
        meld.pread_file(mount / "one.weight=0.3/lambda=2/model.safetensors")
        assert counters(mount)["stats_done"] == 0
        meld.pread_file(mount / "one.density=0.1/model.safetensors")
        assert counters(mount)["stats_done"] > 0


def test_changed_sources_have_others(recipe, models, plain, filled, tmp_path):
    """A copy of the models is other files, though every byte is the same."""
    cache = copied(filled, tmp_path)
    shutil.copytree(models / "large", tmp_path / "large")
    found = seen(recipe, tmp_path, cache, plain)
    assert found["stats_done"] > 0 and found["stats_loaded"] == 0


def test_nostats(recipe, models, plain, filled, tmp_path):
    found = seen(recipe, models, tmp_path, plain, "nostats")
    assert found["stats_done"] > 0 and not (tmp_path / "meldfs").exists()
    assert seen(recipe, models, filled, plain, "nostats")["stats_loaded"] == 0


def copied(filled, tmp_path):
    shutil.copytree(filled / "meldfs", tmp_path / "cache/meldfs")
    return tmp_path / "cache"


def files(cache) -> list:
    found = sorted((cache / "meldfs").iterdir())
    assert found
    return found


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits(seed, recipe, models, plain, filled, tmp_path):
    cache, dice = copied(filled, tmp_path), random.Random(seed)
    for path in files(cache):
        data = bytearray(path.read_bytes())
        for _ in range(3 if seed % 2 else 300):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
    seen(recipe, models, cache, plain)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.999])
def test_truncated(share, recipe, models, plain, filled, tmp_path):
    cache = copied(filled, tmp_path)
    for path in files(cache):
        os.truncate(path, int(path.stat().st_size * share))
    seen(recipe, models, cache, plain)


def test_other_things_in_their_place(recipe, models, plain, filled, tmp_path):
    cache = copied(filled, tmp_path)
    for i, path in enumerate(files(cache)):
        path.unlink()
        (path.mkdir, lambda path=path: os.mkfifo(path), lambda path=path: path.symlink_to("/dev/zero"))[i % 3]()
    (cache / "meldfs/ff00000000000000.stats").symlink_to("/etc/passwd")
    assert seen(recipe, models, cache, plain)["stats_done"] > 0


def test_a_folder_that_cannot_be_used(recipe, models, plain, tmp_path):
    (tmp_path / "meldfs").write_text("a file")
    assert seen(recipe, models, tmp_path, plain)["stats_done"] > 0
    (tmp_path / "meldfs").unlink()
    (tmp_path / "meldfs").mkdir()
    (tmp_path / "meldfs").chmod(0o777)
    assert seen(recipe, models, tmp_path, plain)["stats_done"] > 0
    assert not any((tmp_path / "meldfs").iterdir()), "written where others may write"


def test_two_daemons_at_once(recipe, models, plain, tmp_path):
    with contextlib.ExitStack() as stack:
        mounts = [stack.enter_context(mounted(recipe, models, tmp_path / f"mnt{i}", tmp_path)) for i in range(2)]
        same = [False, False]

        def read(i):
            same[i] = meld.pread_file(mounts[i] / "model.safetensors") == plain

        threads = [threading.Thread(target=read, args=[i]) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert same == [True, True]
    assert seen(recipe, models, tmp_path, plain)["stats_done"] == 0


def test_a_daemon_killed_while_it_writes(recipe, models, plain, tmp_path):
    for _ in range(4):
        with mounted(recipe, models, tmp_path / "mnt", tmp_path) as mount:
            reader = threading.Thread(target=read_some, args=[mount])
            reader.start()
            meld.until(lambda: any((tmp_path / "meldfs").glob("*")), "the first statistics")
            os.kill(mount.pid(), 9)
            reader.join()
            meld.good("umount", mount.point)
    seen(recipe, models, tmp_path, plain)


def read_some(mount) -> None:
    with contextlib.suppress(OSError):
        meld.pread_file(mount / "model.safetensors")
