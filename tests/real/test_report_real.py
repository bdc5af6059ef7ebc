"""The report of a merge of real models: its figures are numpy's, and its page is whole at any width."""

import json
import pathlib
import tempfile

import browser
import figures
import meld
import pytest
from test_real import made

RECIPE = """\
merge_method: {method}
base_model: {models}/base
models:
  - {{model: {models}/caps, parameters: {{weight: 0.8{more}}}}}
  - {{model: {models}/json, parameters: {{weight: [0.3, 0.6]{more}}}}}
{types}
"""
MERGES = {
    "task_arithmetic": ("", "dtype: bfloat16"),
    "ties": (", density: [0.2, 0.7]", "dtype: float32\nout_dtype: bfloat16"),
}
NAMES = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.7.mlp.down_proj.weight",
         "model.layers.11.mlp.up_proj.weight", "model.norm.weight"]  # fmt: skip


@pytest.fixture(scope="module")
def models():
    return made("--donors")


@pytest.mark.parametrize("method", MERGES)
def test_report(method, models):
    more, types = MERGES[method]
    with tempfile.TemporaryDirectory(dir=meld.CACHE, prefix="report.") as name:
        folder = pathlib.Path(name)
        recipe = folder / f"{method}.yml"
        recipe.write_text(RECIPE.format(method=method, models=models, more=more, types=types))
        meld.good("report", recipe, "-o", folder / "report.html")
        report = json.loads(meld.good("report", recipe, "--json"))
        meld.good("export", recipe, folder / "out")
        merge = figures.Merge(report, models, folder / "out")
        for tensor in NAMES:
            merge.check(tensor)
        for width, dark in browser.WINDOWS:
            seen = browser.look(folder / "report.html", folder / "look", width, 3000, dark)
            assert seen.errors == [] and seen.width <= width
            assert NAMES[1] in seen.dom
