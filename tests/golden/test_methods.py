"""Every method with every type, shape and number of donors, against mergekit's function in this process.

Where MERGEKIT's arithmetic has no reduction the bytes are the same. Elsewhere meldfs reduces in float64, and is never
farther from the truth than mergekit is, but for one rounding of the output.
"""

import itertools
import json
from dataclasses import dataclass, field

import pytest

W = [0.5, -0.25, 0.8, 1.1, 0.3]
POSITIVE = [0.6, 0.7, 0.3, 1.1, 0.2]
ZERO = [0.7, 0.0, -0.4, 0.5, 0.0]
TRIMS = [[0.53] * 5, [0.3, 0.99, 0.5, 0.7, 0.1], [1e-5, 0.5, 1.0, 0.0, 0.2], [0.0] * 5, [0.99] * 5]
DENSITY_ONE = {"weight": W, "density": [1.0] * 5}
TASK = [{"weight": W}, {"weight": ZERO, "normalize": True}, {"weight": W, "lambda": 0.7, "normalize": True},
        {"weight": W, "lambda": -0.5, "int8_mask": True}]  # fmt: skip
PRUNED = [{"weight": W, "density": density} for density in TRIMS]
PRUNED += [{"weight": ZERO, "density": TRIMS[1], "normalize": normalize, "lambda": 1.3} for normalize in (True, False)]
OUTLIERS = [{"gamma": [0.01, 0.2, 0.0, 0.05, 0.5]}, {"gamma": [0.0] * 5}, {}]
CRUMBS = [a | b for a, b in itertools.product(PRUNED, OUTLIERS)]


def rescaled(cases: list[dict]) -> list[dict]:
    return [case | {"rescale": True} for case in cases]


# method: cases, numbers of donors, kinds of donors, with a base and without
CASES = {
    "linear": ([{"weight": W}, {"weight": POSITIVE, "normalize": False}, {"weight": ZERO}],
               (1, 2, 3, 5), ("near",), (False,)),
    "passthrough": ([{}, {"scale": [1.3]}, {"scale": [0.0]}, {"scale": [-1.0]}], (1,), ("near",), (False,)),
    "task_arithmetic": (TASK, (1, 2, 3, 5), ("near", "far", "same"), (True,)),
    "ties": (TASK + PRUNED + [DENSITY_ONE], (1, 2, 3, 5), ("near", "same"), (True,)),
    "ties rescale": (rescaled(PRUNED + [DENSITY_ONE]), (1, 2, 3, 5), ("near", "same"), (True,)),
    "breadcrumbs": (TASK + CRUMBS, (1, 3, 5), ("near",), (True,)),
    "breadcrumbs rescale": (rescaled(CRUMBS[:9]), (1, 3), ("near", "same"), (True,)),
    "breadcrumbs_ties": (TASK + CRUMBS, (2, 5), ("near",), (True,)),
    "breadcrumbs_ties rescale": (rescaled(CRUMBS[:9]), (1, 3), ("near", "same"), (True,)),
    "sce": ([{}] + [{"select_topk": k} for k in (0.0, 0.001, 0.15, 0.4, 0.8, 0.99, 1.0)] + [{"int8_mask": True}],
            (1, 2, 3, 5), ("near", "far", "same"), (True,)),
    "ram": ([{}, {"epsilon": 1e-3}, {"epsilon": 0.0}, {"epsilon": 1.0}], (1, 2, 3, 5), ("near", "same"), (True,)),
    "ramplus_tl": ([{}, {"epsilon": 2e-3}, {"r": 0.5, "alpha": 1.5, "epsilon": 1e-3}, {"r": -0.3}, {"r": 0.0}],
                   (1, 2, 3, 5), ("near", "same"), (True,)),
    "slerp": ([{"t": t} for t in (0.0, 0.3, 0.5, 0.85, 1.0)], (1,), ("near", "far", "same"), (True,)),
    "nuslerp": ([{"weight": w} | more for w in ([0.6, 0.7], [1.0, 0.0], [0.5, -0.5], [0.9, -0.2])
                 for more in ({}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True})],
                (2,), ("near", "far"), (True, False)),
    "multislerp": ([{"weight": POSITIVE}, {"weight": [1.0] * 5}, {"weight": POSITIVE, "normalize_weights": False},
                    {"weight": POSITIVE, "eps": 1e-3}], (1, 2, 3, 5), ("near", "far", "same"), (True, False)),
    "karcher": ([{}, {"max_iter": 1}, {"max_iter": 0}, {"max_iter": 100, "tol": 1e-9}, {"tol": 0.01}],
                (1, 2, 3, 5), ("near", "far"), (True, False)),
    "model_stock": ([{}, {"filter_wise": True}], (2, 3, 5), ("near", "far", "same"), (True,)),
    "nearswap": ([{"t": t} for t in (0.0, 1e-4, 1e-3, 0.01, -0.001)], (1,), ("near", "far"), (True,)),
    "arcee_fusion": ([{}], (1,), ("near", "far"), (True,)),
}  # fmt: skip
EXACT = {"linear", "passthrough", "task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties", "ram", "ramplus_tl",
         "nearswap"}  # fmt: skip
TYPE_NAMES = ["bfloat16", "float16", "float32", "float32-bfloat16", "mixed", "float64", "float64-bfloat16",
              "mixed-float64-float32", "bfloat16-float64"]
QUICK = {("ties", "bfloat16"), ("slerp", "float16"), ("model_stock", "float32"), ("karcher", "bfloat16")}
# Share of elements that may differ from mergekit's; where it merges in float32 and writes it, only the error counts.
SHARE = {"bfloat16": 1e-4, "float16": 1e-3, "float32-bfloat16": 1e-3}
FREE = {"karcher"}  # mergekit rounds each step of an iteration to 16 bits
FLIPS = {"arcee_fusion": 0.03}  # of a mask, in float32: logarithms of quotients near 1
# The float32 steps of a merge that is not rounded to 16 bits at the end are more than one rounding; in float64 sums
# are as good as the order in which they are taken, here and in the truth.
ROUNDINGS = {2: 1, 4: 3, 8: 1e-12 / 2.0**-52}
MENDED = 8  # roundings, where mergekit gives NaN and meldfs does not


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    import methods

    folder = tmp_path_factory.mktemp("methods")
    methods.make(folder)
    return methods.Inputs(folder)


def merges(key: str, types: str) -> list:
    import methods

    cases, numbers, kinds, bases = CASES[key]
    return [methods.Merge(key.split()[0], methods.TYPES[types], n, case, kind, base)
            for case, n, kind, base in itertools.product(cases, numbers, kinds, bases)]  # fmt: skip


@dataclass
class Tally:
    """What one test compared, and what it holds against meldfs."""

    elements: int = 0
    differ: int = 0
    wrong: list = field(default_factory=list)

    def blame(self, merge, key: str, what: str) -> None:
        self.wrong.append(f"{key} {what}\n{merge.text()}")


def differing(ours, theirs):
    """Elements whose bytes differ, NaN being NaN."""
    import torch

    word = {2: torch.int16, 4: torch.int32, 8: torch.int64}[ours.itemsize]
    return (ours.view(word) != theirs.view(word)) & ~(ours.isnan() & theirs.isnan())


def judge(tally: Tally, inputs, merge, key: str, ours, theirs) -> None:
    """Neither farther from the truth than mergekit is nor, where nothing is reduced, different at all."""
    import truth

    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        tally.blame(merge, key, f"is {ours.dtype} {ours.shape}, not {theirs.dtype} {theirs.shape}")
        return
    wrong = differing(ours, theirs)
    if merge.method == "nearswap" and merge.parameters["t"] == 0:
        wrong &= ~(theirs.isnan() & (ours == inputs.of(merge.inputs()[-1])[key]))  # it is the base, which is right
    tally.elements += wrong.numel()
    tally.differ += int(((ours != theirs) & ~theirs.isnan()).sum())  # a zero of either sign
    if not wrong.any():
        return
    if merge.method in EXACT and not merge.parameters.get("rescale"):
        i = int(wrong.view(-1).nonzero()[0])
        tally.blame(merge, key, f"{int(wrong.sum())} of {wrong.numel()} differ, first at {i}: "
                                f"{ours.view(-1)[i].item()!r}, not {theirs.view(-1)[i].item()!r}")  # fmt: skip
        return
    expected, sure = truth.of(merge.method, merge.work(), *inputs.cast(merge, key), merge.parameters)
    errors = [abs(x.double().numpy() - expected)[sure] for x in (ours, theirs)]
    coarser = min(merge.work(), ours.dtype, key=lambda dtype: dtype.itemsize)
    rounding = truth.rounding(coarser) * abs(expected[sure]).max(initial=0)
    if merge.method in FLIPS:
        far, allowed = (int((error > 4 * rounding).sum()) for error in errors)
        limit = allowed + 0.01 * wrong.numel()
    else:
        far, allowed = (float(error.max(initial=0)) for error in errors)
        limit = MENDED * rounding if theirs.isnan().any() else allowed + ROUNDINGS[coarser.itemsize] * rounding
    if not far <= limit:
        tally.blame(merge, key, f"is {far:.3g} from the truth, mergekit {allowed:.3g}, a rounding is {rounding:.3g}")


@pytest.mark.parametrize(("key", "types"), [
    pytest.param(key, types, marks=[pytest.mark.quick] if (key, types) in QUICK else [])
    for key, types in itertools.product(CASES, TYPE_NAMES)])
def test_method(key, types, inputs):
    import methods

    tally = Tally()
    for merge in merges(key, types):
        ours = inputs.ours(merge)
        assert set(ours) == set(methods.SHAPES)
        for name, shape in methods.SHAPES.items():
            if 0 in shape:
                assert list(ours[name].shape) == shape, merge.text()
            else:
                judge(tally, inputs, merge, name, ours[name], inputs.theirs(merge, name))
    method = key.split()[0]
    assert not tally.wrong, f"{len(tally.wrong)} tensors\n" + "\n".join(tally.wrong[:5])
    if method not in FREE and types in SHARE:
        assert tally.differ <= max(FLIPS.get(method, 0), SHARE[types]) * tally.elements, tally


@pytest.mark.parametrize("key", [key for key in CASES if key.split()[0] not in EXACT | set(FLIPS)])
def test_truth(key, inputs):
    """In float32 mergekit is a few roundings from it."""
    import truth

    for merge in merges(key, "float32"):
        expected, sure = truth.of(merge.method, merge.work(), *inputs.cast(merge, "square"), merge.parameters)
        error = abs(inputs.theirs(merge, "square").double().numpy() - expected)[sure].max(initial=0)
        rounding = truth.rounding(merge.work()) * abs(expected).max()
        assert error <= 8 * rounding and sure.mean() > 0.97, f"{error:.3g} {rounding:.3g} {sure.mean()}\n{merge.text()}"


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """Seven donors, in float64 alone, and shapes about the vectors in which torch adds up."""
    import methods

    folder = tmp_path_factory.mktemp("more")
    shapes = {f"n{n}": [n] for n in (1, 2, 3, 4, 5, 7, 15, 16, 17, 31, 33, 65)} | {"large": [3, 50_021]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "DONORS", 7)
        patch.setattr(methods, "FILES", {methods.F64: "f64"})
        patch.setattr(methods, "SHAPES", shapes)
        methods.make(folder)
    return methods.Inputs(folder), shapes


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "sce"])
def test_float64_is_sorted_as_float32(method, tmp_path):
    """By ties and breadcrumbs, so that what float32 does not tell apart is in order of index; sce sorts float64."""
    import methods
    import torch
    from safetensors.torch import save_file

    generator, work = torch.Generator().manual_seed(1), (methods.F64,) * 2
    for name in ("base", "near0", "near1"):
        (tmp_path / f"{name}-f64").mkdir()
        x = (torch.randint(0, 4, [3000], generator=generator) + 1).double() * (1 + 2.0**-45 * torch.arange(3000))
        x = x.view(50, 60)[:, torch.randperm(60, generator=generator)] * (name != "base")
        save_file({"x": x.contiguous()}, tmp_path / f"{name}-f64/model.safetensors", metadata={"format": "pt"})
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1}
        (tmp_path / f"{name}-f64/config.json").write_text(json.dumps(config))
    inputs, tally = methods.Inputs(tmp_path), Tally()
    for share in (0.1, 0.35, 0.6, 0.9):
        case = {"select_topk": share} if method == "sce" else {"weight": W, "density": [share] * 2}
        merge = methods.Merge(method, methods.Types(methods.F64, work, methods.F64), 2, case)
        ours, theirs = inputs.ours(merge)["x"], inputs.theirs(merge, "x")
        if method == "sce":  # whose weights are reduced
            assert ((ours != 0) == (theirs != 0)).all()
        else:
            judge(tally, inputs, merge, "x", ours, theirs)
    assert not tally.wrong, tally.wrong


MORE = W + [0.7, -0.9]


@pytest.mark.parametrize(("method", "parameters"), [
    ("linear", {"weight": MORE}), ("task_arithmetic", {"weight": MORE, "normalize": True}), ("ram", {"epsilon": 1e-3}),
    ("ties", {"weight": MORE, "density": [0.53, 0.2, 0.7, 0.01, 0.9, 0.5, 0.4]}), ("ramplus_tl", {}),
    ("breadcrumbs", {"weight": MORE, "density": [0.5] * 7, "gamma": [0.1] * 7}), ("sce", {"select_topk": 0.3})])
def test_float64_of_more(method, parameters, more):
    """Sums of more than four, in torch's order; cuts through tensors of more than one block."""
    import methods

    tally = Tally()
    for donors in (5, 7):
        merge = methods.Merge(method, methods.Types(methods.F64, (methods.F64,) * 7, methods.F64), donors, parameters,
                              base=method != "linear")  # fmt: skip
        ours = more[0].ours(merge)
        for name in more[1]:
            judge(tally, more[0], merge, name, ours[name], more[0].theirs(merge, name))
    assert not tally.wrong, f"{len(tally.wrong)} tensors\n" + "\n".join(tally.wrong[:5])
