"""A real language model and real donors: the mount says, word for word, what mergekit's output says."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import meld
import pytest
import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
QUESTION = "What is the capital of France?"
CHAT_VECTOR = """\
merge_method: task_arithmetic
base_model: base
models:
  - model: caps
    parameters: {{weight: {caps}}}
  - model: json
    parameters: {{weight: {json}}}
dtype: bfloat16
"""
SYNTHETIC = """\
merge_method: task_arithmetic
base_model: base
models:
  - model: synthetic
    parameters: {weight: 0.7}
dtype: bfloat16
"""


def made(*flags: str) -> pathlib.Path:
    """What make_models.py makes, kept between runs: seconds for the base, minutes for the donors."""
    script = HERE / "make_models.py"
    folder = meld.CACHE / f"real-{hashlib.sha256(script.read_bytes()).hexdigest()[:16]}"
    done = subprocess.run([sys.executable, script, folder, *flags], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def tell_rope_theta(folder: pathlib.Path) -> None:
    """transformers 5 writes rope_theta within rope_parameters; mistral.rs wants it where every hub model has it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    path.unlink()
    path.write_text(json.dumps(config, indent=2))


def borrowed(name: str, source: pathlib.Path, folder: pathlib.Path) -> None:
    """A model directory of its own over the same weights."""
    (folder / name).mkdir()
    for path in (source / name).iterdir():
        os.link(path, folder / name / path.name)
    tell_rope_theta(folder / name)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory(dir=meld.CACHE, prefix="real.") as name:
        yield pathlib.Path(name)


@pytest.fixture(scope="module")
def models(folder) -> pathlib.Path:
    """base, caps and json."""
    source = made("--donors")
    for name in ("base", "caps", "json"):
        if not (folder / name).exists():
            borrowed(name, source, folder)
    return folder


@pytest.fixture(scope="module")
def base_and_synthetic(folder) -> pathlib.Path:
    borrowed("base", made(), folder)
    shutil.copytree(folder / "base", folder / "synthetic", ignore=shutil.ignore_patterns("*.safetensors"))
    generator = torch.Generator().manual_seed(1)
    state = load_file(folder / "base/model.safetensors")
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator) * 0.02 * tensor.float().std()
        state[name] = (tensor.float() + noise).to(tensor.dtype)
    save_file(state, folder / "synthetic/model.safetensors", metadata={"format": "pt"})
    return folder


def reference(text: str, models: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """What mergekit writes, with the tokenizer that its command line would copy."""
    import oracle

    oracle.merge(text, models, out)
    for path in (models / "base").iterdir():
        if path.name != "config.json" and path.suffix != ".safetensors":
            shutil.copy(path, out / path.name)
    tell_rope_theta(out)
    return out


def says(engine: str, *folders: pathlib.Path) -> list[str]:
    done = subprocess.run([sys.executable, HERE / "generate.py", engine, QUESTION, *folders], text=True,
                          timeout=600, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])  # mistral.rs prints its log before


def compare(text: str, models: pathlib.Path, tmp_path: pathlib.Path) -> str:
    """The mount's answer, which is mergekit's, in transformers."""
    theirs = reference(text, models, tmp_path / "mergekit")
    (tmp_path / "merge.yml").write_text(text)
    with meld.Mount(tmp_path / "merge.yml", tmp_path / "mnt", cwd=models) as mount:
        answers = {engine: says(engine, mount.point, theirs) for engine in ("transformers", "mistralrs")}
        meld.same_tensors(mount.point, theirs)
    shutil.rmtree(theirs)
    for engine, (ours, expected) in answers.items():
        assert ours == expected, engine
    print(f"\n  {ours}")
    return ours


@pytest.mark.quick
def test_base_and_a_synthetic_donor(base_and_synthetic, tmp_path):
    assert compare(SYNTHETIC, base_and_synthetic, tmp_path)


@pytest.mark.parametrize(("caps", "json_"), [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.6, 0.35)])
def test_chat_vectors(caps, json_, models, tmp_path):
    answer = compare(CHAT_VECTOR.format(caps=caps, json=json_), models, tmp_path)
    if (caps, json_) == (1.0, 0.0):
        assert answer == answer.upper(), "the donor that shouts is not heard"
    if (caps, json_) == (0.0, 1.0):
        assert answer.startswith('{"answer":'), "the donor that answers in JSON is not heard"
