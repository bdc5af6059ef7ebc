import dataclasses
import pathlib
import shutil

import meld
import pytest

TASK = """\
merge_method: task_arithmetic
base_model: {models}/base
models:
  - {{model: {models}/one, parameters: {{weight: {weight}}}}}
  - {{model: {models}/two, parameters: {{weight: 0.4}}}}
dtype: bfloat16
"""
SMALL = """\
merge_method: linear
models:
  - {{model: {models}/alpha, parameters: {{weight: {weight}}}}}
  - {{model: {models}/beta, parameters: {{weight: 0.4}}}}
dtype: bfloat16
"""


@dataclasses.dataclass
class Merge:
    recipe: pathlib.Path
    exported: pathlib.Path


@pytest.fixture(scope="session")
def large(models, tmp_path_factory) -> Merge:
    """23 MB of merge: many times what `cache=4M` holds."""
    folder = tmp_path_factory.mktemp("large")
    recipe = folder / "task.yml"
    recipe.write_text(TASK.format(models=models / "large", weight=1.0))
    meld.good("export", recipe, folder / "exported")
    return Merge(recipe, folder / "exported")


@pytest.fixture
def small(models, tmp_path) -> pathlib.Path:
    """A recipe beside its own copies of two small models, which a test may spoil."""
    for name in ("alpha", "beta"):
        shutil.copytree(models / "llama" / name, tmp_path / "models" / name)
    recipe = tmp_path / "small.yml"
    recipe.write_text(SMALL.format(models=tmp_path / "models", weight=0.6))
    return recipe
