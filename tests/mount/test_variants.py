"""Parameters as names of a path."""

import os
import pathlib
import shutil
import subprocess
import sys

import meld
import pytest

WEIGHTS = "model.safetensors"

METHODS = {
    "linear": ("linear", "weight: 0.6", ["alpha.weight=0.3", "weight=2", "alpha.weight=0.2~0.9"]),
    "task": ("task_arithmetic", "weight: 0.6", ["beta.weight=0.3", "weight=-1", "lambda=0.5"]),
    "ties": ("ties", "weight: 0.6, density: 0.5", ["beta.density=0.2", "density=0.9", "beta.weight.self_attn=0.1"]),
    "breadcrumbs": ("breadcrumbs", "weight: 0.6, density: 0.5", ["gamma=0.05", "density=0.7"]),
    "sce": ("sce", "{}", ["select_topk=0.3", "select_topk=1"]),
    "slerp": ("slerp", None, ["t=0.2", "t=0~0.5~1"]),
    "nuslerp": ("nuslerp", "weight: 0.5", ["beta.weight=0.9", "nuslerp_flatten=false"]),
    "nearswap": ("nearswap", None, ["t=0.001", "t=0.01"]),
    "multislerp": ("multislerp", "weight: 0.5", ["beta.weight=0.2", "weight=1"]),
}
GLOBAL = {"slerp": "parameters: {t: 0.5}\n", "nearswap": "parameters: {t: 0.005}\n",
          "sce": "parameters: {select_topk: 0.5}\n", "breadcrumbs": "parameters: {gamma: 0.01}\n"}  # fmt: skip
WITHOUT_BASE = {"linear", "multislerp", "nuslerp"}

SANITIZER_KEEPS = 512 << 20  # of what was freed: its quarantine, and shadow


def recipe(models, name: str) -> str:
    method, parameters, _ = METHODS[name]
    base = models / "llama/base"
    text = f"merge_method: {method}\ndtype: bfloat16\n" + GLOBAL.get(name, "")
    if name not in WITHOUT_BASE:
        text += f"base_model: {base}\n"
    donors = ["alpha", "beta"] if name not in ("slerp", "nearswap") else ["beta"]
    text += "models:\n"
    if name == "slerp":
        text += f"  - {{model: {base}}}\n"
    for donor in donors:
        inner = f", parameters: {{{parameters}}}" if parameters not in (None, "{}") else ""
        text += f"  - {{model: {models / 'llama' / donor}{inner}}}\n"
    return text


@pytest.fixture
def task(models, tmp_path):
    path = tmp_path / "task.yml"
    path.write_text(recipe(models, "task"))
    return path


@pytest.mark.parametrize("name", METHODS)
def test_bytes_are_those_of_the_changed_recipe(name, models, tmp_path, oracle):
    """`meldfs yaml` writes the recipe of a variant; mergekit runs on that."""
    path = tmp_path / "a.yml"
    path.write_text(recipe(models, name))
    with meld.Mount(path, tmp_path / "mnt") as mount:
        before = meld.pread_file(mount / WEIGHTS)
        for i, key in enumerate(METHODS[name][2]):
            variant = mount / key
            assert variant.is_dir(), meld.run("path", mount.point, key)
            changed = tmp_path / f"changed{i}.yml"
            changed.write_text(meld.good("yaml", variant))
            assert changed.read_text() == (variant / "mergekit_config.yml").read_text()
            meld.good("export", changed, tmp_path / f"out{i}")
            meld.same_tensors(variant, tmp_path / f"out{i}")
            meld.good("export", path, tmp_path / f"set{i}", "--set", key)
            meld.same_tensors(variant, tmp_path / f"set{i}")
        assert meld.pread_file(mount / WEIGHTS) == before


@pytest.mark.quick
def test_one_directory_has_one_name(task, tmp_path):
    with meld.Mount(task, tmp_path / "mnt") as mount:
        for spelling, target in {
            "beta.weight=0.30": "beta.weight=0.3",
            "beta.weight=3e-1": "beta.weight=0.3",
            "1.weight=0.3": "beta.weight=0.3",
            "beta.weight=0.3/alpha.weight=0.5": "../alpha.weight=0.5/beta.weight=0.3",
        }.items():
            assert os.readlink(mount / spelling) == target, spelling
            assert (mount / spelling / WEIGHTS).is_file()
        assert os.path.isdir(mount / "alpha.weight=0.5/beta.weight=0.3")
        assert not os.path.islink(mount / "alpha.weight=0.5/beta.weight=0.3")
        assert os.path.samefile(mount / "beta.weight=0.3/alpha.weight=0.5", mount / "alpha.weight=0.5/beta.weight=0.3")
        assert "=" not in "".join(os.listdir(mount.point)) and "=" not in "".join(os.listdir(mount / "lambda=2"))


def test_inodes_times_and_attributes(task, tmp_path):
    seen = []
    for point in ("one", "two"):
        with meld.Mount(task, tmp_path / point) as mount:
            places = [mount.point, mount / "lambda=0.5", mount / "lambda=0.6", mount / "lambda=0.5/beta.weight=1"]
            found = [(place / name).stat() for place in places for name in ("", WEIGHTS, "config.json")]
            inodes = [s.st_ino for s in found]
            assert len(set(inodes)) == len(inodes)
            assert os.getxattr(places[1] / WEIGHTS, "user.meldfs.generation") != os.getxattr(
                places[2] / WEIGHTS, "user.meldfs.generation")  # fmt: skip
            for place in places:
                expected = (place / "mergekit_config.yml").read_bytes()
                assert os.getxattr(place, "user.meldfs.recipe") == expected
            seen.append([(s.st_ino, s.st_mtime_ns, s.st_size) for s in found])
            numbers = {entry.name: entry.inode() for entry in os.scandir(places[1])}
            assert numbers == {name: (places[1] / name).stat().st_ino for name in numbers}
    assert seen[0] == seen[1]


WRONG = {
    "no such parameter": "wieght=0.5",
    "no such model": "delta.weight=0.5",
    "no number": "lambda=much",
    "nothing": "lambda=",
    "no key": "=1",
    "infinity": "lambda=inf",
    "not a number": "lambda=nan",
    "hexadecimal": "lambda=0x1p3",
    "percent": "lambda%3D=1",
    "percent in a value": "lambda=0%2E5",
    "Unicode": "λ=0.5",
    "full-width digits": "lambda=０.5",
    "long key": "x" * 254 + "=",
    "gradient of nothing": "lambda=~",
    "list": "lambda=[0.1, 0.2]",
    "two": "lambda=0.5,weight=1",
    "newline": "lamb\nda=0.5",
    "dots": "..=1",
    "generation of nobody": "generation=0123456789abcdef",
    "generation that is none": "generation=xyz",
}


@pytest.mark.parametrize("kind", WRONG)
def test_names_that_are_none(kind, task, tmp_path):
    with meld.Mount(task, tmp_path / "mnt", foreground=True) as mount:
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                os.lstat(mount / WRONG[kind])
        log = mount.log.text()
        assert WRONG[kind].isprintable() is False or f"{WRONG[kind][:200]}" in log, log
        done = meld.run("path", mount.point, WRONG[kind])
        assert done.returncode == 1 and done.stderr.startswith("meldfs: "), done
        assert meld.pread_file(mount / "lambda=0.5/config.json")


def test_a_name_too_long(task, tmp_path):
    with meld.Mount(task, tmp_path / "mnt") as mount:
        with pytest.raises(OSError):
            os.lstat(mount / ("lambda=" + "0" * 400))
        assert os.path.isdir(mount / "lambda=2")


def test_a_path_too_long_to_ask_for(task, tmp_path):
    with meld.Mount(task, tmp_path / "mnt") as mount:
        done = meld.run("path", mount.point, *["beta.weight=0.5"] * 600)
        assert done.returncode == 1 and "too long" in done.stderr, done


def test_twice_is_an_error(task, tmp_path):
    with meld.Mount(task, tmp_path / "mnt") as mount:
        for path in ("lambda=0.5/lambda=0.6", "beta.weight=1/1.weight=2"):
            with pytest.raises(FileNotFoundError):
                os.stat(mount / path)
        assert "lambda" in meld.run("path", mount.point, "lambda=0.5", "lambda=0.6").stderr


def test_models_whose_names_hold_dots_or_are_equal(models, tmp_path):
    for name in ("a/v1.5-math", "b/v1.5-code", "c/v1.5-code"):
        (tmp_path / name).parent.mkdir()
        shutil.copytree(models / "llama/beta", tmp_path / name)
    path = tmp_path / "dots.yml"
    path.write_text("merge_method: linear\ndtype: bfloat16\nmodels:\n" + "".join(
        f"  - {{model: {tmp_path}/{name}, parameters: {{weight: 1}}}}\n"
        for name in ("a/v1.5-math", "b/v1.5-code", "c/v1.5-code")))  # fmt: skip
    with meld.Mount(path, tmp_path / "mnt") as mount:
        assert os.path.isdir(mount / "v1.5-math.weight=0.3")
        assert not os.path.exists(mount / "v1.5-code.weight=0.3"), "which of the two?"
        assert os.path.isdir(mount / "2.weight=0.3")
        assert os.path.isdir(mount / "v1.5-math.weight.self_attn=0.3")


def test_commands(task, tmp_path):
    with meld.Mount(task, tmp_path / "mnt") as mount:
        path = meld.good("path", mount.point, "beta.weight=0.50", "alpha.weight=1e-1").strip()
        assert path == str(mount / "alpha.weight=0.1/beta.weight=0.5")
        assert meld.good("path", mount / "lambda=2", "beta.weight=1").strip() == str(mount / "beta.weight=1/lambda=2")
        done = meld.run("path", mount.point, "wieght=1")
        assert done.returncode == 1 and "weight" in done.stderr
        meld.good("check", path)
        assert "lambda" in meld.good("explain", path)
        meld.good("export", path, tmp_path / "out")
        meld.same_files(path, tmp_path / "out")
        meld.good("export", mount / "alpha.weight=0.1", tmp_path / "more", "--set", "beta.weight=0.5")
        meld.same_files(path, tmp_path / "more")
        assert meld.run("export", mount / "nothing=1", tmp_path / "none").returncode == 1
        meld.good("check", mount / "mergekit_config.yml")


def test_paths_as_a_shell_takes_them(task, tmp_path):
    """From within a mount, and with "." and ".." in them."""
    with meld.Mount(task, tmp_path / "mnt") as mount:
        inside, variant = mount / "lambda=2", mount / "beta.weight=1/lambda=2"
        recipe = (variant / "mergekit_config.yml").read_text()
        for cwd, path in [
            (variant, "."), (variant, "./"), (inside, "../beta.weight=1/lambda=2"),
            (mount.point, "beta.weight=1/lambda=2"), (mount.point, "./lambda=2/../beta.weight=1//./lambda=2/"),
            (tmp_path, "mnt/lambda=2/beta.weight=1"), (inside, "../lambda=3/../beta.weight=1/lambda=2"),
        ]:  # fmt: skip
            assert meld.good("yaml", path, cwd=cwd) == recipe, (cwd, path)
        assert meld.good("path", ".", "beta.weight=1", cwd=inside).strip() == str(variant)
        assert meld.good("path", "..", "lambda=3", cwd=inside).strip() == str(mount / "lambda=3")
        meld.good("check", "mnt/../task.yml", cwd=tmp_path)
        meld.good("check", "../../task.yml", cwd=inside)
        assert "not in a meldfs mount" in meld.run("path", "../..", "lambda=3", cwd=inside).stderr


def test_a_variant_is_no_folder_of_recipes(task, tmp_path):
    (tmp_path / "second").mkdir()
    with meld.Mount(task, tmp_path / "mnt") as mount:
        done = meld.run("mount", mount / "lambda=2", tmp_path / "second")
        assert done.returncode == 1 and "is served by the mount" in done.stderr, done


def test_set(task, tmp_path):
    meld.good("export", task, tmp_path / "out", "--set", "beta.weight=0.25", "--set", "lambda=0.5")
    with meld.Mount(task, tmp_path / "mnt") as mount:
        meld.same_tensors(mount / "beta.weight=0.25/lambda=0.5", tmp_path / "out")
    assert meld.run("check", task, "--set", "nothing=1").returncode == 1
    meld.good("mount", task, (tmp_path / "mnt"), "--set", "beta.weight=0.25", "--set", "lambda=0.5")
    try:
        meld.same_tensors(tmp_path / "mnt", tmp_path / "out")
        meld.good("export", tmp_path / "mnt", tmp_path / "again")
        meld.same_files(tmp_path / "mnt", tmp_path / "again")
    finally:
        meld.good("umount", tmp_path / "mnt")


def status(mount) -> dict:
    """The first of each key that the daemon answers."""
    import socket

    device = mount.point.stat().st_dev
    name = f"{os.major(device)}-{os.minor(device)}.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folders = [runtime and f"{runtime}/meldfs", "/run/meldfs", f"/tmp/meldfs-{os.geteuid()}"]
    path = next(p for f in folders if f and (p := pathlib.Path(f) / name).exists())
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(path))
        s.sendall(b"status\n")
        text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
    result = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        result.setdefault(key, value)
    return result


def memory(mount) -> int:
    text = pathlib.Path(f"/proc/{mount.pid()}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) << 10


def descriptors(mount) -> int:
    return len(os.listdir(f"/proc/{mount.pid()}/fd"))


def walk(mount, numbers) -> None:
    for i in numbers:
        with open(mount / f"beta.weight={i / 10000}/lambda={1 + i / 10000}" / WEIGHTS, "rb", buffering=0) as file:
            file.read(4096)


def test_ten_thousand_variants(task, tmp_path):
    """Memory and descriptors stay; so does a process that stands in one of the first."""
    with meld.Mount(task, tmp_path / "mnt", "cache=4M") as mount:
        first = mount / "beta.weight=0.0001"
        expected = meld.digest(first / WEIGHTS)
        stander = subprocess.Popen(
            [sys.executable, "-c", "import sys, hashlib\n"
             "while sys.stdin.readline():\n"
             "    print(hashlib.sha256(open('model.safetensors', 'rb').read()).hexdigest(), flush=True)\n"],
            cwd=first, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        try:
            walk(mount, range(2, 100))
            before = memory(mount), descriptors(mount)
            walk(mount, range(100, 10000))
            after = memory(mount), descriptors(mount)
            stander.stdin.write("go\n")
            stander.stdin.flush()
            assert stander.stdout.readline().strip() == expected
        finally:
            stander.stdin.close()
            stander.wait(meld.PATIENCE)
        kept = SANITIZER_KEEPS if "ASAN_OPTIONS" in os.environ else 0
        assert after[0] - before[0] < (8 << 20) + kept, (before, after)
        assert after[1] == before[1]
        meld.until(lambda: int(status(mount)["views"]) < 600, "idle variants to be forgotten")
        assert meld.digest(first / WEIGHTS) == expected
