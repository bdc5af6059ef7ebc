"""Merge files that nobody wrote: each against mergekit. MELDFS_GENERATED=N makes N of them.

A failure is shrunk, and the small merge file printed: it runs as it is over the models of models.py.
"""

import os
import pathlib
import shutil

import generate
import meld
import pytest
import yaml

N = int(os.environ.get("MELDFS_GENERATED", "200"))
AT_ONCE = 10
EXACT = {"linear", "passthrough", "task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties", "ram", "ramplus_tl",
         "nearswap"}  # fmt: skip
# Where a method reduces: how far an element may be off, in parts of its tensor's largest, by the type merged in, and
# the share of elements that may be farther, since a choice hangs on the last bit of a sum.
FAR = {"F32": 1e-4, "F16": 2.0**-8, "BF16": 2.0**-5}
FAR_KARCHER = {"F32": 1e-4, "F16": 2.0**-5, "BF16": 2.0**-2}  # there rounded in every step
FLIPS, FLIPS_ARCEE = 0.005, 0.05


class Refused(Exception):
    """mergekit does not merge this."""


def text_of(recipe: dict) -> str:
    return yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=1000)


def their_tensors(recipe: dict, models: pathlib.Path, out: pathlib.Path) -> dict:
    import oracle

    shutil.rmtree(out, ignore_errors=True)
    try:
        oracle.merge(text_of(recipe), models, out)
        return meld.tensors(out)
    except Exception as error:
        raise Refused(repr(error)) from error


def our_tensors(recipe: dict, models: pathlib.Path, out: pathlib.Path) -> dict | str:
    """What is written, or what is said instead."""
    shutil.rmtree(out, ignore_errors=True)
    out.with_suffix(".yml").write_text(text_of(recipe))
    done = meld.run("export", out.with_suffix(".yml"), out, cwd=models)
    return meld.tensors(out) if done.returncode == 0 else f"status {done.returncode}\n{done.stderr}"


def values(dtype: str, data: bytes):
    import torch

    types = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    return torch.frombuffer(bytearray(data), dtype=types[dtype]).double() if data else torch.zeros(0)


def off(recipe: dict, work: str, ours: tuple, theirs: tuple) -> str | None:
    """What is wrong with one tensor."""
    if ours == theirs:
        return None
    if ours[:2] != theirs[:2]:
        return f"is {ours[:2]}, not {theirs[:2]}"
    method = recipe["merge_method"]
    ours, theirs = (values(dtype, data) for dtype, _, data in (ours, theirs))
    differ = ours != theirs
    differ &= ~(theirs.isnan() & (ours.isnan() | (method == "multislerp")))  # there float16 gives NaN for no reason
    far = differ & ~((ours - theirs).abs() <= (FAR_KARCHER if method == "karcher" else FAR)[work] * theirs.abs().max())
    if method in EXACT and not rescales(recipe):
        wrong, spare = differ, 0
    else:
        wrong, spare = far, 1 + (FLIPS_ARCEE if method == "arcee_fusion" else FLIPS) * len(ours)
    if int(wrong.sum()) <= spare:
        return None
    i = int(wrong.nonzero()[0])
    return f"{int(wrong.sum())} of {len(ours)} are wrong, first at {i}: {ours[i]:.9g}, not {theirs[i]:.9g}"


def rescales(recipe: dict) -> bool:
    return any(path[-1] == "rescale" for path in generate.places(recipe))


def work_type(recipe: dict) -> str:
    """The least exact type that a tensor may be merged in."""
    return {"float16": "F16", "float32": "F32"}.get(recipe.get("dtype"), "BF16")


def problem(recipe: dict, models: pathlib.Path, scratch: pathlib.Path) -> str | None:
    """How ours differs; None: it does not. Refused where mergekit merges nothing."""
    theirs = their_tensors(recipe, models, scratch / "theirs")
    ours = our_tensors(recipe, models, scratch / "ours")
    if isinstance(ours, str):
        return ours
    if set(ours) != set(theirs):
        return f"tensors {sorted(set(ours) ^ set(theirs))}"
    for name in theirs:
        if wrong := off(recipe, work_type(recipe), ours[name], theirs[name]):
            return f"{name} {wrong}"
    return None


def still_fails(models: pathlib.Path, scratch: pathlib.Path):
    def fails(recipe: dict) -> bool:
        try:
            return problem(recipe, models, scratch) is not None
        except Refused:
            return False

    return fails


@pytest.mark.parametrize("first", range(0, N, AT_ONCE))
def test_generated(first, models, tmp_path):
    refused = []
    for seed in range(first, min(first + AT_ONCE, N)):
        recipe = generate.recipe(seed)
        try:
            wrong = problem(recipe, models, tmp_path)
        except Refused as error:
            refused.append(f"{seed}: {error}")
            continue
        if wrong is not None:
            small = generate.shrunk(recipe, still_fails(models, tmp_path))
            raise AssertionError(f"seed {seed}: {problem(small, models, tmp_path)}\n{text_of(small)}")
    assert not refused, refused


def test_all_methods_are_made():
    made = [generate.recipe(seed) for seed in range(200)]
    assert {recipe["merge_method"] for recipe in made} == set(generate.METHODS)
    texts = [text_of(recipe) for recipe in made]
    for word in ("slices:", "modules:", "filter:", "out_dtype:", "models:"):
        assert sum(word in text for text in texts) > 20, word


def test_a_wrong_number_is_seen(models, tmp_path):
    """The comparison fails where it should: our side gets another parameter."""
    wrong = {"task_arithmetic": ("lambda", 1.1), "slerp": ("t", 0.93), "sce": ("select_topk", 0.02),
             "ties": ("density", 0.11), "model_stock": ("filter_wise", True)}  # fmt: skip
    for method, (key, value) in wrong.items():
        index = list(generate.METHODS).index(method)
        donors = [{"model": f"llama/{name}"} for name in ["alpha", "beta"][: 1 if method == "slerp" else 2]]
        recipe = {"merge_method": method, "base_model": "llama/base", "models": donors, "dtype": "bfloat16",
                  "parameters": {"weight": 0.5, "density": 0.5, "t": 0.5}}  # fmt: skip
        table = generate.METHODS[method][3]
        recipe["parameters"] = {name: value for name, value in recipe["parameters"].items() if name in table}
        theirs = their_tensors(recipe, models, tmp_path / f"theirs{index}")
        recipe["parameters"][key] = value
        ours = our_tensors(recipe, models, tmp_path / f"ours{index}")
        assert any(off(recipe, "BF16", ours[name], theirs[name]) for name in theirs), method


def test_a_failure_is_shrunk():
    """Of recipes that 'fail' by a gradient of density under slices little but that is left."""

    def fails(recipe: dict) -> bool:
        return any(path[-1] == "density" and isinstance(generate.at(recipe, path), list) and "slices" in recipe
                   for path in generate.places(recipe))  # fmt: skip

    failing = [recipe for recipe in map(generate.recipe, range(400)) if fails(recipe)]
    assert len(failing) > 5
    for recipe in failing:
        small = generate.shrunk(recipe, fails, tries=2000)
        assert fails(small) and len(text_of(small)) < 220, text_of(small)
