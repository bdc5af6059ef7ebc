"""Mixtures of experts, encoder-decoders, multimodal models: every tensor under its own name, mergekit's where it has it."""

import hashlib
import os
import pathlib
import shutil

import meld
import pytest
import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
TASK = """\
merge_method: task_arithmetic
base_model: {0}/base
models:
- model: {0}/one
  parameters: {{weight: [0.2, 0.9]}}
- model: {0}/{1}
  parameters: {{weight: 0.4}}
dtype: bfloat16
"""
FAMILIES = ["mixtral", "qwen3moe", "t5", "qwen2vl", "llava"]


@pytest.fixture(scope="session")
def shapes() -> pathlib.Path:
    """Folder with the models of structures.py; not to be written to."""
    text = "".join((HERE.parent / name).read_text() for name in ("structures.py", "requirements.txt"))
    folder = meld.CACHE / f"structures-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not folder.exists():
        import structures

        part = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        structures.make_all(part)
        part.rename(folder)
    return folder


def state(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in meld.weight_files(folder) for name, tensor in load_file(path).items()}


def export(text: str, shapes: pathlib.Path, out: pathlib.Path) -> dict[str, torch.Tensor]:
    source = out.with_suffix(".yml")
    source.write_text(text)
    meld.good("export", source, out, cwd=shapes)
    return state(out)


def theirs(text: str, shapes: pathlib.Path, out: pathlib.Path) -> dict[str, torch.Tensor]:
    import oracle
    from transformers import Qwen2VLConfig

    # mergekit's table asks the whole config for what transformers 5 has in text_config, and would refuse the model
    Qwen2VLConfig.num_hidden_layers = property(lambda self: self.text_config.num_hidden_layers)
    oracle.merge(text, shapes, out)
    return state(out)


def same(ours: torch.Tensor, other: torch.Tensor) -> bool:
    return ours.dtype == other.dtype and ours.shape == other.shape and torch.equal(ours.view(torch.int16), other.view(torch.int16))


def spelt_as(names, folder: pathlib.Path) -> dict[str, str]:
    """The layout that mergekit writes by the names on disk: what transformers 5 calls each."""
    old, new = state(folder / "two"), state(folder / "new")
    return {name: next((other for other in new if other in new and same(new[other], old[name])), name)
            for name in names if name in old}  # fmt: skip


# mergekit's table has the projector's weights once for each text layer, and the last one, at t = 1, is what it writes
REPEATED = "visual.merger.mlp."


@pytest.mark.parametrize("family", FAMILIES)
def test_models(family, shapes, tmp_path):
    import structures

    text = TASK.format(family, "two")
    ours, base = export(text, shapes, tmp_path / "ours"), state(shapes / family / "base")
    assert sorted(ours) == sorted(base), "names are those on disk"
    if family == "llava":  # as it is on disk mergekit loses its whole language model
        text = text.replace("llava/", "llava/new-").replace("new-two", "new")
    reference = theirs(text, shapes, tmp_path / "theirs")
    packed = structures.pack(ours)
    new = spelt_as(packed, shapes / family)
    names = {name: name if name in reference else new.get(name, name) for name in packed}
    found = [name for name in packed if names[name] in reference and not name.startswith(REPEATED)]
    wrong = [name for name in found if not same(packed[name], reference[names[name]])]
    assert not wrong, wrong
    missing = [name for name in packed if names[name] not in reference]
    assert len(found) > 20 and all("extra" in name for name in missing), missing


@pytest.mark.parametrize("family", FAMILIES)
def test_layouts_meet(family, shapes, tmp_path):
    """A donor in the other layout gives the same bytes; as the base it gives them in its own layout."""
    old = export(TASK.format(family, "two"), shapes, tmp_path / "old")
    new = export(TASK.format(family, "new"), shapes, tmp_path / "new")
    assert sorted(old) == sorted(new)
    assert all(same(old[name], new[name]) for name in old if "extra" not in name)
    turned = export(
        f"merge_method: linear\nmodels:\n- {{model: {family}/new, parameters: {{weight: 0.7}}}}\n"
        f"- {{model: {family}/one, parameters: {{weight: 0.3}}}}\ndtype: bfloat16\n", shapes, tmp_path / "turned")  # fmt: skip
    straight = export(
        f"merge_method: linear\nmodels:\n- {{model: {family}/two, parameters: {{weight: 0.7}}}}\n"
        f"- {{model: {family}/one, parameters: {{weight: 0.3}}}}\ndtype: bfloat16\n", shapes, tmp_path / "straight")  # fmt: skip
    names = state(shapes / family / "new")
    assert sorted(name for name in turned if "extra" not in name) == sorted(names)
    if family in ("mixtral", "qwen3moe"):
        import structures

        packed = structures.pack(straight)
        assert all(same(turned[name], packed[name]) for name in names)
    else:
        assert sorted(t.float().sum().item() for n, t in turned.items() if "extra" not in n) == sorted(
            t.float().sum().item() for n, t in straight.items() if "extra" not in n)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_it(family, shapes, tmp_path):
    import transformers

    export(TASK.format(family, "new"), shapes, tmp_path / "out")
    kind = getattr(transformers, __import__("structures").settings(tmp_path / "out")["architectures"][0])
    _, info = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert all("extra" in key for key in info["unexpected_keys"]), info


MODULES = {
    "t5": """\
  encoder:
    slices:
    - sources: [{model: t5/base, layer_range: [0, 2]}, {model: t5/one, layer_range: [1, 3]}]
  decoder:
    models: [{model: t5/base}, {model: t5/two, parameters: {weight: [0.5, 2.0]}}]
  shared:
    models: [{model: t5/base}, {model: t5/one}]
""",
    "qwen2vl": """\
  text_decoder:
    models: [{model: qwen2vl/base}, {model: qwen2vl/two, parameters: {weight: [0.5, 2.0]}}]
  vision_tower:
    models: [{model: qwen2vl/base}, {model: qwen2vl/one}]
  multi_modal_projector:
    models: [{model: qwen2vl/base}, {model: qwen2vl/two}]
""",
}


@pytest.mark.parametrize("family", MODULES)
def test_modules(family, shapes, tmp_path):
    import structures

    text = f"merge_method: linear\nbase_model: {family}/base\nparameters: {{weight: 0.5}}\ndtype: bfloat16\nmodules:\n{MODULES[family]}"
    ours = export(text, shapes, tmp_path / "ours")
    reference = theirs(text, shapes, tmp_path / "theirs")
    wrong = [name for name in reference if name in ours and not same(ours[name], reference[name])]
    assert not wrong, wrong
    assert len(set(reference) & set(ours)) > 20
    assert all("extra" in name for name in set(ours) ^ set(reference)), set(ours) ^ set(reference)
    config = structures.settings(tmp_path / "ours")
    if family == "t5":
        assert (config["num_layers"], config["num_decoder_layers"]) == (2, 4)
    else:
        assert (config["text_config"]["num_hidden_layers"], config["vision_config"]["depth"]) == (4, 3)


def test_slices_of_both_stacks(shapes, tmp_path):
    import structures

    ours = export("""\
merge_method: passthrough
base_model: qwen2vl/base
modules:
  text_decoder:
    slices:
    - sources: [{model: qwen2vl/base, layer_range: [0, 3]}]
    - sources: [{model: qwen2vl/one, layer_range: [1, 4]}]
  vision_tower:
    slices:
    - sources: [{model: qwen2vl/one, layer_range: [1, 3]}]
""", shapes, tmp_path / "out")  # fmt: skip
    one, base = state(shapes / "qwen2vl/one"), state(shapes / "qwen2vl/base")
    assert same(ours["model.layers.5.mlp.up_proj.weight"], one["model.layers.3.mlp.up_proj.weight"])
    assert same(ours["model.layers.2.mlp.up_proj.weight"], base["model.layers.2.mlp.up_proj.weight"])
    assert same(ours["visual.blocks.0.mlp.fc1.weight"], one["visual.blocks.1.mlp.fc1.weight"])
    assert same(ours["visual.merger.mlp.0.weight"], base["visual.merger.mlp.0.weight"])
    config = structures.settings(tmp_path / "out")
    assert (config["text_config"]["num_hidden_layers"], config["vision_config"]["depth"]) == (6, 2)


def test_an_unknown_module_names_those_there_are(shapes, tmp_path):
    (tmp_path / "m.yml").write_text(
        "merge_method: passthrough\nmodules:\n  vision_towr:\n    models: [{model: qwen2vl/base}]\n")  # fmt: skip
    done = meld.run("check", tmp_path / "m.yml", cwd=shapes)
    assert done.returncode == 1 and "m.yml:3:3" in done.stderr, done
    for name in ("text_decoder", "vision_tower", "multi_modal_projector", "model.layers", "visual.blocks", "default"):
        assert f"`{name}`" in done.stderr, done.stderr


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2], ids=["e4m3", "e5m2"])
@pytest.mark.parametrize("suffix, grid", [("_scale_inv", (2, 3)), ("_scale", (1,)), ("_scale", (4, 1)), ("_scale", ())])
def test_fp8(kind, suffix, grid, tmp_path):
    torch.manual_seed(1)
    weight, scale = torch.randn(4, 6).to(kind), torch.rand(grid) + 0.1
    for name, more in {"fp8": {"w.weight": weight, "w.weight" + suffix: scale, "w.input_scale": torch.ones(1)},
                       "plain": {"w.weight": torch.randn(4, 6).to(torch.bfloat16)}}.items():  # fmt: skip
        (tmp_path / name).mkdir()
        save_file(more, tmp_path / name / "model.safetensors")
        block = ', "quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 2]}'
        (tmp_path / name / "config.json").write_text('{"torch_dtype": "bfloat16"%s}' % (block if name == "fp8" else ""))
    wide = scale
    if len(grid) == 2:
        wide = scale.repeat_interleave(4 // grid[0], 0).repeat_interleave(6 // grid[1], 1)
    want = (weight.float() * wide).to(torch.bfloat16)
    ours = export("merge_method: passthrough\nmodels: [{model: fp8}]\n", tmp_path, tmp_path / "out")
    assert list(ours) == ["w.weight"] and same(ours["w.weight"], want)
    assert "quantization_config" not in (tmp_path / "out/config.json").read_text()
    text = "merge_method: task_arithmetic\nbase_model: plain\nmodels: [{model: fp8, parameters: {weight: 1}}]\ndtype: float32\n"
    ours = export(text, tmp_path, tmp_path / "task")
    assert torch.allclose(ours["w.weight"], want.float(), atol=1e-6)


def test_deep_check(shapes, tmp_path):
    (tmp_path / "m.yml").write_text(TASK.format("mixtral", "two"))
    text = meld.good("check", "--deep", tmp_path / "m.yml", cwd=shapes)
    for words in ("mixtral/one", "task vector", "survives rounding to bfloat16", "least in", "good:"):
        assert words in text or words == "mixtral/one" and "one:" in text, text
    (tmp_path / "dead.yml").write_text(TASK.format("mixtral", "base"))
    done = meld.run("check", "--deep", tmp_path / "dead.yml", cwd=shapes)
    assert done.returncode == 0, done
    broken = tmp_path / "broken"
    shutil.copytree(shapes / "mixtral/two", broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, broken / "model.safetensors")
    (tmp_path / "nan.yml").write_text(TASK.format("mixtral", "two").replace("mixtral/two", str(broken)))
    done = meld.run("check", "--deep", tmp_path / "nan.yml", cwd=shapes)
    assert done.returncode == 1 and "`model.norm.weight` holds NaN" in done.stderr, done
    (tmp_path / "same.yml").write_text(TASK.format("mixtral", "two").replace("mixtral/two", str(tmp_path / "same")))
    shutil.copytree(shapes / "mixtral/base", tmp_path / "same")
    done = meld.run("check", "--deep", tmp_path / "same.yml", cwd=shapes)
    assert done.returncode == 0 and "it changes nothing" in done.stderr, done
    done = meld.run("check", "--deep", "--strict", tmp_path / "same.yml", cwd=shapes)
    assert done.returncode == 1, done


METHODS = {
    "linear": "parameters: {weight: 0.5}",
    "task_arithmetic": "parameters: {weight: 0.5}",
    "ties": "parameters: {weight: 0.5, density: 0.6}",
    "dare_ties": "parameters: {weight: 0.5, density: 0.6}",
    "breadcrumbs": "parameters: {weight: 0.5, density: 0.6, gamma: 0.1}",
    "della": "parameters: {weight: 0.5, density: 0.6}",
    "sce": "parameters: {select_topk: 0.5}",
    "karcher": "",
    "model_stock": "parameters: {filter_wise: true}",
    "multislerp": "parameters: {weight: 0.5}",
    "nuslerp": "parameters: {weight: 0.5, nuslerp_flatten: false}",
}


def put_rows(folder: pathlib.Path, rows: dict[str, int]) -> None:
    for i, (name, n) in enumerate(rows.items()):
        (folder / name).mkdir()
        wide = torch.randn(16, 6, generator=torch.Generator().manual_seed(len(name.split("-")[0]))).to(torch.bfloat16)
        tensors = {"model.embed_tokens.weight": wide[:n].clone(), "model.norm.weight": wide[0].clone()}
        save_file(tensors, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text('{"vocab_size": %d}' % n)


@pytest.mark.parametrize("method", METHODS)
def test_mismatch(method, tmp_path):
    """Cut, it is the merge of tensors that were cut before; kept, the base's; and else it is an error that says so."""
    put_rows(tmp_path, {"base": 10, "other": 13, "third1": 11, "other-cut": 10, "third1-cut": 10})
    text = (f"merge_method: {method}\nbase_model: base\nmodels: [{{model: other}}, {{model: third1}}]\ndtype: bfloat16\n"
            + METHODS[method] + "\n")  # fmt: skip
    (tmp_path / "m.yml").write_text(text)
    done = meld.run("check", tmp_path / "m.yml")
    assert done.returncode == 1 and "shapes of `model.embed_tokens.weight` differ" in done.stderr, done
    ours = export(text + "meldfs: {mismatch: truncate}\n", tmp_path, tmp_path / "cut")
    want = export(text.replace("other", "other-cut").replace("third1", "third1-cut"), tmp_path, tmp_path / "before")
    assert ours["model.embed_tokens.weight"].shape == (10, 6)
    assert all(same(ours[name], want[name]) for name in want)
    kept = export(text + "meldfs: {mismatch: base}\n", tmp_path, tmp_path / "kept")
    assert same(kept["model.embed_tokens.weight"], state(tmp_path / "base")["model.embed_tokens.weight"])
    assert same(kept["model.norm.weight"], want["model.norm.weight"])
