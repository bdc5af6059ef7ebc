"""The software that people load models with gets the model that mergekit writes."""

import pathlib

import meld
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

CASES = pathlib.Path(__file__).parents[1] / "golden" / "cases"


@pytest.fixture(params=["task-gradient-and-filters", "passthrough-stack", "task-qwen"])
def pair(request, oracle, models, tmp_path):
    """A mount and the folder that mergekit writes."""
    case = CASES / f"{request.param}.yml"
    reference = oracle(case.read_text())
    with meld.Mount(case, tmp_path / "mnt", "cache=4M", cwd=models) as mount:
        yield mount.point, reference


@pytest.mark.quick
@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_safetensors(pair, backend):
    mounted, reference = pair
    names = []
    for path in meld.weight_files(mounted):
        with safe_open(path, "pt", backend=backend) as file:
            assert file.metadata() == {"format": "pt"}
            for name in file.keys():
                names.append((name, file.get_tensor(name)))
    expected = {}
    for path in meld.weight_files(reference):
        with safe_open(path, "pt") as file:
            expected |= {name: file.get_tensor(name) for name in file.keys()}
    assert sorted(name for name, _ in names) == sorted(expected)
    for name, tensor in names:
        assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("disable_mmap", [False, True])
def test_transformers(pair, disable_mmap):
    mounted, reference = pair
    ids = torch.arange(3, 24)[None]
    results = []
    for folder in (mounted, reference):
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, disable_mmap=disable_mmap and folder is mounted)  # fmt: skip
        if folder is mounted:
            assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
        with torch.no_grad():
            results.append(model(ids).logits)
    assert torch.equal(results[0], results[1])


def test_tokenizer(pair):
    mounted, _ = pair
    tokenizer = AutoTokenizer.from_pretrained(mounted)
    assert tokenizer.decode([5]), tokenizer
