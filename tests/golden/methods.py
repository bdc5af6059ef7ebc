"""Merges of single tensors, one model directory an input, as meldfs writes and as mergekit computes them.

A case is a dict of parameters: a list holds one value a donor and is cut to as many as there are. The donors are
`near` (base with small changes, as fine-tuning makes), `far` (unrelated) or `same` (the first equals the base).
"""

import json
import pathlib
import shutil
import tempfile
from dataclasses import dataclass

import meld
import oracle  # one thread, stable sorts
import torch
from mergekit.merge_methods import merge_tensors
from models import random
from safetensors.torch import load_file, save_file

BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
assert oracle.torch.get_num_threads() == 1
SHAPES = {"vector": [77], "odd": [13, 31], "column": [40, 1], "square": [64, 64], "wide": [5, 300],
          "cube": [4, 9, 16], "empty": [0, 8], "one": [1]}  # fmt: skip
FILES = {BF16: "bf16", F16: "f16", F32: "f32", F64: "f64"}
NAMES = {BF16: "bfloat16", F16: "float16", F32: "float32", F64: "float64"}
DONORS = 5


@dataclass(frozen=True)
class Types:
    """Types of base and donors on disk, and the two keys of the merge file."""

    base: torch.dtype
    donors: tuple
    dtype: torch.dtype | None = None
    out: torch.dtype | None = None

    def work(self, n: int) -> torch.dtype:
        """The type merged in, for n donors."""
        found = self.base
        for donor in self.donors[:n]:
            found = torch.promote_types(found, donor)
        return self.dtype or found


TYPES = {
    "bfloat16": Types(BF16, (BF16,) * 5, BF16),
    "float16": Types(F16, (F16,) * 5, F16),
    "float32": Types(F32, (F32,) * 5, F32),
    "float32-bfloat16": Types(BF16, (BF16,) * 5, F32, BF16),
    "mixed": Types(BF16, (F16, BF16, F32, F16, BF16)),
    "float64": Types(F64, (F64,) * 5, F64),
    "float64-bfloat16": Types(F64, (BF16, F32, F16, F64, BF16), F64, BF16),
    "mixed-float64-float32": Types(F32, (F64, BF16, F64, F16, F32), None, F32),
    "bfloat16-float64": Types(F64, (F64, BF16, F64, F32, F64), BF16, F64),
}


def values(kind: str, key: str, shape: list[int]) -> torch.Tensor:
    """kind: base, same, near0..., far0..."""
    base = random(shape, "base", key) * 0.02
    if kind in ("base", "same"):
        base.view(-1)[7::101] = -0.0
        return base
    if kind.startswith("far"):
        return random(shape, kind, key) * 0.02
    i = int(kind[-1])
    moved = (random(shape, kind, key, "moved") > -1.6) & (torch.arange(base.numel()).view(shape) % 17 != 3)
    near = base + random(shape, kind, key) * 0.002 * (0.5 + i / 2) * moved
    near.view(-1)[7 :: 101 if i == 0 else 202] = 0.0 if i == 0 else -0.0
    return near


def make(folder: pathlib.Path) -> None:
    """Every input in every type."""
    kinds = ["base", "same"] + [f"{kind}{i}" for kind in ("near", "far") for i in range(DONORS)]
    for dtype, name in FILES.items():
        for kind in kinds:
            model = folder / f"{kind}-{name}"
            model.mkdir(parents=True)
            config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1}
            (model / "config.json").write_text(json.dumps(config))
            state = {key: values(kind, key, shape).to(dtype) for key, shape in SHAPES.items()}
            save_file(state, model / "model.safetensors", metadata={"format": "pt"})


@dataclass(frozen=True)
class Merge:
    method: str
    types: Types
    donors: int
    parameters: dict
    kind: str = "near"
    base: bool = True

    def inputs(self) -> list[str]:
        """Directories of the donors, then the base if there is one: the order in which they are merged."""
        kinds = [f"{'near' if self.kind == 'same' else self.kind}{i}" for i in range(self.donors)]
        if self.kind == "same":
            kinds[0] = "same"
        found = [f"{kind}-{FILES[dtype]}" for kind, dtype in zip(kinds, self.types.donors)]
        return found + ([f"base-{FILES[self.types.base]}"] if self.base else [])

    def work(self) -> torch.dtype:
        return self.types.work(self.donors)

    def text(self) -> str:
        inputs = self.inputs()
        shared = {key: value for key, value in self.parameters.items() if not isinstance(value, list)}
        models = []
        for i in range(self.donors):
            own = {key: value[i] for key, value in self.parameters.items() if isinstance(value, list)}
            models.append({"model": inputs[i], **({"parameters": own} if own else {})})
        recipe = {"merge_method": self.method, "models": models}
        recipe |= {"base_model": inputs[-1]} if self.base else {}
        recipe |= {"parameters": shared} if shared else {}
        recipe |= {"dtype": NAMES[self.types.dtype]} if self.types.dtype else {}
        recipe |= {"out_dtype": NAMES[self.types.out]} if self.types.out else {}
        return "\n".join(f"{key}: {json.dumps(value)}" for key, value in recipe.items()) + "\n"

    def arguments(self) -> dict:
        """What mergekit's function takes; a weight of an unlisted base that counts as a model is 0."""
        found = {}
        for key, value in self.parameters.items():
            found[key] = [*value[: self.donors]] if isinstance(value, list) else value
        return found


class Inputs:
    """The directories, and the tensors in them."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.loaded = folder, {}

    def of(self, name: str) -> dict[str, torch.Tensor]:
        if name not in self.loaded:
            self.loaded[name] = load_file(self.folder / name / "model.safetensors")
        return self.loaded[name]

    def ours(self, merge: Merge, *options: str) -> dict[str, torch.Tensor]:
        with tempfile.TemporaryDirectory(prefix="method.") as scratch:
            recipe, out = pathlib.Path(scratch, "merge.yml"), pathlib.Path(scratch, "out")
            recipe.write_text(merge.text())
            meld.good("export", recipe, out, *options, cwd=self.folder)
            found = {}
            for path in meld.weight_files(out):
                found |= load_file(path)
            shutil.rmtree(out)
        return found

    def theirs(self, merge: Merge, key: str) -> torch.Tensor:
        """mergekit's, of one tensor."""
        tensors = [self.of(name)[key] for name in merge.inputs()]
        base = len(tensors) - 1 if merge.base and merge.method not in ("linear", "karcher") else None
        return merge_tensors(tensors, merge.method, parameters=merge.arguments(), base_index=base, name=key,
                             dtype=merge.types.dtype, out_dtype=merge.types.out)  # fmt: skip

    def cast(self, merge: Merge, key: str) -> tuple:
        """The inputs in the type merged in, as float64: base or None, donors."""
        found = [self.of(name)[key].to(merge.work()).double().numpy() for name in merge.inputs()]
        return (found.pop() if merge.base else None), found
