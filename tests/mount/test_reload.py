"""A merge file that is saved while it is mounted."""

import mmap
import os
import re
import signal
import subprocess
import sys
import threading
import time

import meld
import pytest

WEIGHTS = "model.safetensors"


def generation(path) -> str:
    return os.getxattr(path, "user.meldfs.generation").decode()


def shown(mount, text: str) -> bool:
    return text in (mount / "mergekit_config.yml").read_text()


def save(path, text: str) -> None:
    """As editors that replace the file."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.rename(path)


def save_in_place(path, text: str) -> None:
    path.write_text(text)


def save_by_backup(path, text: str) -> None:
    """As vim: the old file goes, then the new one comes."""
    path.rename(path.with_name(path.name + "~"))
    path.write_text(text)


def weight(small, value) -> str:
    return re.sub(r"weight: [0-9.]+", f"weight: {value}", small.read_text(), count=1)


@pytest.mark.quick
@pytest.mark.parametrize("way", [save, save_in_place, save_by_backup])
def test_what_is_saved_is_served(way, small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt") as mount:
        before = generation(mount / WEIGHTS), (mount / WEIGHTS).stat().st_ino
        text = weight(small, 0.25)
        way(small, text)
        meld.until(lambda: shown(mount, "weight: 0.25"), "the new generation")
        assert generation(mount / WEIGHTS) != before[0]
        assert (mount / WEIGHTS).stat().st_ino != before[1]
        meld.good("export", small, tmp_path / "out")
        meld.same_files(mount.point, tmp_path / "out")
        assert (mount / "mergekit_config.yml").read_text() == text


def test_through_a_link(small, tmp_path):
    (tmp_path / "versions").mkdir()
    small.rename(tmp_path / "versions/a.yml")
    (tmp_path / "versions/b.yml").write_text(weight(tmp_path / "versions/a.yml", 0.125))
    small.symlink_to("versions/a.yml")
    with meld.Mount(small, tmp_path / "mnt") as mount:
        save(tmp_path / "versions/a.yml", weight(small, 0.25))
        meld.until(lambda: shown(mount, "weight: 0.25"), "the new target")
        (tmp_path / "new").symlink_to("versions/b.yml")
        (tmp_path / "new").rename(small)
        meld.until(lambda: shown(mount, "weight: 0.125"), "the new link")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/c.yml").write_text(weight(small, 0.5))
        (tmp_path / "new").symlink_to("elsewhere/c.yml")
        (tmp_path / "new").rename(small)
        meld.until(lambda: shown(mount, "weight: 0.5"), "a link into another folder")
        save(tmp_path / "elsewhere/c.yml", weight(small, 0.75))
        meld.until(lambda: shown(mount, "weight: 0.75"), "the file in that folder", 5)


def test_old_descriptors_and_mappings(large, tmp_path):
    recipe = tmp_path / "task.yml"
    recipe.write_text(large.recipe.read_text())
    old = meld.pread_file(large.exported / WEIGHTS)
    with meld.Mount(recipe, tmp_path / "mnt", "cache=4M") as mount:
        with open(mount / WEIGHTS, "rb", buffering=0) as file:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
                assert mapping[:100_000] == old[:100_000]
                save(recipe, weight(recipe, 0.25))
                meld.until(lambda: shown(mount, "weight: 0.25"), "the new generation")
                new = meld.pread_file(mount / WEIGHTS)
                assert new != old
                assert mapping[:] == old
                assert os.pread(file.fileno(), 1 << 20, len(old) // 2) == old[len(old) // 2 :][: 1 << 20]


def test_a_change_of_nothing(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt", foreground=True) as mount:
        inode = (mount / WEIGHTS).stat().st_ino
        os.utime(small)
        save(small, small.read_text())
        os.kill(mount.pid(), signal.SIGHUP)
        time.sleep(1.5)
        assert (mount / WEIGHTS).stat().st_ino == inode
        assert "pending" not in meld.good("status", mount.point)
        assert mount.log.text() == ""


def test_what_is_wrong_changes_nothing(small, tmp_path):
    good = small.read_text()
    with meld.Mount(small, tmp_path / "mnt", foreground=True) as mount:
        before = generation(mount / WEIGHTS)
        save(small, good.replace("merge_method: linear", "merge_method: linaer"))
        meld.until(lambda: "linaer" in meld.good("status", mount.point), "the reason in the status")
        assert f"{small}:1:" in mount.log.text()
        assert generation(mount / WEIGHTS) == before and meld.pread_file(mount / WEIGHTS)
        small.unlink()
        meld.until(lambda: "no such file" in meld.good("status", mount.point), "the reason in the status")
        assert generation(mount / WEIGHTS) == before
        save(small, good)
        meld.until(lambda: "no such file" not in meld.good("status", mount.point), "the reason to go")
        assert generation(mount / WEIGHTS) == before


def test_sources_that_change_are_seen_on_SIGHUP(small, models, tmp_path):
    with meld.Mount(small, tmp_path / "mnt") as mount:
        before = generation(mount / WEIGHTS)
        source = tmp_path / "models/beta" / WEIGHTS
        new = source.with_name("new")
        content = source.read_bytes()
        new.write_bytes(content[:-64] + bytes(64))
        new.rename(source)
        os.kill(mount.pid(), signal.SIGHUP)
        meld.until(lambda: generation(mount / WEIGHTS) != before, "the new generation")
        meld.good("export", small, tmp_path / "out")
        meld.same_files(mount.point, tmp_path / "out")


def test_generations_can_be_pinned(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt") as mount:
        old = generation(mount.point)
        content = meld.pread_file(mount / WEIGHTS)
        assert meld.pread_file(mount / f"generation={old}" / WEIGHTS) == content
        save(small, weight(small, 0.25))
        meld.until(lambda: generation(mount.point) != old, "the new generation")
        assert meld.pread_file(mount / f"generation={old}" / WEIGHTS) == content
        pinned = mount / f"generation={old}/beta.weight=0.5"
        assert "=" not in "".join(os.listdir(mount.point))
        assert meld.pread_file(pinned / WEIGHTS) != meld.pread_file(mount / "beta.weight=0.5" / WEIGHTS)
        assert os.readlink(mount / f"generation={old}/1.weight=0.5") == "beta.weight=0.5"


def test_variants_change_over_too(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt") as mount:
        old = generation(mount / "beta.weight=0.5")
        assert (mount / "beta.weight=0.50").is_dir()
        save(small, weight(small, 0.25))
        meld.until(lambda: generation(mount / "beta.weight=0.5") != old, "the new generation")
        meld.good("export", small, tmp_path / "out", "--set", "beta.weight=0.5")
        meld.same_tensors(mount / "beta.weight=0.5", tmp_path / "out")
        meld.same_tensors(mount / "beta.weight=0.50", tmp_path / "out")


def test_one_load_is_of_one_generation(large, tmp_path):
    """The merge file is saved between two files of one load, which takes seconds."""
    recipe = tmp_path / "task.yml"
    recipe.write_text(large.recipe.read_text())
    with meld.Mount(recipe, tmp_path / "mnt", "cache=4M") as mount:
        first = generation(mount / WEIGHTS)
        size = (mount / WEIGHTS).stat().st_size
        with open(mount / WEIGHTS, "rb", buffering=0) as file:
            save(recipe, weight(recipe, 0.25))
            for i in range(8):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert os.pread(file.fileno(), 4096, i * size // 9)
                time.sleep(0.3)
                assert generation(mount / WEIGHTS) == first
        meld.until(lambda: generation(mount / WEIGHTS) != first, "the new generation")


def test_pending_is_told(large, tmp_path):
    recipe = tmp_path / "task.yml"
    recipe.write_text(large.recipe.read_text())
    with meld.Mount(recipe, tmp_path / "mnt") as mount:
        meld.pread_file(mount / WEIGHTS)
        save(recipe, weight(recipe, 0.25))
        meld.until(lambda: "waits" in meld.good("status", mount.point), "the reload in the status", 0.9)
        meld.until(lambda: "waits" not in meld.good("status", mount.point), "the change")


READER = """
import os, sys, hashlib, random
root, names = sys.argv[1], dict(line.split() for line in open(sys.argv[2]))
while not os.path.exists(sys.argv[3]):
    fd = os.open(root + "/model.safetensors", os.O_RDONLY)
    said = os.getxattr(fd, "user.meldfs.generation").decode()
    parts = []
    size = os.fstat(fd).st_size
    for off in range(0, size, 1 << 17):
        parts.append(os.pread(fd, 1 << 17, off))
    os.close(fd)
    print(said, hashlib.sha256(b"".join(parts)).hexdigest(), flush=True)
"""


def test_a_storm_of_reloads(small, tmp_path):
    """Eight readers, a hundred saves a second: whatever a descriptor says it is, its bytes are that."""
    texts = [weight(small, w) for w in (0.1, 0.2, 0.3)]
    digests = {}
    for i, text in enumerate(texts):
        small.write_text(text)
        with meld.Mount(small, tmp_path / f"mnt{i}") as mount:
            digests[generation(mount / WEIGHTS)] = meld.digest(mount / WEIGHTS)
    stop, known = tmp_path / "stop", tmp_path / "known"
    known.write_text("".join(f"{g} {d}\n" for g, d in digests.items()))
    with meld.Mount(small, tmp_path / "mnt") as mount:
        readers = [
            subprocess.Popen([sys.executable, "-c", READER, str(mount.point), str(known), str(stop)],
                             stdout=subprocess.PIPE, text=True)
            for _ in range(8)
        ]  # fmt: skip
        outputs = [[] for _ in readers]
        threads = [threading.Thread(target=lambda r=r, o=o: o.extend(r.stdout)) for r, o in zip(readers, outputs)]
        for thread in threads:
            thread.start()
        for i in range(400):
            (save, save_in_place)[i % 2](small, texts[i % 3])
            time.sleep(0.01)
        stop.touch()
        for reader, thread in zip(readers, threads):
            assert reader.wait(meld.PATIENCE) == 0
            thread.join()
        for line in (line for output in outputs for line in output):
            said, digest = line.split()
            assert digests[said] == digest
        assert all(outputs)
        last = texts[399 % 3]
        meld.until(lambda: (mount / "mergekit_config.yml").read_text() == last, "the last save")
        meld.good("export", small, tmp_path / "out")
        meld.same_files(mount.point, tmp_path / "out")
