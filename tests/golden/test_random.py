"""dare and della: what is kept is drawn at random, once and for all, by seed, tensor, donor and element.

mergekit draws in the order in which it computes; what can be compared is the distribution. Seeds are fixed, so that a
check within five sigma passes always or never.
"""

import itertools
import json
import os
import random
import shutil
import struct

import meld
import pytest
from draws import draws, in_mergekit

METHODS = ["dare_linear", "dare_ties", "della", "della_linear"]
SHAPES = {"vector": [100_003], "matrix": [300, 701], "cube": [7, 11, 1001], "row": [1, 4096], "column": [5001, 1],
          "short": [3], "empty": [0, 8]}  # fmt: skip
LARGE = [key for key, shape in SHAPES.items() if shape[0] * shape[-1] > 1000]
DENSITIES = [0.25, 0.5, 0.8]  # of the donors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """base: zeros. flag0 flag1 flag2: 1, 2 and 4, so that a sum tells who was kept. values: of every size."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("random")
    generator = torch.Generator().manual_seed(3)
    for name in ("base", "flag0", "flag1", "flag2", "values"):
        (folder / name).mkdir()
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1}
        (folder / name / "config.json").write_text(json.dumps(config))
        state = {}
        for key, shape in SHAPES.items():
            full = {"base": 0.0, "flag0": 1.0, "flag1": 2.0, "flag2": 4.0}
            state[key] = (torch.full(shape, full[name]) if name in full
                          else torch.randn(shape, generator=generator) + 3e-3).to(torch.float32)  # fmt: skip
        save_file(state, folder / name / "model.safetensors", metadata={"format": "pt"})
    return folder


def recipe(method: str, donors: list[str], densities=DENSITIES, dtype="float32", **shared) -> str:
    models = [{"model": name, "parameters": {"weight": 1.0, "density": density}}
              for name, density in zip(donors, densities)]  # fmt: skip
    shared = {"rescale": False, "normalize": False} | shared
    text = {"merge_method": method, "base_model": "base", "models": models, "parameters": shared, "dtype": dtype}
    return json.dumps(text)


def export(folder, out, text: str, *options: str) -> dict:
    """Tensors as float32 arrays."""
    from safetensors.torch import load_file

    out.with_suffix(".yml").write_text(text)
    meld.good("export", out.with_suffix(".yml"), out, *[word for option in options for word in ("-o", option)],
              cwd=folder)  # fmt: skip
    return {key: value for path in meld.weight_files(out) for key, value in load_file(path).items()}


FLAGS = ["flag0", "flag1", "flag2"]


@pytest.fixture(scope="module")
def masks(folder, tmp_path_factory):
    """masks(method, seed): who is kept, [donor][element] for every tensor."""
    found = {}

    def result(method: str, seed: int = 0) -> dict:
        if (method, seed) not in found:
            out = tmp_path_factory.mktemp("masks") / "out"
            equals = {"epsilon": 1e-3} if method.startswith("della") else {}  # else they rank by place
            sums = export(folder, out, recipe(method, FLAGS, **equals), f"seed={seed}")
            found[method, seed] = {key: [value.long().view(-1) >> i & 1 for i in range(3)]
                                   for key, value in sums.items()}  # fmt: skip
        return found[method, seed]

    return result


def within(count: int, n: int, p: float, what) -> None:
    """A count of n draws of probability p, within five sigma."""
    off = abs(count - n * p) / (n * p * (1 - p)) ** 0.5
    assert off < 5, f"{what}: {count} of {n} at {p}: {off:.1f} sigma"


@pytest.mark.quick
@pytest.mark.parametrize("method", METHODS)
def test_share_of_every_tensor_and_donor(method, masks):
    for key, kept in masks(method).items():
        for donor, p in enumerate(DENSITIES):
            if kept[donor].numel():
                within(int(kept[donor].sum()), kept[donor].numel(), p, (key, donor))


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_the_draws_are_those_promised(seed, masks):
    """They never change: masks on other machines and in later versions are these."""
    import numpy

    for key, kept in masks("dare_linear", seed).items():
        for donor, p in enumerate(DENSITIES):
            words = draws(seed, key, donor, kept[donor].numel())
            expected = words / 2.0**32 < numpy.float32(p)
            assert (kept[donor].numpy() == expected).all(), (key, donor)


def chi_square(a, b) -> float:
    """Of the four-field table of two masks; one degree of freedom."""
    n = a.numel()
    rows, columns = [int(a.sum()), n - int(a.sum())], [int(b.sum()), n - int(b.sum())]
    cells = [[int((a & b).sum()), int((a & ~b & 1).sum())], [int((~a & b & 1).sum()), int((~a & ~b & 1).sum())]]
    expected = [[row * column / n for column in columns] for row in rows]
    return sum((cells[i][j] - expected[i][j]) ** 2 / expected[i][j] for i in (0, 1) for j in (0, 1))


@pytest.mark.parametrize("method", ["dare_linear", "della"])
def test_masks_know_nothing_of_each_other(method, masks):
    one, other = masks(method, 0), masks(method, 1)
    pairs = {}
    for key in LARGE:
        for a, b in itertools.combinations(range(3), 2):
            pairs[key, "donors", a, b] = one[key][a], one[key][b]
        for donor in range(3):
            pairs[key, "seeds", donor] = one[key][donor], other[key][donor]
            pairs[key, "neighbours", donor] = one[key][donor][1:], one[key][donor][:-1]
    for (a, b), donor in itertools.product(itertools.combinations(LARGE, 2), range(3)):
        n = min(one[a][donor].numel(), one[b][donor].numel())
        pairs[a, b, donor] = one[a][donor][:n], one[b][donor][:n]
    for what, (a, b) in pairs.items():
        assert chi_square(a, b) < 25, what


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_kept_values_are_exact(method, dtype, folder, tmp_path):
    """Without rescale a kept value is the donor's; with it that times one factor, rounded once."""
    import torch
    from safetensors.torch import load_file

    work = getattr(torch, dtype)
    donor = load_file(folder / "values/model.safetensors")
    plain = export(folder, tmp_path / "plain", recipe(method, ["values"], [0.6], dtype))
    scaled = export(folder, tmp_path / "scaled", recipe(method, ["values"], [0.6], dtype, rescale=True))
    for key, value in plain.items():
        d = donor[key].to(work)
        mask = value != 0
        assert torch.equal(value[mask], d[mask]), key
        within(int(mask.sum()), d.numel(), 0.6, key) if d.numel() else None
        if not mask.any():
            continue
        wide = work if work == torch.bfloat16 else torch.float32  # float16 and float64 are rescaled in float32
        before, after = d.double().abs().sum().to(wide), d.double()[mask].abs().sum().to(wide)
        assert torch.equal(scaled[key], torch.where(mask, (d.to(wide) * (before / after)).to(work), 0)), key


@pytest.mark.parametrize("method", METHODS)
def test_float64_is_pruned_in_float32(method, folder, tmp_path):
    """As mergekit does; it ranks before that, and what density 1 keeps it does not touch."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(5)
    wide = {key: torch.randn(shape, generator=generator, dtype=torch.float64) for key, shape in SHAPES.items()}
    shutil.copytree(folder / "values", tmp_path / "wide")
    save_file(wide, tmp_path / "wide/model.safetensors", metadata={"format": "pt"})
    shutil.copytree(folder / "base", tmp_path / "base")
    kept, narrow, whole = (export(tmp_path, tmp_path / name, recipe(method, ["wide"], [density], dtype))
                           for name, density, dtype in
                           (("kept", 0.6, "float64"), ("narrow", 0.6, "float32"), ("whole", 1, "float64")))  # fmt: skip
    for key, d in wide.items():
        assert torch.equal(whole[key], d), key
        assert kept[key].dtype == torch.float64 and torch.equal(kept[key], narrow[key].double()), key


def test_density_one_and_none(folder, tmp_path):
    from torch import equal

    values = export(folder, tmp_path / "all", recipe("dare_linear", ["values"], [1.0]))
    for method in METHODS:
        kept = export(folder, tmp_path / f"{method}-1", recipe(method, ["values"], [1.0], rescale=True))
        assert all(equal(kept[key], values[key]) for key in SHAPES)
        dropped = export(folder, tmp_path / f"{method}-0", recipe(method, ["values"], [0.0]))
        assert not any(value.any() for value in dropped.values())


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_della_keeps_the_large(method, folder, tmp_path):
    """By rank in its row from density - epsilon to density + epsilon: the share of each tenth."""
    from safetensors.torch import load_file

    donor = load_file(folder / "values/model.safetensors")
    text = recipe(method, ["values"], [0.5], epsilon=0.4)
    kept = export(folder, tmp_path / "out", text)
    for key in LARGE:
        row = donor[key].shape[-1]
        d, mask = donor[key].view(-1, row).abs(), kept[key].view(-1, row) != 0
        if row == 1:
            within(int(mask.sum()), mask.numel(), 0.5, key)
            continue
        rank = d.argsort(dim=-1, stable=True).argsort(dim=-1, stable=True)
        for tenth in range(10):
            inside = (rank * 10 // row) == tenth
            p = float((0.1 + 0.8 * rank[inside] / (row - 1)).mean())
            within(int(mask[inside].sum()), int(inside.sum()), p, (key, tenth))


@pytest.mark.parametrize("method", METHODS)
def test_same_bytes_whoever_computes_them(method, folder, tmp_path):
    text = recipe(method, ["values", "flag1"], dtype="bfloat16", rescale=True)
    runs = {"one": ["threads=1"], "two": ["threads=2"], "five": ["threads=5", "cache=4M"], "zero": ["seed=0"]}
    for name, options in runs.items():
        export(folder, tmp_path / name, text, *options)
        meld.same_tensors(tmp_path / name, tmp_path / "one")


def test_another_seed_gives_other_bytes(folder, tmp_path):
    text = recipe("dare_linear", ["values"])
    zero, one = (export(folder, tmp_path / f"{seed}", text, f"seed={seed}") for seed in (0, 1))
    for key in LARGE:
        share = float((zero[key] != one[key]).float().mean())
        assert abs(share - 2 * 0.25 * 0.75) < 0.05, (key, share)


def read_in_pieces(path, seed: int) -> bytes:
    dice, size = random.Random(seed), path.stat().st_size
    cuts = sorted({0, size, *(dice.randrange(size) for _ in range(200))})
    pieces, found = list(zip(cuts, cuts[1:])), {}
    dice.shuffle(pieces)
    fd = os.open(path, os.O_RDONLY)
    try:
        for begin, end in pieces:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            found[begin] = os.pread(fd, end - begin, begin)
    finally:
        os.close(fd)
    return b"".join(found[begin] for begin in sorted(found))


@pytest.mark.parametrize("method", METHODS)
def test_same_bytes_in_any_order_over_mounts(method, folder, tmp_path):
    text = recipe(method, ["values", "flag1"], dtype="float16", rescale=True)
    export(folder, tmp_path / "out", text, "seed=7")
    expected = (tmp_path / "out/model.safetensors").read_bytes()
    assert len(expected) > struct.unpack("<Q", expected[:8])[0]
    for i, threads in enumerate((1, 4)):
        options = "seed=7", f"threads={threads}", "cache=4M"
        with meld.Mount(tmp_path / "out.yml", tmp_path / f"mnt{i}", *options, cwd=folder) as mount:
            assert read_in_pieces(mount / "model.safetensors", i) == expected, options


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_mergekit_with_the_same_words(method, dtype, models, tmp_path):
    """Nothing but the words is ours: given them, mergekit keeps the same elements and gives the same bytes. Where it
    rounds what DELLA compares them with, or its ranks, some elements are kept with another probability."""
    import oracle
    from safetensors.torch import load_file

    text = recipe(method, ["alpha", "beta"], [0.8, 0.6], dtype)
    with in_mergekit():
        oracle.merge(text, models / "llama", tmp_path / "theirs")
    theirs = {key: value for path in meld.weight_files(tmp_path / "theirs") for key, value in load_file(path).items()}
    ours = export(models / "llama", tmp_path / "ours", text)
    assert set(ours) == set(theirs)
    elements = sum(value.numel() for value in ours.values())
    differ = sum(int((value != theirs[key]).sum()) for key, value in ours.items())
    print(f"{method} {dtype}: {differ} of {elements} differ")
    assert differ <= (elements * 0.005 if method.startswith("della") else 0)
