"""What the directory says of itself, and what it refuses."""

import errno
import os

import meld
import pytest

WEIGHTS = "model.safetensors"


@pytest.fixture
def mount(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt") as mount:
        yield mount


def facts(point) -> dict:
    result = {}
    for name, path in meld.files(point).items():
        s = path.stat()
        result[name] = s.st_ino, s.st_size, s.st_blocks, s.st_mtime_ns, s.st_mode, s.st_nlink, s.st_uid, s.st_gid
    return result


@pytest.mark.quick
def test_attributes(mount):
    for name, path in meld.files(mount.point).items():
        s = path.stat()
        assert oct(s.st_mode) == "0o100444", name
        assert (s.st_nlink, s.st_blksize) == (1, 4096), name
        assert s.st_blocks == (s.st_size + 511) // 512, name
        assert s.st_size == len(meld.pread_file(path)), name
    s = mount.point.stat()
    assert oct(s.st_mode) in ("0o40555", "0o40755")


def test_stable_over_remounts(small, tmp_path):
    seen = []
    for point in ("one", "two"):
        with meld.Mount(small, tmp_path / point) as mount:
            seen.append(facts(mount.point))
    assert seen[0] == seen[1]
    small.write_text(small.read_text().replace("0.6", "0.61"))
    with meld.Mount(small, tmp_path / "three") as mount:
        changed = facts(mount.point)
    assert changed[WEIGHTS][0] != seen[0][WEIGHTS][0], "another content behind the same inode number"


def test_mtime_is_the_newest_of_recipe_and_sources(small, tmp_path):
    os.utime(small, ns=(0, 1_500_000_000_123_456_789))
    for path in meld.files(tmp_path / "models").values():
        os.utime(path, ns=(0, 1_400_000_000_000_000_000))
    newest = 1_600_000_000_987_654_321
    os.utime(tmp_path / "models/beta/model.safetensors", ns=(0, newest))
    with meld.Mount(small, tmp_path / "mnt") as mount:
        assert (mount / WEIGHTS).stat().st_mtime_ns == newest


WRITES = {
    "open": lambda p: os.open(p / WEIGHTS, os.O_RDWR),
    "truncating open": lambda p: os.open(p / WEIGHTS, os.O_WRONLY | os.O_TRUNC),
    "create": lambda p: os.open(p / "new", os.O_CREAT | os.O_WRONLY),
    "truncate": lambda p: os.truncate(p / WEIGHTS, 0),
    "unlink": lambda p: os.unlink(p / WEIGHTS),
    "mkdir": lambda p: os.mkdir(p / "new"),
    "rename": lambda p: os.rename(p / WEIGHTS, p / "new"),
    "link": lambda p: os.link(p / WEIGHTS, p / "new"),
    "symlink": lambda p: os.symlink("x", p / "new"),
    "chmod": lambda p: os.chmod(p / WEIGHTS, 0o777),
    "utime": lambda p: os.utime(p / WEIGHTS, (0, 0)),
    "setxattr": lambda p: os.setxattr(p / WEIGHTS, "user.x", b"y"),
}


@pytest.mark.parametrize("way", WRITES)
def test_writing_is_refused(mount, way):
    before = facts(mount.point)
    with pytest.raises(OSError) as refusal:
        WRITES[way](mount.point)
    assert refusal.value.errno in (errno.EROFS, errno.EACCES, errno.EPERM), refusal.value
    assert facts(mount.point) == before


def test_foreign_xattrs(mount):
    for name in ("user.anything", "security.capability", "system.posix_acl_access"):
        with pytest.raises(OSError) as refusal:
            os.getxattr(mount / WEIGHTS, name)
        assert refusal.value.errno in (errno.ENODATA, errno.EOPNOTSUPP), (name, refusal.value)
    assert "user.anything" not in os.listxattr(mount / WEIGHTS)


def test_statfs(mount):
    s = os.statvfs(mount.point)
    served = sum(path.stat().st_size for path in meld.files(mount.point).values())
    assert s.f_bavail == 0 and s.f_namemax == 255
    assert served <= s.f_blocks * s.f_frsize < served + 4096 * 1000
    assert s.f_flag & os.ST_RDONLY and s.f_flag & os.ST_NOSUID and s.f_flag & os.ST_NODEV


def test_missing_names(mount):
    for name in ("nothing", "pytorch_model.bin", ".hidden", "nothing/below", "x" * 255, "weight=notanumber"):
        with pytest.raises(OSError) as refusal:
            os.stat(mount / name)
        assert refusal.value.errno == errno.ENOENT, name
    with pytest.raises(NotADirectoryError):
        os.stat(mount / WEIGHTS / "below")
    with pytest.raises(IsADirectoryError):
        open(mount.point)


def test_folders(models, tmp_path, small):
    """Side files in folders, as sentence-transformers has them."""
    folder = tmp_path / "models/alpha/1_Pooling"
    folder.mkdir()
    (folder / "config.json").write_text('{"word_embedding_dimension": 42}')
    with meld.Mount(small, tmp_path / "mnt") as mount:
        assert (mount / "1_Pooling/config.json").read_text() == '{"word_embedding_dimension": 42}'
        assert os.listdir(mount / "1_Pooling") == ["config.json"]
        assert "1_Pooling" in os.listdir(mount.point)
