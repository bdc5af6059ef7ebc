"""A variant's path in the hands of those that take paths apart."""

import glob
import pathlib

import meld
import oracle as mergekit
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

RECIPE = """\
merge_method: task_arithmetic
base_model: {llama}/base
models:
  - {{model: {llama}/alpha, parameters: {{weight: 0.6}}}}
  - {{model: {llama}/beta, parameters: {{weight: 0.4}}}}
dtype: bfloat16
"""
VARIANTS = ["alpha.weight=0.3/beta.weight.mlp=-1e-5", "alpha.weight.self_attn=0~0.5~1.25/lambda=0.8"]
STACKED = """\
merge_method: linear
models:
  - {{model: {first}, parameters: {{weight: 0.5}}}}
  - {{model: {second}, parameters: {{weight: 0.25}}}}
dtype: bfloat16
"""


@pytest.fixture
def mount(models, tmp_path):
    recipe = tmp_path / "task.yml"
    recipe.write_text(RECIPE.format(llama=models / "llama"))
    with meld.Mount(recipe, tmp_path / "mnt") as mounted:
        yield mounted


@pytest.fixture
def exported(mount, tmp_path) -> list[pathlib.Path]:
    """What the variants are on disk."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for variant, folder in zip(VARIANTS, folders):
        meld.good("export", mount / variant, folder)
    return folders


@pytest.mark.quick
@pytest.mark.parametrize("variant", VARIANTS)
def test_glob(variant, mount):
    path = mount / variant
    assert glob.glob(f"{path}/*.safetensors") == [str(path / "model.safetensors")]
    assert sorted(path.glob("*")) == sorted(path.iterdir())
    assert glob.escape(str(path)) == str(path)
    assert glob.glob(f"{mount.point}/*=*") == [], "variants are listed"


def test_transformers(mount, exported):
    ids = torch.arange(3, 24)[None]
    for variant, folder in zip(VARIANTS, exported):
        with torch.no_grad():
            ours, theirs = (AutoModelForCausalLM.from_pretrained(p)(ids).logits for p in (mount / variant, folder))
        assert torch.equal(ours, theirs), variant


def test_safetensors(mount, exported):
    for variant, folder in zip(VARIANTS, exported):
        with safe_open(mount / variant / "model.safetensors", "pt") as file, \
                safe_open(folder / "model.safetensors", "pt") as expected:  # fmt: skip
            assert sorted(file.keys()) == sorted(expected.keys())
            assert all(torch.equal(file.get_tensor(name), expected.get_tensor(name)) for name in file.keys())


def test_models_of_a_merge_by_mergekit(mount, exported, models, tmp_path):
    results = []
    for name, (first, second) in {"mounted": [mount / v for v in VARIANTS], "on-disk": exported}.items():
        mergekit.merge(STACKED.format(first=first, second=second), models, tmp_path / name)
        results.append(tmp_path / name)
    meld.same_tensors(*results)


def test_models_of_a_merge_by_meldfs(mount, exported, tmp_path):
    results = []
    for name, (first, second) in {"mounted": [mount / v for v in VARIANTS], "on-disk": exported}.items():
        recipe = tmp_path / f"{name}.yml"
        recipe.write_text(STACKED.format(first=first, second=second))
        meld.good("export", recipe, tmp_path / name)
        results.append(tmp_path / name)
    meld.same_tensors(*results)
