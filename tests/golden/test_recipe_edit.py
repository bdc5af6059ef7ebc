"""The text of a variant's recipe means to PyYAML and mergekit what the variant means."""

import itertools
import math
import os
import pathlib
import subprocess

import pytest
import yaml
from mergekit.config import (
    ConfigReader,
    InputSliceDefinition,
    MergeConfiguration,
    OutputModuleDefinition,
    OutputSliceDefinition,
    evaluate_setting,
)

EDIT = pathlib.Path(os.environ.get("MELDFS_BUILD", ".")) / "tests/test_recipe_edit"
TENSORS = ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up.weight", "lm_head.weight"]
SHARED = {"lambda", "normalize", "rescale"}

DELLA = """
merge_method: della
base_model: base
modules:
  text:
    parameters: {density: [{filter: mlp, value: 0.1}, {filter: attn, value: [0, 1]}], lambda: 3}
    slices:
    - parameters: {weight: [{filter: head, value: 7}], lambda: [{filter: mlp, value: 2}]}
      sources:
      - {model: a, layer_range: [0, 2], parameters: {weight: 0.5, lambda: 9}}
      - {model: b, layer_range: [0, 2], parameters: {weight: [0, 1, 0.5], density: {value: 0.3}}}
      - {model: base, layer_range: [0, 2], parameters: {weight: 1}}
    - base_model: b
      sources:
      - {model: a, layer_range: [2, 4], parameters: {weight: []}}
      - {model: b, layer_range: [2, 4]}
  vision:
    models:
    - {model: a, parameters: {weight: [{filter: '*', value: 0.9}]}}
    - {model: b, parameters: {density: [{filter: mlp, value: 0.2}, {value: 0.4}]}}
parameters: {weight: 0.25, density: 0.75, epsilon: 0.1, rescale: [true, false], normalize: 1e-0}
"""

LINEAR = """
merge_method: linear
base_model: {model: {path: base}}
x-w: &w {weight: [{filter: attn, value: 0.5}, {filter: mlp, value: 1e-3}]}
models:
- {model: a, parameters: *w}
- {model: b, parameters: {<<: *w}}
- {model: c}
parameters: {weight: 0.25}
"""

VARIANTS = [
    (DELLA, path)
    for path in (
        "weight=0.3",
        "weight.mlp=0.3",
        "a.weight.mlp=0.3~0.5",
        "a.weight.mlp=1/a.weight=2/weight.mlp=3/weight=4",
        "a.weight.weight=1/a.weight.mlp=2/b.weight.mlp=3",
        "weight.mlp=1/weight.attn=2/b.weight=3",
        "lambda.mlp=5/lambda.attn=6",
        "density.attn=0.1/lambda=2/rescale=false/normalize=true~false",
        "epsilon=1e-05/b.epsilon=2e-300",
        "b.density.mlp=-0/density=1e22/a.weight=0.1~0.2~0.30000000000000004",
    )
] + [
    (LINEAR, path)
    for path in (
        "weight=1e-5",
        "base.weight=3",
        "base.weight.mlp=3/weight.attn=4/weight=5/c.weight.attn=6",
        "b.weight.norm=1/c.weight=7e30",
    )
]

ODD = r"""
x-plain: [a, 1e-3, 1.0e-3, .5, 1:30, 0x1F, 017, 1_000, yes, ~, null, -1.5e+3, .inf, -.INF, 2001-01-01]
x-colons: [1:30, 190:20:30.15]
x-dates: {at: 2001-12-14 21:59:43, 2001-01-01: x}
x-quoted: ['1e-3', "0.5", 'yes', '', ' a ', '# no', 'a: b', "\t", '- x', '[', '*a', '&a', '!x', '%', '@', '2001-01-01']
x-tagged: [!!float 1, !!str 1, !!str yes, !!int 017, !!bool on, !!null '', ! '5']
x-unicode: ["caf\u00e9 \u2028 \x85 \U0001F600 \uFEFF", "\e\a\x01", café, "\xa0"]
x-lines: |
   indented
     more

   end
x-kept: |+
  x

x-folded: >-
  a
  b

  c
x-wrapped: a b
  c

  d
x-merge: {'<<': {a: 1}}
x-anchor: &x {p: 1, q: [1, 2]}
x-again: *x
x-merged: {<<: *x, p: 2}
x-empty: {a: {}, b: [], c: , ? d, '': 1}
x-deep: [[[[1], {a: [b, [c]]}]]]
x-keys: {1: number, yes: bool, '#': x, '- ': y, "multi\nline": z, 'a key with "quotes": and more': w}
x-long: {KEY: 1}
""".replace("KEY", "k" * 300)


def edited(text: str, path: str, tmp_path: pathlib.Path) -> str:
    file = tmp_path / "recipe.yml"
    file.write_text(text)
    done = subprocess.run([EDIT, file, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def overrides(path: str) -> list[tuple]:
    """(model or None, parameter, filter or None, value), in canonical order."""
    found = []
    for key, value in sorted(part.split("=") for part in path.split("/")):
        model = None
        if key.split(".")[0] in ("a", "b", "c", "base"):
            model, key = key.split(".", 1)
        name, _, filter_ = key.partition(".")
        values = [v == "true" if v in ("true", "false") else float(v) for v in value.split("~")]
        found.append((model, name, filter_ or None, values if len(values) > 1 else values[0]))
    return found


def number(value):
    return value if isinstance(value, bool) else float(value)


def deciding(over: list[tuple], model, name: str, tensor: str):
    """The value of the most specific override, in a list; [] if none applies."""
    fits = [o for o in over if o[1] == name and o[0] in (None, model) and (not o[2] or o[2] in tensor)]
    fits.sort(key=lambda o: (o[0] is None, o[2] is None))
    return [o[3] for o in fits[:1]]


def slices(config: MergeConfiguration):
    """What mergekit plans: every slice, with the base added where mergekit adds it."""
    modules = config.modules or {"": OutputModuleDefinition(slices=config.slices, models=config.models)}
    for name, module in modules.items():
        if module.models:
            listed = list(module.models)
            models = [m.model for m in listed]
            sources = [InputSliceDefinition(model=m.model, layer_range=(0, 4), parameters=m.parameters) for m in listed]
            if config.base_model and config.base_model not in models:
                sources.append(InputSliceDefinition(model=config.base_model, layer_range=(0, 4)))
            yield name, 0, module, OutputSliceDefinition(sources=sources)
        for i, part in enumerate(module.slices or []):
            yield name, i, module, part


def resolved(config: MergeConfiguration, over: list[tuple]) -> dict:
    """Every value of every parameter, by place; where an override applies, that one's."""
    found = {}
    ignores_base = config.merge_method == "linear"
    for (name, i, module, part), t in itertools.product(list(slices(config)), (0, 0.25, 0.5, 1)):
        reader = ConfigReader(config=config, t=t, slice_out=part, module=module)
        models = [s.model for s in part.sources if ignores_base or s.model != reader.base_model]
        for param, tensor in itertools.product(("weight", "density", "epsilon", *sorted(SHARED)), TENSORS):
            for model in [None] if param in SHARED else models:
                of = model and str(model.model.path)
                settings = deciding(over, of, param, tensor) or [
                    s[param] for s in reader.parameter_sources(model) if s and param in s]  # fmt: skip
                values = (evaluate_setting(tensor, s, t, validate=number) for s in settings)
                found[name, i, of, param, tensor, t] = next((v for v in values if v is not None), None)
    return found


@pytest.mark.quick
@pytest.mark.parametrize("text, path", VARIANTS, ids=[path for _, path in VARIANTS])
def test_values(text, path, tmp_path):
    before = MergeConfiguration.model_validate(yaml.safe_load(text))
    after = MergeConfiguration.model_validate(yaml.safe_load(edited(text, path, tmp_path)))
    want, got = resolved(before, overrides(path)), resolved(after, [])
    assert set(want) == set(got)
    for key, value in want.items():
        assert (value, type(value)) == (got[key], type(got[key])), key
        assert not value or math.copysign(1, value) == math.copysign(1, got[key]), key
    assert want != resolved(before, [])


@pytest.mark.quick
def test_odd_yaml(tmp_path):
    text = ODD + LINEAR.replace("x-w", "x-ww").replace("&w", "&ww").replace("*w", "*ww")
    before = yaml.safe_load(text)
    made = edited(text, "weight=0.5", tmp_path)
    after = yaml.safe_load(made)
    assert after.pop("parameters") == {"weight": 0.5} and before.pop("parameters")
    assert after.pop("models") == [{"model": "a"}, {"model": "b"}, {"model": "c"}] and before.pop("models")
    assert list(after) == list(before)
    for key, value in before.items():
        assert repr(after[key]) == repr(value), key
    assert yaml.safe_load(edited(made, "weight=0.5", tmp_path)) == yaml.safe_load(made)


@pytest.mark.quick
def test_documents(tmp_path):
    first = "# a stage\nname: first\nmerge_method: linear\nmodels: [{model: a, parameters: {weight: 1e-3}}]\n"
    result = "merge_method: linear\nmodels: [{model: first, parameters: {weight: [1, 2]}}]\n"
    after = list(yaml.safe_load_all(edited(f"{result}---\n{first}", "first.weight=3", tmp_path)))
    assert after == [
        {"merge_method": "linear", "models": [{"model": "first", "parameters": {"weight": 3}}]},
        yaml.safe_load(first),
    ]
