"""The merge files in configs/ run as they are, over the models that the demo makes, and give what mergekit gives."""

import pathlib
import shutil
import subprocess
import sys

import meld
import pytest

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
RECIPES = {path.stem: path for path in sorted(CONFIGS.glob("*.yml"))}


# Sums over a whole tensor, where mergekit's own last digit is chance; and draws (of elements to measure: arcee_fusion).
REDUCED = {"karcher", "model-stock", "multislerp", "nuslerp", "slerp"}
RANDOM = {"arcee-fusion", "dare-linear", "dare-ties", "della", "della-linear"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A copy of configs/ with models."""
    folder = tmp_path_factory.mktemp("configs")
    subprocess.run([sys.executable, CONFIGS / "demo/make_models.py", folder / "models"], check=True)
    for path in RECIPES.values():
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_config(name, folder, tmp_path):
    import oracle

    recipe = folder / f"{name}.yml"
    meld.good("check", recipe, "--strict", cwd="/")
    meld.good("export", recipe, tmp_path / "ours", cwd="/")
    oracle.merge(recipe.read_text(), folder, tmp_path / "theirs")
    if name in REDUCED | RANDOM:
        alike(tmp_path / "ours", tmp_path / "theirs", values=name in REDUCED)
    else:
        meld.same_tensors(tmp_path / "ours", tmp_path / "theirs")
    shutil.rmtree(tmp_path)


def alike(ours: pathlib.Path, theirs: pathlib.Path, values: bool) -> None:
    """The same tensors; with values, at most one element in twenty is another, and by a rounding."""
    from safetensors.torch import load_file

    a, b = load_file(ours / "model.safetensors"), load_file(theirs / "model.safetensors")
    assert {k: (v.dtype, v.shape) for k, v in a.items()} == {k: (v.dtype, v.shape) for k, v in b.items()}
    if not values:
        return
    differ = total = 0
    for name, x in a.items():
        x, y = x.double(), b[name].double()
        off = (x - y).abs() > y.abs().max() * 2**-7
        assert not off.any(), f"{name}: {int(off.sum())} of {off.numel()} are off by more than a rounding"
        differ, total = differ + int((x != y).sum()), total + x.numel()
    assert differ <= total / 20, f"{differ} of {total} differ"


def test_there_is_one_for_each_method():
    named = {line.split(":")[1].strip() for path in RECIPES.values() for line in path.read_text().splitlines()
             if line.startswith("merge_method:")}  # fmt: skip
    assert named == {
        "arcee_fusion", "breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties", "della", "della_linear", "karcher",
        "linear", "model_stock", "multislerp", "nearswap", "nuslerp", "passthrough", "ram", "ramplus_tl", "sce", "slerp",
        "task_arithmetic", "ties"}  # fmt: skip
