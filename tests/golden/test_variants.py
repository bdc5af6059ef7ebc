"""Variants, as paths of a mount and by --set, against mergekit on the merge file with those values."""

import meld
import oracle
import pytest

BASE = """\
merge_method: {method}
base_model: base
models:
- model: alpha
  parameters: {{weight: 0.7{alpha}}}
- model: beta
  parameters: {{weight: [0.2, 0.9]{beta}}}
{rest}dtype: bfloat16
"""
SLERP = """\
merge_method: slerp
base_model: base
slices:
- sources:
  - {model: base, layer_range: [0, 2]}
  - {model: alpha, layer_range: [0, 2]}
- sources:
  - {model: base, layer_range: [2, 5]}
  - {model: alpha, layer_range: [2, 5]}
  parameters: {t: 0.9}
parameters:
  t: [{filter: self_attn, value: [0, 0.5, 1]}, {value: 0.3}]
dtype: bfloat16
"""
LINEAR = "merge_method: linear\nmodels: [{model: base, parameters: {weight: 1}}, {model: alpha, parameters: {weight: 0.5}}]\n"
STAGES = """\
name: first
merge_method: task_arithmetic
base_model: base
models: [{model: alpha, parameters: {weight: 0.6}}]
dtype: bfloat16
---
merge_method: ties
base_model: base
models: [{model: first, parameters: {weight: 1, density: 0.5}}, {model: beta, parameters: {weight: 0.4, density: 0.5}}]
dtype: bfloat16
"""
PASS = "merge_method: passthrough\nmodels: [{model: alpha, parameters: {scale: 0.9}}]\ndtype: bfloat16\n"


def text_of(method: str, alpha="", beta="", rest="") -> str:
    return BASE.format(method=method, alpha=alpha, beta=beta, rest=rest)


DENSE = {"alpha": ", density: 0.5", "beta": ", density: [0.3, 0.8]"}
TASK = text_of("task_arithmetic")
TIES = text_of("ties", **DENSE)
RECIPES = {
    "task": (TASK, ["alpha.weight=0.3", "alpha.weight=0.3/beta.weight=0.6", "weight=0.25", "beta.weight=1~-0.5~0.25",
                    "weight.self_attn=0/alpha.weight.mlp=2", "lambda=0.5/normalize=true", "alpha.weight=0~1"]),
    "ties": (TIES, ["lambda=0.8/density=0.5", "alpha.density=0.1", "beta.density=0.9/beta.weight=0.1",
                    "density.mlp=0.2/normalize=false", "alpha.density.self_attn=1/density=0.3"]),
    "breadcrumbs": (text_of("breadcrumbs", **DENSE), ["gamma=0.1", "alpha.gamma=0.05/density=0.6"]),
    "slerp": (SLERP, ["t=0.4", "t.self_attn=0~0.5~0.3", "t.mlp=0.75/t.norm=0"]),
    "linear": (LINEAR, ["base.weight=0.25", "normalize=false/alpha.weight=2", "weight=0.5~1"]),
    "passthrough": (PASS, ["scale=0.5", "scale.o_proj=2"]),
    "stages": (STAGES, ["first.density=0.8", "beta.weight=0.9"]),
    "ram": ("merge_method: ram\nbase_model: base\nmodels: [{model: alpha}, {model: beta}]\ndtype: bfloat16\n", ["epsilon=0.01"]),
    "nearswap": ("merge_method: nearswap\nbase_model: base\nmodels: [{model: alpha}]\nparameters: {t: 0.001}\ndtype: bfloat16\n",
                 ["t=0.01", "t.mlp=0~0.02"]),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_variants(name, models, tmp_path):
    text, paths = RECIPES[name]
    share = 1e-3 if name == "slerp" else 0  # a dot that rounds the other way
    recipe = tmp_path / "merge.yml"
    recipe.write_text(text)
    with meld.Mount(recipe, tmp_path / "mnt", cwd=models / "llama") as mount:
        for i, path in enumerate(paths):
            variant = mount.point.joinpath(*path.split("/"))
            theirs, ours = tmp_path / f"theirs{i}", tmp_path / f"ours{i}"
            written = (variant / "mergekit_config.yml").read_text()
            oracle.merge(written, models / "llama", theirs)
            meld.same_tensors(variant, theirs, share=share)
            sets = [word for pair in path.split("/") for word in ("--set", pair)]
            meld.good("export", recipe, ours, *sets, cwd=models / "llama")
            meld.same_tensors(ours, theirs, share=share)
            assert (ours / "mergekit_config.yml").read_text() == written
            if i == 0:  # a weight file by way of the command that takes a path in a mount
                meld.good("export", variant, tmp_path / "by-path")
                meld.same_tensors(tmp_path / "by-path", ours)


def test_there_are_enough():
    """Twenty variants over eight methods, each of which changes something."""
    assert len(RECIPES) >= 8 and sum(len(paths) for _, paths in RECIPES.values()) >= 20


def test_each_changes_something(models, tmp_path):
    for name, (text, paths) in RECIPES.items():
        recipe = tmp_path / f"{name}.yml"
        recipe.write_text(text)
        plain = meld.good("explain", recipe, cwd=models / "llama")
        for path in paths:
            sets = [word for pair in path.split("/") for word in ("--set", pair)]
            assert meld.good("explain", recipe, *sets, cwd=models / "llama") != plain, path
