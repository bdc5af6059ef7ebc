"""Mounting, ending, and what goes wrong: one clear message and status each."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess

import meld
import pytest

WEIGHTS = "model.safetensors"
FIVE_MISTAKES = """\
merge_method: task_arithmatic
base_model: [one, two]
dtype: bfloat17
models:
  - model: models/alpha
    weight: 0.5
  - parameters: {weight: 1}
slices: 3
"""  # a method, base, type and entry that are none, a key in the wrong place, two keys that exclude each other


def refused(*args, status=1, **options) -> str:
    """What `meldfs ARGS` says when it fails with this status; every line is a message."""
    done = meld.run(*args, **options)
    assert done.returncode == status, f"status {done.returncode}\n{done.stderr}"
    lines = done.stderr.splitlines()
    assert lines and all(line.startswith(("meldfs: ", "  ")) for line in lines), done.stderr
    return done.stderr


def one_line(text: str) -> str:
    assert len([line for line in text.splitlines() if "warning" not in line]) == 1, text
    return text


# ---- the command line


def test_wrong_command_lines():
    for args in ([], ["frobnicate"], ["mount"], ["mount", "a"], ["check"], ["export", "x"], ["check", "--bogus", "x"]):
        done = meld.run(*args)
        assert done.returncode == 2 and done.stderr, (args, done)


def test_help_and_version():
    assert "mount" in meld.good("--help")
    assert "0.1" in meld.good("--version")


def test_unknown_mount_option(small, tmp_path):
    (tmp_path / "mnt").mkdir()
    assert "cahce" in refused("mount", small, tmp_path / "mnt", "-o", "cahce=4M", status=2)
    assert not meld.is_mounted(tmp_path / "mnt")


# ---- what cannot be mounted


@pytest.mark.quick
def test_busy_directory(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt") as mount:
        text = one_line(refused("mount", small, mount.point))
        assert str(mount.point) in text
        assert meld.pread_file(mount / WEIGHTS), "the first mount must go on"


def test_missing_directory(small, tmp_path):
    assert "nowhere" in one_line(refused("mount", small, tmp_path / "nowhere"))


def test_mountpoint_that_is_a_file(small, tmp_path):
    (tmp_path / "file").touch()
    assert "file" in one_line(refused("mount", small, tmp_path / "file"))


def test_missing_recipe(tmp_path):
    (tmp_path / "mnt").mkdir()
    assert "none.yml" in one_line(refused("mount", tmp_path / "none.yml", tmp_path / "mnt"))


@pytest.mark.quick
@pytest.mark.parametrize("command", ["mount", "check", "export", "explain", "report"])
def test_five_mistakes(command, tmp_path):
    recipe = tmp_path / "five.yml"
    recipe.write_text(FIVE_MISTAKES)
    (tmp_path / "mnt").mkdir()
    out = {"mount": [tmp_path / "mnt"], "export": [tmp_path / "out"]}.get(command, [])
    text = refused(command, recipe, *out)
    for place in ("1:", "2:", "3:", "6:", "7:"):
        assert f"{recipe}:{place}" in text, f"no message for line {place}\n{text}"
    assert "parameters" in text, text
    assert not meld.is_mounted(tmp_path / "mnt") and not (tmp_path / "out").exists()


def header(entries, length=None, data=64) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def entry(begin, end, shape=(16,), dtype="BF16") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


HOSTILE = {
    "empty file": b"",
    "seven bytes": b"1234567",
    "length beyond the file": header({}, length=1 << 40),
    "length of all ones": header({}, length=(1 << 64) - 1),
    "not JSON": header(b"{" * 100),
    "not an object": header(b"[1, 2, 3]"),
    "deeply nested": header(b'{"a":' + b"[" * 50000 + b"]" * 50000 + b"}"),
    "bad UTF-8": header(b'{"\xff": 1}'),
    "data beyond the end": header({"x": entry(0, 32), "y": entry(32, 64 << 20, [1 << 25])}),
    "end before begin": header({"x": entry(64, 32)}),
    "overlap": header({"x": entry(0, 32), "y": entry(16, 48), "z": entry(48, 64, [8])}),
    "hole": header({"x": entry(0, 16, [8]), "y": entry(32, 64)}),
    "size against shape": header({"x": entry(0, 64)}),
    "product that overflows": header({"x": entry(0, 64, [1 << 33, 1 << 33])}),
    "negative shape": header({"x": entry(0, 64, [-32])}),
    "fractional shape": header(b'{"x":{"dtype":"BF16","shape":[32.0],"data_offsets":[0,64]}}'),
    "unknown type": header({"x": entry(0, 64, dtype="BF17")}),
    "name twice": header(b'{"x":{"dtype":"BF16","shape":[32],"data_offsets":[0,64]},'
                         b'"x":{"dtype":"BF16","shape":[32],"data_offsets":[0,64]}}'),
    "bytes after the data": header({"x": entry(0, 32)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_header(kind, small, tmp_path):
    (tmp_path / "models/beta" / WEIGHTS).write_bytes(HOSTILE[kind])
    (tmp_path / "mnt").mkdir()
    text = one_line(refused("mount", small, tmp_path / "mnt"))
    assert f"beta/{WEIGHTS}" in text, text


HOSTILE_INDEX = {
    "way up": {"weight_map": {"x": "../beta/model.safetensors"}},
    "absolute": {"weight_map": {"x": "/etc/passwd"}},
    "control character": {"weight_map": {"x": "a\nb.safetensors"}},
    "no such file": {"weight_map": {"x": "model-00001-of-00002.safetensors"}},
    "no map": {"metadata": {}},
    "number for a name": {"weight_map": {"x": 3}},
    "tensor that is not there": {"weight_map": {"x": "model-00001-of-00003.safetensors"}},
}


@pytest.mark.parametrize("kind", HOSTILE_INDEX)
def test_hostile_index(kind, small, tmp_path):
    (tmp_path / "models/alpha/model.safetensors.index.json").write_text(json.dumps(HOSTILE_INDEX[kind]))
    (tmp_path / "mnt").mkdir()
    text = one_line(refused("mount", small, tmp_path / "mnt"))
    assert "alpha" in text and "\nb.safetensors" not in text, text


def test_fifo_for_a_weight_file(small, tmp_path):
    """Opened without waiting for a writer, and refused."""
    path = tmp_path / "models/beta" / WEIGHTS
    path.unlink()
    os.mkfifo(path)
    assert "beta" in one_line(refused("check", small, timeout=meld.PATIENCE))


def test_pytorch_weights_name_the_conversion(small, tmp_path):
    (tmp_path / "models/beta" / WEIGHTS).rename(tmp_path / "models/beta/pytorch_model.bin")
    text = one_line(refused("check", small))
    assert "pytorch_model.bin" in text and "save_pretrained" in text


def test_quantized_model_is_named(small, tmp_path):
    path = tmp_path / "models/beta/config.json"
    config = json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    path.write_text(json.dumps(config))
    assert "quantization_config" in one_line(refused("check", small))


EMPTY = {
    "nothing at all": "",
    "nothing to merge": "merge_method: linear\n",
    "no method": "models:\n  - model: models/alpha\n",
    "null models": "merge_method: linear\nmodels:\nslices:\n",
    "empty models": "merge_method: linear\nmodels: []\n",
    "slice without sources": "merge_method: linear\nslices:\n  - sources:\n",
    "empty slice": "merge_method: linear\nslices:\n  - {}\n",
    "module without models": "merge_method: linear\nmodules:\n  default:\n    models:\n    parameters: {weight: 1}\n",
    "empty module": "merge_method: linear\nmodules:\n  default: {}\n",
    "null module": "merge_method: linear\nmodules:\n  default:\n",
    "null entry": "merge_method: linear\nmodels:\n  -\n",
}


@pytest.mark.parametrize("kind", EMPTY)
def test_empty_recipes(kind, small):
    small.write_text(EMPTY[kind])
    assert f"{small}:" in refused("check", small, cwd=small.parent)


@pytest.mark.parametrize("method", ["tise", "dare", "TIES"])
def test_unknown_methods_are_refused_by_name(method, small):
    small.write_text(small.read_text().replace("merge_method: linear", f"merge_method: {method}"))
    text = refused("check", small)
    assert f"there is no merge_method `{method}`" in text and f"{small}:1:" in text


def test_later_keys_are_refused_by_name(small):
    small.write_text(small.read_text() + "tokenizer_source: union\n")
    assert "not supported yet" in refused("check", small)


def test_unknown_keys_are_warnings_and_errors_when_strict(small):
    small.write_text(small.read_text() + "dtpye: float16\n")
    done = meld.run("check", small)
    assert done.returncode == 0 and "dtpye" in done.stderr, done
    assert "dtpye" in refused("check", small, "--strict")


def test_missing_hub_model_names_the_download(small, tmp_path):
    text = small.read_text().replace(str(tmp_path / "models/beta"), "some-org/some-model")
    small.write_text(text)
    assert "hf download some-org/some-model" in one_line(refused("check", small, HF_HUB_CACHE=str(tmp_path / "hub")))


def test_hub_cache(models, tmp_path):
    """A name is looked up in the hub's cache: snapshots are links into blobs."""
    repo = tmp_path / "hub/models--some-org--some-model"
    (repo / "refs").mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "refs/main").write_text("abc123")
    snapshot = repo / "snapshots/abc123"
    snapshot.mkdir(parents=True)
    for i, path in enumerate(sorted((models / "llama/alpha").iterdir())):
        shutil.copy(path, repo / f"blobs/{i}")
        (snapshot / path.name).symlink_to(f"../../blobs/{i}")
    recipe = tmp_path / "hub.yml"
    recipe.write_text("merge_method: passthrough\nmodels:\n  - model: some-org/some-model\n")
    with meld.Mount(recipe, tmp_path / "mnt", HF_HUB_CACHE=str(tmp_path / "hub")) as mount:
        meld.same_tensors(mount.point, models / "llama/alpha")
        assert "some-org/some-model" in (mount / "README.md").read_text()


# ---- the end


def end_by_umount(mount):
    if os.geteuid() == 0:
        subprocess.run(["umount", str(mount.point)], check=True)
    else:
        end_by_fusermount(mount)


def end_by_fusermount(mount):
    subprocess.run(["fusermount3", "-u", str(mount.point)], check=True)


ENDS = {
    "SIGTERM": lambda mount: os.kill(mount.pid(), signal.SIGTERM),
    "SIGINT": lambda mount: os.kill(mount.pid(), signal.SIGINT),
    "umount": end_by_umount,
    "fusermount3": end_by_fusermount,
    "meldfs umount": lambda mount: meld.good("umount", mount.point),
}


@pytest.mark.quick
@pytest.mark.parametrize("foreground", [True, False])
@pytest.mark.parametrize("way", ENDS)
def test_end(way, foreground, small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt", foreground=foreground) as mount:
        assert meld.pread_file(mount / WEIGHTS)
        ENDS[way](mount)
        mount.gone()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signal_while_a_file_is_open(name, small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt", foreground=True) as mount:
        file = open(mount / WEIGHTS, "rb")
        try:
            file.read(100)
            ENDS[name](mount)
            mount.gone()
        finally:
            with contextlib.suppress(OSError):  # there is nobody any more to tell
                file.close()


def test_signal_while_readers_read(large, tmp_path):
    with meld.Mount(large.recipe, tmp_path / "mnt", "cache=4M", foreground=True) as mount:
        readers = [
            subprocess.Popen(["cat", str(mount / WEIGHTS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for _ in range(4)
        ]
        for reader in readers:
            assert reader.stdout.read(100_000)
        ENDS["SIGTERM"](mount)
        for reader in readers:
            reader.stdout.close()
            reader.kill()
            reader.wait(meld.PATIENCE)
        mount.gone()


def test_umount_of_a_busy_mount(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt") as mount:
        with open(mount / WEIGHTS, "rb"):
            assert str(mount.point) in one_line(refused("umount", mount.point))
        assert meld.pread_file(mount / WEIGHTS)


def test_umount_of_what_is_not_mounted(tmp_path):
    assert str(tmp_path) in one_line(refused("umount", tmp_path))


def test_mounts_over_and_over(small, tmp_path):
    for _ in range(10):
        with meld.Mount(small, tmp_path / "mnt") as mount:
            assert len(os.listdir(mount.point)) > 3


def test_stale_mount_is_named_and_can_be_cleared(small, tmp_path):
    with meld.Mount(small, tmp_path / "mnt", foreground=True) as mount:
        mount.status = -signal.SIGKILL
        mount.process.kill()
        mount.process.wait(meld.PATIENCE)
        until_stale(mount.point)
        assert str(mount.point) in one_line(refused("mount", small, mount.point))
        meld.good("umount", mount.point)
        assert not meld.is_mounted(mount.point)
        with meld.Mount(small, mount.point) as again:
            assert meld.pread_file(again / WEIGHTS)


def until_stale(point):
    def stale() -> bool:
        try:
            os.statvfs(point)  # not stat: the kernel remembers attributes
        except OSError as error:
            return error.errno == errno.ENOTCONN
        return False

    meld.until(stale, "the mount to be stale")


def test_two_mounts_do_not_mix(small, large, tmp_path):
    with meld.Mount(small, tmp_path / "a") as a, meld.Mount(large.recipe, tmp_path / "b") as b:
        meld.same_files(b.point, large.exported)
        assert a.point.stat().st_dev != b.point.stat().st_dev
        assert str(a.point) in (text := meld.good("status")) and str(b.point) in text


# ---- where models are looked for


@pytest.mark.parametrize("foreground", [True, False])
@pytest.mark.parametrize("place", ["own folder", "another folder"])
def test_relative_paths(place, foreground, small, tmp_path):
    expected = tmp_path / "expected"
    meld.good("export", small, expected)
    small.write_text(small.read_text().replace(f"{tmp_path}/", "./"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if place == "own folder":
        mount = meld.Mount("small.yml", tmp_path / "mnt", cwd=tmp_path, foreground=foreground)
    else:
        mount = meld.Mount("../small.yml", tmp_path / "mnt", cwd=elsewhere, foreground=foreground)
    with mount:
        meld.same_tensors(mount.point, expected)


def test_working_directory_comes_before_the_recipes_folder(small, models, tmp_path):
    """The name `models/beta` is in both; alpha is only beside the recipe."""
    small.write_text(small.read_text().replace(f"{tmp_path}/", ""))
    shutil.copytree(models / "llama/epsilon", tmp_path / "work/models/beta")
    meld.good("export", small, tmp_path / "out", cwd=tmp_path / "work")
    shutil.rmtree(tmp_path / "models/beta")
    shutil.copytree(models / "llama/epsilon", tmp_path / "models/beta")
    meld.good("export", small, tmp_path / "expected", cwd=tmp_path)
    meld.same_tensors(tmp_path / "out", tmp_path / "expected")


def test_relative_mountpoint(small, tmp_path):
    name = f"mnt.{os.getpid()}"
    (tmp_path / name).mkdir()
    meld.good("mount", small, name, cwd=tmp_path)
    try:
        assert meld.pread_file(tmp_path / name / WEIGHTS)
    finally:
        meld.good("umount", name, cwd=tmp_path)
    meld.until(lambda: not meld.daemons(name), "the daemon to end")


# ---- sources that change under a mount


def weights_of(small) -> pathlib.Path:
    return small.parent / "models/beta" / WEIGHTS


def test_truncated_source(small, tmp_path):
    """EIO where the source is needed, with a message; everything else goes on."""
    with meld.Mount(small, tmp_path / "mnt", foreground=True) as mount:
        os.truncate(weights_of(small), 5000)
        with pytest.raises(OSError) as error:
            meld.pread_file(mount / WEIGHTS)
        assert error.value.errno == errno.EIO
        meld.until(lambda: f"beta/{WEIGHTS}" in mount.log.text(), "a message in the log")
        for name in ("config.json", "tokenizer.json", "README.md"):
            assert meld.pread_file(mount / name)
        lines = [line for line in mount.log.text().splitlines() if f"beta/{WEIGHTS}" in line]
        assert len(lines) == 1, "said once, not at every read"


def test_rewritten_source(small, tmp_path):
    """Same size, other bytes: never a mixture."""
    with meld.Mount(small, tmp_path / "mnt", foreground=True) as mount:
        path = weights_of(small)
        before = path.stat().st_mtime_ns
        with open(path, "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(bytes(100))
        os.utime(path, ns=(before + 10**9, before + 10**9))
        with pytest.raises(OSError) as error:
            meld.pread_file(mount / WEIGHTS)
        assert error.value.errno == errno.EIO
        meld.until(lambda: f"beta/{WEIGHTS}" in mount.log.text(), "a message in the log")


def test_replaced_or_deleted_source(small, tmp_path):
    """The file that was opened is still there, whatever its name means now."""
    expected = tmp_path / "expected"
    meld.good("export", small, expected)
    with meld.Mount(small, tmp_path / "mnt", foreground=True) as mount:
        path = weights_of(small)
        shutil.copy(path, tmp_path / "new")
        (tmp_path / "new").rename(path)
        shutil.rmtree(tmp_path / "models/alpha")
        meld.same_tensors(mount.point, expected)


def test_chmod_and_hard_links_are_no_change(small, tmp_path):
    expected = tmp_path / "expected"
    meld.good("export", small, expected)
    with meld.Mount(small, tmp_path / "mnt") as mount:
        weights_of(small).chmod(0o600)
        os.link(weights_of(small), tmp_path / "backup")
        meld.same_tensors(mount.point, expected)


# ---- export


def test_export_leaves_nothing_half_made(small, tmp_path):
    """The disk is full (here: files may not grow beyond 20 KiB) in the middle of a weight file."""
    out = tmp_path / "out"
    limited = subprocess.run(
        ["sh", "-c", 'trap "" XFSZ; ulimit -f 40; exec "$@"', "sh", meld.BINARY, "export", str(small), str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=meld.PATIENCE)  # fmt: skip
    assert limited.returncode == 1 and limited.stderr.startswith("meldfs: "), limited
    assert [path for path in out.rglob("*") if "safetensors" in path.name] == []


def test_export_to_where_something_is(small, tmp_path):
    """Another model's files are not overwritten unasked."""
    out = tmp_path / "out"
    out.mkdir()
    (out / WEIGHTS).write_bytes(b"precious")
    refused("export", small, out)
    assert (out / WEIGHTS).read_bytes() == b"precious"


def test_export_prints_no_bar_into_a_file(small, tmp_path):
    done = meld.run("export", small, tmp_path / "out")
    assert done.returncode == 0 and "\r" not in done.stderr + done.stdout, done
