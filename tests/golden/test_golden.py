"""Against mergekit itself: every tensor the same bytes, config.json equal in meaning."""

import collections
import json
import pathlib

import meld
import pytest

CASES = {path.stem: path for path in sorted((pathlib.Path(__file__).parent / "cases").glob("*.yml"))}
HAS_NAN = {"linear-weights-cancel", "task-nan"}  # where a NaN arises its sign and payload are the CPU's
MOUNTED = ["linear-absent-three-types", "passthrough-repeat-scaled", "task-qwen", "nearswap-f16", "stages-three",
           "stages-f64", "large-task", "large-ties", "large-slerp", "ties-f16", "slerp-f32-to-bf16",
           "model_stock-5-filter_wise", "stages-slerp-of-ties"]  # fmt: skip
QUICK = ["linear-f32-to-bf16", "passthrough-stack", "task-gradient-and-filters", "task-qwen", "nearswap-bf16",
         "ties-bf16", "slerp-bf16", "yaml-spellings", "stages-two"]  # fmt: skip
# Sums over whole tensors are taken in float64: so many elements may be rounded the other way.
REDUCED = {"slerp", "nuslerp", "multislerp", "karcher", "model_stock", "sce", "arcee_fusion"}
SHARE = 5e-3
# mergekit cannot save these: the list has an entry a layer of the donor of config, not a layer of the result
LAYER_TYPES = {"passthrough-qwen-stack": ["full_attention"] * 6}
ELEMENT = {"BF16": ("bfloat16", 2), "F16": ("float16", 2), "F32": ("float32", 4), "F64": ("float64", 8)}


def cases(names) -> list:
    return [pytest.param(name, marks=[pytest.mark.quick] if name in QUICK else []) for name in names]


def settings(folder: pathlib.Path) -> dict:
    """config.json without what has no meaning: who wrote it, and the old and the new spelling of dtype."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("transformers_version", None)
    config["dtype"] = (config.pop("torch_dtype", None) or config.pop("dtype", "")).removeprefix("torch.")
    return config


def expected_settings(name: str, folder: pathlib.Path) -> dict:
    """mergekit's config.json with its known mistakes mended from the tensors that it wrote."""
    tensors = meld.tensors(folder)
    written = collections.Counter()
    for dtype, _, data in tensors.values():
        written[ELEMENT[dtype][0]] += len(data)
    config = settings(folder)
    config["dtype"] = written.most_common(1)[0][0]
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    if name in LAYER_TYPES:
        config["layer_types"] = LAYER_TYPES[name]
    return config


def same_model(name: str, ours: pathlib.Path, theirs: pathlib.Path) -> None:
    reduced = name.split("-")[0] in REDUCED or name in {"ties-rescaled", "large-slerp", "stages-slerp-of-ties"}
    meld.same_tensors(ours, theirs, nan_bits=name not in HAS_NAN, share=SHARE if reduced else 0)
    assert settings(ours) == expected_settings(name, theirs)


@pytest.mark.parametrize("name", cases(CASES))
def test_export(name, oracle, models, tmp_path):
    meld.good("export", CASES[name], tmp_path / "out", cwd=models)
    same_model(name, tmp_path / "out", oracle(CASES[name].read_text()))


@pytest.mark.parametrize("name", cases(MOUNTED))
def test_mount(name, oracle, models, tmp_path):
    with meld.Mount(CASES[name], tmp_path / "mnt", cwd=models) as mount:
        same_model(name, mount.point, oracle(CASES[name].read_text()))


def test_export_and_mount_agree_on_every_file(models, tmp_path):
    case = CASES["task-tied-base-untied-donor"]
    meld.good("export", case, tmp_path / "out", cwd=models)
    with meld.Mount(case, tmp_path / "mnt", cwd=models) as mount:
        meld.same_files(mount.point, tmp_path / "out")


@pytest.mark.parametrize("name", cases(CASES))
def test_check_finds_nothing_wrong(name, models):
    meld.good("check", CASES[name], cwd=models)


def test_side_files_are_the_donors(models, tmp_path):
    meld.good("export", CASES["task-two-donors"], tmp_path / "out", cwd=models)
    for file in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (models / "llama/base" / file).read_bytes(), file


def test_card_and_recipe(models, tmp_path):
    case = CASES["task-two-donors"]
    meld.good("export", case, tmp_path / "out", cwd=models)
    assert (tmp_path / "out/mergekit_config.yml").read_bytes() == case.read_bytes()
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("---\n") and "base_model_relation: merge" in card
    assert str(models) not in card and "llama/" not in card.split("```")[0], "a local path in the model card"


def test_explain_shows_what_a_gradient_comes_to(models):
    case = CASES["task-gradient-and-filters"]
    text = meld.good("explain", case, "model.layers.1.self_attn.q_proj.weight", cwd=models)
    for word in ("task_arithmetic", "alpha", "beta", "0.5", "0.25", "0.875"):  # alpha, beta, lambda a quarter in
        assert word in text, f"{word} is missing in\n{text}"
    everything = meld.good("explain", case, cwd=models)
    assert "lm_head.weight" in everything and "model.layers.4.mlp.up_proj.weight" in everything


def test_explain_of_an_unknown_tensor_names_its_neighbours(models):
    done = meld.run("explain", CASES["task-two-donors"], "model.layers.1.self_attn.q_proj.weigth", cwd=models)
    assert done.returncode == 1 and "model.layers.1.self_attn.q_proj.weight" in done.stderr, done
