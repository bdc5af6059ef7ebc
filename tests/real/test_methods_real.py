"""Each method on a real language model and two fine-tuned donors: mounted, loaded by transformers, and held against
mergekit's output, of which perplexity, answer and digests are kept between runs."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import draws
import meld
import pytest
from test_real import borrowed, made, reference

HERE = pathlib.Path(__file__).parent
BOTH = "models: [{model: caps, parameters: {%s}}, {model: json, parameters: {%s}}]"
TASK = "base_model: base\n" + BOTH
FIRST = "base_model: base\nmodels: [{model: caps}]"
SECOND = "base_model: base\nmodels: [{model: caps}, {model: json}]"
RECIPES = {
    "linear": BOTH % ("weight: 0.6", "weight: 0.4"),
    "passthrough": "models: [{model: caps, parameters: {scale: {filter: o_proj, value: 0.9}}}]",
    "task_arithmetic": TASK % ("weight: 0.8", "weight: 0.3"),
    "ties": TASK % ("weight: 1.0, density: [0.3, 0.8]", "weight: 0.5, density: 0.5"),
    "dare_linear": TASK % ("weight: 0.6, density: 0.9", "weight: 0.3, density: 0.9"),
    "dare_ties": TASK % ("weight: 0.6, density: 0.9", "weight: 0.3, density: 0.9"),
    "breadcrumbs": TASK % ("weight: 0.8, density: 0.9", "weight: 0.3, density: 0.6, gamma: 0.05"),
    "breadcrumbs_ties": TASK % ("weight: 0.8, density: 0.9", "weight: 0.3, density: 0.6, gamma: 0.05"),
    "della": TASK % ("weight: 0.6, density: 0.8", "weight: 0.3, density: 0.8"),
    "della_linear": TASK % ("weight: 0.6, density: 0.8", "weight: 0.3, density: 0.8"),
    "sce": SECOND + "\nparameters: {select_topk: 0.5}",
    "ram": SECOND,
    "ramplus_tl": SECOND + "\nout_dtype: bfloat16",
    "slerp": FIRST + "\nparameters: {t: [{filter: self_attn, value: [0, 0.5, 1]}, {value: 0.6}]}",
    "nuslerp": TASK % ("weight: 0.6", "weight: 0.4"),
    "multislerp": TASK % ("weight: 0.6", "weight: 0.4"),
    "karcher": "models: [{model: base}, {model: caps}, {model: json}]",
    "model_stock": SECOND,
    "nearswap": FIRST + "\nparameters: {t: 0.0005}",
    "arcee_fusion": FIRST + "\nout_dtype: bfloat16",
}
EXACT = {"linear", "passthrough", "task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties", "ram", "ramplus_tl",
         "nearswap", "dare_linear", "dare_ties"}  # fmt: skip
DRAWN = {"dare_linear", "dare_ties", "della", "della_linear"}  # with our words, so that what is left to differ is arithmetic
NEAR = 1e-3
SHARE = 0.05  # of the tensors of a method that reduces, so many may hold another byte
# Rounded in every step there; quartiles of a random sample there; ranks rounded to bfloat16 there.
ELSEWHERE = {"karcher", "arcee_fusion", "della", "della_linear"}



def text_of(method: str) -> str:
    return f"merge_method: {method}\n{RECIPES[method]}\ndtype: bfloat16\n"


class Measure:
    """measure.py, that imports once."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, HERE / "measure.py"], text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip

    def of(self, folder) -> dict:
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"transformers does not load {folder}"
        return json.loads(line)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(meld.PATIENCE)


@pytest.fixture(scope="module")
def measure():
    measure = Measure()
    yield measure
    measure.end()


@pytest.fixture(scope="module")
def models():
    source = made("--donors")
    with tempfile.TemporaryDirectory(dir=meld.CACHE, prefix="real.") as name:
        for model in ("base", "caps", "json"):
            borrowed(model, source, pathlib.Path(name))
        yield pathlib.Path(name)


def digests(folder) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest()[:16] for name, (_, _, data) in meld.tensors(folder).items()}


def expected(method: str, models: pathlib.Path, measure: Measure, tmp_path: pathlib.Path) -> dict:
    """mergekit's digests, perplexity and answer; made once."""
    text = text_of(method)
    made_from = ["make_models.py", "measure.py", "../golden/oracle.py", "../requirements.txt"]
    made_from += ["../golden/draws.py"] if method in DRAWN else []
    words = [(HERE / name).read_text() for name in made_from]
    key = hashlib.sha256("\0".join([text, *words]).encode()).hexdigest()[:24]
    found = meld.CACHE / "real-methods" / f"{key}.json"
    if not found.exists():
        start = time.monotonic()
        with draws.in_mergekit():
            out = reference(text, models, tmp_path / "mergekit")
        result = {"seconds": time.monotonic() - start, "digests": digests(out)} | measure.of(out)
        shutil.rmtree(out)
        found.parent.mkdir(parents=True, exist_ok=True)
        part = found.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(result))
        part.rename(found)
    return json.loads(found.read_text())


@pytest.mark.parametrize("method", RECIPES)
def test_method(method, models, measure, tmp_path):
    theirs = expected(method, models, measure, tmp_path)
    (tmp_path / "merge.yml").write_text(text_of(method))
    with meld.Mount(tmp_path / "merge.yml", tmp_path / "mnt", cwd=models) as mount:
        start = time.monotonic()
        found = digests(mount.point)
        seconds = time.monotonic() - start
        ours = measure.of(mount.point)
    assert set(found) == set(theirs["digests"])
    differ = sum(found[name] != theirs["digests"][name] for name in found)
    print(f"\n  {method}: {differ} of {len(found)} tensors differ; perplexity {ours['perplexity']:.5f}, mergekit "
          f"{theirs['perplexity']:.5f}; read in {seconds:.1f} s, mergekit {theirs['seconds']:.1f} s; {ours['says']!r}")
    assert abs(ours["perplexity"] / theirs["perplexity"] - 1) < NEAR
    if method not in ELSEWHERE:
        assert differ <= (0 if method in EXACT else SHARE * len(found))
    if differ == 0:
        assert ours == {key: theirs[key] for key in ours}
