"""Where meldfs means not to do what mergekit 0.1.5 does: its failure, and the answer here.

Others are where their subject is: layer lists and tied heads in test_golden.py, packed experts, FP8 and mismatching
shapes in test_structures.py, masks of della in test_random.py.
"""

import json
import math
import shutil

import meld
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_structures import shapes  # noqa: F401, a fixture

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32


def state(folder) -> dict[str, torch.Tensor]:
    return {name: tensor for path in meld.weight_files(folder) for name, tensor in load_file(path).items()}


def write(folder, tensors: dict, **config) -> None:
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1} | config
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def ours(text: str, cwd, out) -> dict[str, torch.Tensor]:
    out.with_suffix(".yml").write_text(text)
    meld.good("export", out.with_suffix(".yml"), out, cwd=cwd)
    return state(out)


def theirs(text: str, cwd, out) -> dict[str, torch.Tensor]:
    import oracle

    oracle.merge(text, cwd, out)
    return state(out)


def their_tensor(method: str, inputs: list, base: int | None, **parameters) -> torch.Tensor:
    import oracle  # noqa: F401, one thread
    from mergekit.merge_methods import merge_tensors

    return merge_tensors(inputs, method, parameters=parameters, base_index=base)


def our_tensor(method: str, inputs: list, base: int | None, tmp_path, **parameters) -> torch.Tensor:
    """The same by merge file; a list is a value a donor."""
    models = []
    for i, tensor in enumerate(inputs):
        write(tmp_path / f"m{i}", {"x": tensor})
        if i != base:
            own = {key: value[len(models)] for key, value in parameters.items() if isinstance(value, list)}
            models.append({"model": f"m{i}", "parameters": own})
    shared = {key: value for key, value in parameters.items() if not isinstance(value, list)}
    recipe = {"merge_method": method, "models": models, "parameters": shared, "dtype": str(inputs[0].dtype)[6:]}
    recipe |= {} if base is None else {"base_model": f"m{base}"}
    return ours(json.dumps(recipe), tmp_path, tmp_path / "out")["x"]


def randn(*shape, seed: int = 0, dtype=F32, scale: float = 1.0) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


# ---- arithmetic


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "breadcrumbs_ties"])
def test_rescale_in_float16(method, tmp_path):
    """A sum of magnitudes passes 65504."""
    base, donor = torch.zeros(200, 500, dtype=F16), randn(200, 500, dtype=F16, scale=3)
    values = {"weight": [0.5], "density": [0.6], "rescale": True}
    assert their_tensor(method, [base, donor], 0, **values).isnan().any()
    found = our_tensor(method, [base, donor], 0, tmp_path, **values)
    kept = found != 0
    assert abs(int(kept.sum()) - 60000) <= 1
    scale = donor.float().abs().sum() / donor[kept].float().abs().sum()
    weight = 1.0 if method == "ties" else 0.5  # ties divides by it
    assert torch.allclose(found[kept].float(), donor[kept].float() * scale * weight, rtol=2e-3)


def test_multislerp_of_an_untouched_tensor_in_float16(tmp_path):
    """eps rounds to 0, and 0 / 0 is NaN."""
    base = randn(12, 10, dtype=F16)
    inputs, weight = [base, base.clone(), randn(12, 10, seed=1, dtype=F16)], [0.5, 0.5]
    assert their_tensor("multislerp", inputs, 0, weight=weight).isnan().all()
    found = our_tensor("multislerp", inputs, 0, tmp_path, weight=weight)
    assert found.isfinite().all() and not torch.equal(found, base)


@pytest.mark.parametrize("dtype", [F16, BF16, F32])
def test_multislerp_where_nobody_moved(dtype, tmp_path):
    base = randn(12, 10, dtype=dtype)
    inputs, weight = [base] + [base.clone() for _ in range(3)], [0.5, 0.2, 0.4]
    if dtype == F16:
        assert their_tensor("multislerp", inputs, 0, weight=weight).isnan().all()
    else:
        with pytest.raises(ValueError, match="is zero"):
            their_tensor("multislerp", inputs, 0, weight=weight)
    assert torch.equal(our_tensor("multislerp", inputs, 0, tmp_path, weight=weight), base)


def test_nearswap_in_float16(tmp_path):
    """1 / d overflows: t = 0 is NaN, and a small t takes the donor."""
    base, donor = torch.tensor([[1e-5, 0.5, 0.0]], dtype=F16), torch.tensor([[0.0, 0.25, 2e-6]], dtype=F16)
    assert their_tensor("nearswap", [base, donor], 0, t=0.0).isnan().tolist() == [[True, False, True]]
    assert torch.equal(our_tensor("nearswap", [base, donor], 0, tmp_path, t=0.0), base)


def test_nearswap_in_float16_with_a_small_t(tmp_path):
    base, donor = torch.full([1, 8], 1e-5, dtype=F16), torch.zeros(1, 8, dtype=F16)
    assert not their_tensor("nearswap", [base, donor], 0, t=2e-6).any()
    assert (our_tensor("nearswap", [base, donor], 0, tmp_path, t=2e-6).float() / base.float() - 0.8).abs().max() < 0.02


@pytest.mark.parametrize("method", ["della", "della_linear"])
@pytest.mark.parametrize("shape", [[4000, 1], [1]])
def test_della_of_rows_of_one(method, shape, tmp_path):
    base, donor, values = torch.zeros(shape), torch.ones(shape), {"weight": [1.0], "density": [0.5], "rescale": False}
    with pytest.raises(RuntimeError, match="p_in"):
        their_tensor(method, [base, donor], 0, **values)
    found = our_tensor(method, [base, donor], 0, tmp_path, **values)
    assert set(found.view(-1).tolist()) <= {0.0, 1.0}
    assert shape == [1] or abs(float(found.mean()) - 0.5) < 5 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize("shape", [[8, 0], []])
def test_della_where_there_is_no_rank(shape, tmp_path):
    base, donor, values = torch.zeros(shape), torch.ones(shape), {"weight": [1.0], "density": [0.5]}
    with pytest.raises(IndexError):
        their_tensor("della", [base, donor], 0, **values)
    assert torch.equal(our_tensor("della", [base, donor], 0, tmp_path, **values), donor)


def test_della_ranks_a_cube_along_its_last_dimension(tmp_path):
    """mergekit ranks along dimension 1: where that is of one, every element counts as the smallest and fails."""
    base, donor = torch.zeros(40, 1, 101), torch.arange(1.0, 102).repeat(40, 1, 1)
    values = {"weight": [1.0], "density": [0.5], "epsilon": [0.45], "rescale": False}
    with pytest.raises(RuntimeError, match="p_in"):
        their_tensor("della", [base, donor], 0, **values)
    kept = (our_tensor("della", [base, donor], 0, tmp_path, **values) != 0).float()
    assert kept[..., :20].mean() < 0.25 and kept[..., -20:].mean() > 0.75


# ---- which tensors there are


def test_model_stock_passes_the_base_where_donors_are_too_few(models, tmp_path):
    """A head that the base and one donor have: mergekit leaves it out."""
    text = """\
merge_method: model_stock
base_model: llama/base
models: [{model: llama/alpha}, {model: llama/tied}]
dtype: bfloat16
"""
    for name in ("base", "alpha", "tied"):
        shutil.copytree(models / "llama" / name, tmp_path / "llama" / name)
    for name in ("base", "alpha", "tied"):  # one odd tensor, of base and alpha alone
        folder = tmp_path / "llama" / name
        tensors = state(folder)
        for path in meld.weight_files(folder):
            path.unlink()
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        if name != "tied":
            tensors["model.layers.1.self_attn.q_proj.bias"] = randn(42, dtype=BF16)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = ours(text, tmp_path, tmp_path / "out")
    assert "model.layers.1.self_attn.q_proj.bias" not in theirs(text, tmp_path, tmp_path / "theirs")
    assert torch.equal(found["model.layers.1.self_attn.q_proj.bias"], randn(42, dtype=BF16))


def test_unlisted_tensors_are_merged(models, tmp_path):
    """No table of architectures decides what exists."""
    for name in ("base", "beta"):
        shutil.copytree(models / "llama" / name, tmp_path / name)
        tensors = state(tmp_path / name) | {"model.extra.weight": randn(4, 3, seed=len(name), dtype=BF16)}
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    text = "{merge_method: linear, models: [{model: base}, {model: beta}], parameters: {weight: 1}, dtype: bfloat16}"
    assert "model.extra.weight" not in theirs(text, tmp_path, tmp_path / "theirs")
    mean = (randn(4, 3, seed=4, dtype=BF16).float() * 2 / 2).to(BF16)
    assert torch.equal(ours(text, tmp_path, tmp_path / "out")["model.extra.weight"], mean)


def test_integers_are_copied_never_cast(models, tmp_path):
    """mergekit loads them in the type merged in."""
    table = torch.tensor([16_777_217, 257] * 21, dtype=torch.int32)
    for name in ("base", "beta"):
        shutil.copytree(models / "llama" / name, tmp_path / name)
        tensors = state(tmp_path / name) | {"model.norm.weight": table}
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    text = "{merge_method: linear, models: [{model: base}, {model: beta}], parameters: {weight: 1}, dtype: bfloat16}"
    assert theirs(text, tmp_path, tmp_path / "theirs")["model.norm.weight"][1] == 256
    assert torch.equal(ours(text, tmp_path, tmp_path / "out")["model.norm.weight"], table)
    tensors["model.norm.weight"] = table + 1
    save_file(tensors, tmp_path / "beta/model.safetensors", metadata={"format": "pt"})
    done = meld.run("export", tmp_path / "out.yml", tmp_path / "again", cwd=tmp_path)
    assert done.returncode == 1 and "model.norm.weight" in done.stderr, done


AFTER = """\
merge_method: linear
slices:
  - sources: [{model: llama/alpha, layer_range: [0, 2], parameters: {weight: 1}}]
  - sources:
      - {model: llama/alpha, layer_range: [2, 5], parameters: {weight: 0.25}}
      - {model: llama/beta, layer_range: [2, 5], parameters: {weight: 0.75}}
dtype: float32
"""


def test_tensors_after_the_layers_come_from_all_sources(models, tmp_path):
    """mergekit counts the sources of the first slice."""
    alpha, beta = (state(models / "llama" / name) for name in ("alpha", "beta"))
    there = theirs(AFTER, models, tmp_path / "theirs")["model.norm.weight"]
    found = ours(AFTER, models, tmp_path / "out")["model.norm.weight"]
    assert torch.equal(there, alpha["model.norm.weight"].float())
    mean = 0.25 * alpha["model.norm.weight"].float() + 0.75 * beta["model.norm.weight"].float()
    assert torch.allclose(found, mean) and not torch.equal(found, there)


# ---- merge files


@pytest.mark.parametrize("layers", ["[3, 1]", "[0, 6]", "[4, 9]"])
def test_layers_that_are_not_there(layers, models, tmp_path):
    """mergekit's error names no place, or there is none at all."""
    text = f"merge_method: passthrough\nslices:\n- sources:\n  - model: llama/alpha\n    layer_range: {layers}\n"
    try:
        found = theirs(text, models, tmp_path / "theirs")
        assert len(found) < 9 * 5
    except Exception as error:
        assert "layer_range" not in str(error)
    (tmp_path / "m.yml").write_text(text)
    done = meld.run("check", tmp_path / "m.yml", cwd=models)
    assert done.returncode == 1 and "m.yml:5:" in done.stderr, done


@pytest.mark.parametrize("name", ["alpha+beta", "alpha@main"])
def test_an_existing_path_wins(name, models, tmp_path):
    """mergekit looks for an adapter, or a revision, of another model."""
    shutil.copytree(models / "llama/alpha", tmp_path / name)
    text = f"{{merge_method: passthrough, models: [{{model: {name}}}]}}"
    with pytest.raises(Exception):
        theirs(text, tmp_path, tmp_path / "theirs")
    ours(text, tmp_path, tmp_path / "out")
    meld.same_tensors(tmp_path / "out", models / "llama/alpha")


def test_stage_names_stand_for_models_alone(models, tmp_path):
    """mergekit replaces the word wherever it is a value: here of a filter."""
    text = """\
name: mlp
merge_method: linear
models: [{model: llama/alpha}, {model: llama/beta}]
parameters: {weight: 1}
dtype: bfloat16
---
merge_method: linear
models:
  - {model: mlp, parameters: {weight: {filter: mlp, value: 0}}}
  - {model: llama/epsilon, parameters: {weight: 1}}
parameters: {weight: 1}
dtype: bfloat16
"""
    key = "model.layers.1.mlp.up_proj.weight"
    epsilon = state(models / "llama/epsilon")[key]
    assert not torch.equal(theirs(text, models, tmp_path / "theirs")[key], epsilon)
    assert torch.equal(ours(text, models, tmp_path / "out")[key], epsilon)


def test_config_tells_the_type_written(models, tmp_path):
    text = """\
merge_method: ramplus_tl
base_model: llama/base
models: [{model: llama/alpha}, {model: llama/beta}]
dtype: bfloat16
"""

    def told(folder) -> str:
        config = json.loads((folder / "config.json").read_text())
        return config.get("dtype") or config["torch_dtype"]

    there, found = theirs(text, models, tmp_path / "theirs"), ours(text, models, tmp_path / "out")
    assert {tensor.dtype for tensor in there.values()} == {tensor.dtype for tensor in found.values()} == {F32}
    assert (told(tmp_path / "theirs"), told(tmp_path / "out")) == ("bfloat16", "float32")


def test_config_comes_from_the_first_model(models, tmp_path):
    """Without a base mergekit takes one of a set, that is any."""
    text = "{merge_method: linear, models: [%s], parameters: {weight: 1}, dtype: bfloat16}"
    for order in (["alpha", "beta", "epsilon"], ["epsilon", "alpha", "beta"]):
        out = tmp_path / order[0]
        ours(text % ", ".join(f"{{model: llama/{name}}}" for name in order), models, out)
        positions = [json.loads((folder / "config.json").read_text())["max_position_embeddings"]
                     for folder in (out, models / "llama" / order[0])]  # fmt: skip
        assert positions[0] == positions[1], order


def test_a_key_given_twice_is_an_error(tmp_path, models):
    text = "merge_method: passthrough\nmodels: [{model: llama/alpha}]\nmodels: [{model: llama/beta}]\n"
    theirs(text, models, tmp_path / "theirs")
    meld.same_tensors(tmp_path / "theirs", models / "llama/beta")
    (tmp_path / "m.yml").write_text(text)
    done = meld.run("check", tmp_path / "m.yml", cwd=models)
    assert done.returncode == 1 and "m.yml:3:1" in done.stderr and "models" in done.stderr, done



def test_modules_that_are_not_named_are_the_bases(shapes, tmp_path):
    """mergekit drops them."""
    text = """\
merge_method: linear
base_model: qwen2vl/base
modules:
  text_decoder:
    models: [{model: qwen2vl/one}, {model: qwen2vl/two}]
parameters: {weight: 0.5}
"""
    base, found = state(shapes / "qwen2vl/base"), ours(text, shapes, tmp_path / "out")
    vision = [name for name in base if name.startswith("visual.")]
    assert vision and all(torch.equal(found[name], base[name]) for name in vision)
    from transformers import Qwen2VLConfig

    Qwen2VLConfig.num_hidden_layers = property(lambda self: self.text_config.num_hidden_layers)  # or it refuses
    assert not any("visual" in name for name in theirs(text, shapes, tmp_path / "theirs"))
