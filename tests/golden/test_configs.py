"""The merge files in configs/ run as they are, over the models that the demo makes, and give what mergekit gives."""

import pathlib
import shutil
import subprocess
import sys

import meld
import pytest

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
RECIPES = {path.stem: path for path in sorted(CONFIGS.glob("*.yml"))}


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
    meld.same_tensors(tmp_path / "ours", tmp_path / "theirs")
    shutil.rmtree(tmp_path)


def test_there_is_one_for_each_method():
    named = {line.split(":")[1].strip() for path in RECIPES.values() for line in path.read_text().splitlines()
             if line.startswith("merge_method:")}  # fmt: skip
    assert named == {"linear", "passthrough", "task_arithmetic", "nearswap"}
