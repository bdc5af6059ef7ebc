"""The daemon's memory does not follow the size of a tensor, whatever a method must know of the whole of it first.

Models with the shapes of Llama 70B in sparse files, with lumps of values in the tensors that are read, so that the
statistics see every magnitude.
"""

import json
import os
import pathlib
import random
import struct
import time

import meld
import pytest
from test_memory import CONSTANT, HIDDEN, LAYERS, VOCAB, make, peak

CACHE = 32 << 20  # less than is read
LUMP = 4 << 20  # bytes
READS = 12
EMBEDDING = "model.embed_tokens.weight"  # 1,050,673,152 elements
TENSORS = ["model.layers.40.mlp.down_proj.weight", "model.layers.79.self_attn.q_proj.weight",
           "model.layers.3.input_layernorm.weight"]  # fmt: skip
WEIGHTED = {"weight": [0.5, 0.3, 0.7]}
PRUNED = WEIGHTED | {"density": [0.4, 0.6, 0.2]}
# parameters and donors
METHODS = {
    "linear": (WEIGHTED, 3),
    "passthrough": ({"scale": [0.9]}, 1),
    "task_arithmetic": (WEIGHTED, 3),
    "ties": (PRUNED | {"rescale": True}, 3),
    "dare_linear": (PRUNED, 3),
    "dare_ties": (PRUNED, 3),
    "breadcrumbs": (PRUNED, 3),
    "breadcrumbs_ties": (PRUNED, 3),
    "della": (PRUNED, 3),
    "della_linear": (PRUNED, 3),
    "sce": ({"select_topk": 0.4}, 3),
    "ram": ({}, 3),
    "ramplus_tl": ({}, 3),
    "slerp": ({"t": 0.4}, 1),
    "nuslerp": (WEIGHTED, 2),
    "multislerp": (WEIGHTED, 3),
    "karcher": ({}, 3),
    "model_stock": ({}, 3),
    "nearswap": ({"t": 0.001}, 1),
    "arcee_fusion": ({}, 1),
}
BASELESS = {"linear", "passthrough", "karcher"}
# the rows or columns of a tensor are statistics of their own; merged in float32 there are more magnitudes
MORE = [("nuslerp", {"nuslerp_flatten": False}, "bfloat16"),
        ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}, "bfloat16"),
        ("model_stock", {"filter_wise": True}, "bfloat16"),
        ("ties", {}, "float32"), ("sce", {}, "float32")]  # fmt: skip


def recipe(method: str, more: dict, dtype: str) -> str:
    parameters, n = METHODS[method]
    parameters = parameters | more
    each = {key: value for key, value in parameters.items() if isinstance(value, list)}
    shared = {key: value for key, value in parameters.items() if key not in each}
    models = [{"model": name, "parameters": {key: value[i] for key, value in each.items()}}
              for i, name in enumerate(["one", "two", "three"][:n])]  # fmt: skip
    found = {"merge_method": method, "models": models, "dtype": dtype, "out_dtype": "bfloat16"}
    return json.dumps(found | {"parameters": shared} | ({} if method in BASELESS else {"base_model": "base"}))


def places(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, int, int]]:
    """File, first and last byte of each tensor that is read. No header of another shard is read, nor anything ahead:
    what lies behind a header would need its statistics."""
    files = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    found = {}
    for name in [EMBEDDING, *TENSORS]:
        path = folder / files[name]
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            (length,) = struct.unpack("<Q", os.pread(fd, 8, 0))
            off = json.loads(os.pread(fd, length, 8))[name]["data_offsets"]
        finally:
            os.close(fd)
        found[name] = path, 8 + length + off[0], 8 + length + off[1]
    return found


def fill(folder: pathlib.Path, seed: int) -> None:
    """Values around 0.02 of either sign in some places of the tensors that are read."""
    dice = random.Random(seed)
    lump = struct.pack(f"<{LUMP // 2}H", *((dice.getrandbits(1) << 15) + dice.randrange(0x3880, 0x3D80)
                                          for _ in range(LUMP // 2)))  # fmt: skip
    where = places(folder)
    for name in [EMBEDDING, *TENSORS]:
        path, begin, end = where[name]
        with open(path, "r+b") as file:
            for part in range(4):
                file.seek(begin + (end - begin) * part // 4 // 2 * 2)
                file.write(lump[: (end - begin) // 4])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("methods")
    for seed, name in enumerate(["base", "one", "two", "three"]):
        make(folder / name, LAYERS, VOCAB)
        fill(folder / name, seed)
    return folder


def read_spread(place: tuple[pathlib.Path, int, int]) -> None:
    path, begin, end = place
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for i in range(READS):
            off = begin + (end - begin - 1) * i // READS
            n = min(65536, end - off)
            assert len(os.pread(fd, n, off)) == n
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@pytest.mark.parametrize(("method", "more", "dtype"), [(method, {}, "bfloat16") for method in METHODS] + MORE)
def test_peak_memory(method, more, dtype, folder, tmp_path):
    (tmp_path / "merge.yml").write_text(recipe(method, more, dtype))
    with meld.Mount(tmp_path / "merge.yml", tmp_path / "mnt", "cache=32M", cwd=folder, foreground=True) as mount:
        where, took = places(mount.point), {}
        for name in [*TENSORS, EMBEDDING]:
            start = time.monotonic()
            read_spread(where[name])
            took[name] = time.monotonic() - start
        used = peak(mount.process.pid)
    print(f"\n  {method} {more or ''} {dtype}: {used >> 20} MiB; the embedding took {took[EMBEDDING]:.1f} s, "
          f"the others {sum(took.values()) - took[EMBEDDING]:.1f} s")
    assert used < CACHE + CONSTANT
    assert (where[EMBEDDING][2] - where[EMBEDDING][1]) == VOCAB * HIDDEN * 2
