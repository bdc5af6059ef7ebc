"""`meldfs report`: its figures are numpy's, and its page works in a browser and alone."""

import json
import os
import pathlib
import re
import signal
import subprocess

import browser
import figures
import meld
import pytest
import torch
from safetensors.torch import load_file, save_file

TIES = """\
merge_method: ties
base_model: {models}/base
models:
  - {{model: {models}/one, parameters: {{weight: [0.2, 0.9], density: [0.3, 0.8]}}}}
  - {{model: {models}/two, parameters: {{weight: [{{filter: self_attn, value: 0.8}}, {{value: 0.4}}], density: 0.5}}}}
dtype: float32
out_dtype: bfloat16
"""
TASK = """\
merge_method: task_arithmetic
base_model: {models}/base
models:
  - {{model: {models}/alpha, parameters: {{weight: 0.5}}}}
  - {{model: {models}/gamma, parameters: {{weight: -0.3}}}}
  - {{model: {models}/delta, parameters: {{weight: 0.1}}}}
  - {{model: {models}/tied, parameters: {{weight: 0.2}}}}
dtype: bfloat16
"""
LINEAR = """\
merge_method: linear
models:
  - {{model: {models}/one, parameters: {{weight: 0.5}}}}
  - {{model: {models}/untied, parameters: {{weight: 0.3}}}}
dtype: bfloat16
"""
MERGES = {"ties": ("large", TIES), "task": ("llama", TASK), "linear": ("qwen", LINEAR)}
NAMES = {
    "ties": [f"model.layers.{i}.{part}.weight" for i, part in
             [(0, "self_attn.q_proj"), (3, "mlp.up_proj"), (10, "mlp.down_proj"), (5, "input_layernorm")]]
    + ["model.embed_tokens.weight"],
    "task": ["model.layers.0.self_attn.k_proj.weight", "model.layers.2.mlp.gate_proj.weight",
             "model.layers.4.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"],
    "linear": ["model.layers.0.self_attn.q_proj.bias", "model.layers.3.mlp.up_proj.weight",
               "model.layers.1.self_attn.o_proj.weight", "model.norm.weight", "lm_head.weight"],
}  # fmt: skip


@pytest.fixture(scope="module")
def reports(models, tmp_path_factory):
    """reports(name): the folder with NAME.yml, NAME.json, NAME.html."""
    folder = tmp_path_factory.mktemp("reports")

    def made(name: str) -> pathlib.Path:
        family, text = MERGES[name]
        recipe = folder / f"{name}.yml"
        if not recipe.exists():
            recipe.write_text(text.format(models=models / family))
            meld.good("report", recipe, "--json", "-o", recipe.with_suffix(".json"))
            meld.good("report", recipe, "-o", recipe.with_suffix(".html"))
        return folder

    return made


@pytest.mark.quick
@pytest.mark.parametrize("name", MERGES)
def test_figures_are_numpys(name, reports, models, tmp_path):
    folder = reports(name)
    report = json.loads((folder / f"{name}.json").read_text())
    meld.good("export", folder / f"{name}.yml", tmp_path / "out")
    merge = figures.Merge(report, models / MERGES[name][0], tmp_path / "out")
    for tensor in NAMES[name]:
        merge.check(tensor)


def test_tied_and_absent(reports, models, tmp_path):
    report = json.loads((reports("linear") / "linear.json").read_text())
    head = next(t for t in report["tensors"] if t["name"] == "lm_head.weight")
    assert [i.get("tied") for i in head["inputs"]] == ["model.embed_tokens.weight", None]
    assert report["models"][head["reference"]]["name"] == "one"


def data_of(page: str, name: str):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)[1])


@pytest.mark.quick
def test_the_page_is_alone(reports, models):
    folder = reports("ties")
    page = (folder / "ties.html").read_text()
    assert data_of(page, "data") == json.loads((folder / "ties.json").read_text())
    assert data_of(page, "title") == "ties"
    assert not re.search(r"https?:|//[a-z]|\bsrc=|\bhref=|@import|url\(", page)
    assert str(models) not in page and str(folder) not in page


def test_standard_output(reports):
    folder = reports("task")
    assert meld.good("report", folder / "task.yml", "--json") == (folder / "task.json").read_text()
    assert meld.good("report", folder / "task.yml") == (folder / "task.html").read_text()


def test_a_file_that_is_there(reports, tmp_path):
    folder, out = reports("task"), tmp_path / "out.html"
    out.write_text("x" * 10_000_000)
    meld.good("report", folder / "task.yml", "-o", out)
    assert out.read_text() == (folder / "task.html").read_text()


def test_nowhere_to_write(reports, tmp_path):
    done = meld.run("report", reports("task") / "task.yml", "-o", tmp_path / "no" / "out.html")
    assert done.returncode == 1 and "no/out.html: No such file or directory" in done.stderr
    assert meld.run("report", reports("task") / "task.yml", "--deep").returncode == 2
    assert meld.run("check", reports("task") / "task.yml", "--json").returncode == 2


def test_a_disk_that_fills_up(reports, tmp_path):
    page = tmp_path / "page.html"
    done = subprocess.run(["sh", "-c", 'trap "" XFSZ; ulimit -f 8; exec "$@"', "sh", meld.BINARY, "report",
                           reports("ties") / "ties.yml", "-o", page], stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert done.returncode == 1 and str(page) in done.stderr, done
    assert not page.exists()


def test_ctrl_c_leaves_nothing(reports, tmp_path):
    """Whenever it comes."""
    recipe, out = reports("ties") / "ties.yml", tmp_path / "out.html"
    process = subprocess.Popen([meld.BINARY, "report", recipe, "-o", out], stderr=subprocess.PIPE)
    meld.until(lambda: out.exists() or process.poll() is not None, "the file")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    if process.returncode != 0:
        assert process.returncode == 1
        assert not out.exists()


def test_a_tensor_that_cannot_be_read(models, tmp_path):
    """The rest is told."""
    for name in ("base", "alpha"):
        (tmp_path / name).mkdir()
        for path in (models / "llama" / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    recipe = tmp_path / "m.yml"
    recipe.write_text("merge_method: task_arithmetic\nbase_model: base\nmodels:\n"
                      "  - {model: alpha, parameters: {weight: 1}}\n")  # fmt: skip
    nan = torch.full([42], float("nan"))
    path = tmp_path / "base" / "model.safetensors"
    save_file(load_file(path) | {"model.norm.weight": nan.to(torch.bfloat16)}, path, metadata={"format": "pt"})
    report = json.loads(meld.good("report", recipe, "--json"))
    norm = next(t for t in report["tensors"] if t["name"] == "model.norm.weight")
    assert norm["inputs"][norm["reference"] == 0 and 1]["relative"] is None
    assert sum(i["nan"] for i in norm["inputs"]) == 42 and norm["result_nan"] == 42


# ---- in a browser

@pytest.mark.parametrize("name", MERGES)
@pytest.mark.parametrize("width, dark", browser.WINDOWS)
def test_in_a_browser(name, width, dark, reports, tmp_path):
    seen = browser.look(reports(name) / f"{name}.html", tmp_path, width, 3000, dark)
    assert seen.errors == []
    assert seen.width <= width
    assert browser.size(seen.picture) == (width, 3000)
    assert f"<title>{name}: merge report</title>" in seen.dom
    for heading in ("Overview", "What stands out", "Size of the task vectors", "What is kept", "Weight of each model",
                    "What survives rounding", "What was left out, and why", "All tensors"):  # fmt: skip
        assert heading in seen.dom, heading
    for tensor in NAMES[name]:
        assert tensor in seen.dom


def test_names_are_text(models, tmp_path):
    """Whatever a tensor or a file is called."""
    evil = "</script><script>document.documentElement.dataset.error='ran'</script><img src=x onerror=alert(1)>.weight"
    for name in ("base", "alpha"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama"}')
        save_file({evil: torch.randn(8, 8), "<!--<script>": torch.randn(8)}, folder / "model.safetensors",
                  metadata={"format": "pt"})  # fmt: skip
    recipe = tmp_path / '<b onclick="x">&\'\\ \u00e9.yml'
    recipe.write_text("merge_method: task_arithmetic\nbase_model: base\nmodels:\n"
                      "  - {model: alpha, parameters: {weight: 1}}\n")  # fmt: skip
    out = tmp_path / "out.html"
    meld.good("report", recipe, "-o", out)
    page = out.read_text()
    assert page.count("</script>") == 3 and "<img" not in page and "<!--" not in page
    assert evil in [t["name"] for t in data_of(page, "data")["tensors"]]
    seen = browser.look(out, tmp_path / "look")
    assert seen.errors == []
    assert "&lt;/script&gt;&lt;script&gt;document" in seen.dom


def test_an_error_would_be_seen(tmp_path):
    (tmp_path / "bad.html").write_text("<html><head></head><body><script>nothing.at.all()</script></body></html>")
    assert browser.look(tmp_path / "bad.html", tmp_path / "look").errors
