#!/usr/bin/env python3
"""Seeds for fuzz_header and fuzz_index: make_corpus.py DIR fills DIR/header and DIR/index.

Real files come from the safetensors package: sharded, the types that numpy has and some that it lacks,
with metadata. Broken ones, a rule each, are written by hand.
"""
import json
import struct
import sys
from pathlib import Path

import numpy as np
from safetensors import TensorSpec, serialize
from safetensors.numpy import save

# Types numpy lacks are written from raw bytes: name as the package wants it, bits of an element.
RAW_TYPES = {
    "bfloat16": 16,
    "float8_e4m3fn": 8,
    "float8_e5m2": 8,
    "float8_e8m0fnu": 8,
    "float4_e2m1fn_x2": 8,
}
NUMPY_TYPES = "bool uint8 int8 uint16 int16 float16 uint32 int32 float32 float64 int64 uint64 complex64".split()


def layer(i):
    """Tensors of one decoder layer, tiny."""
    name = f"model.layers.{i}."
    return {
        name + "self_attn.q_proj.weight": np.full((4, 4), i, np.float16),
        name + "self_attn.q_proj.bias": np.zeros(4, np.float16),
        name + "mlp.up_proj.weight": np.full((8, 4), i, np.float32),
        name + "input_layernorm.weight": np.ones(4, np.float32),
    }


def save_raw(dtype, shape, bits):
    """One tensor of a type that numpy lacks."""
    data = np.arange(int(np.prod(shape)) * bits // 8, dtype=np.uint8)
    spec = TensorSpec(dtype=dtype, shape=list(shape), data_ptr=data.ctypes.data, data_len=data.nbytes)
    return serialize({"x": spec})


def real_headers():
    yield "empty", save({})
    yield "metadata", save({"w": np.ones((2, 3), np.float32)}, {"format": "pt", "note": 'quotes " and \u00e9'})
    yield "scalar", save({"s": np.array(1, np.float32)})
    yield "no-elements", save({"a": np.ones((0, 7), np.float32), "b": np.ones(3, np.uint8)})
    yield "numpy-types", save({t: np.zeros((2, 4), t) for t in NUMPY_TYPES})
    for dtype, bits in RAW_TYPES.items():
        yield dtype, save_raw(dtype, (2, 4), bits)
    for shard in range(3):
        tensors = layer(2 * shard) | layer(2 * shard + 1)
        yield f"shard-{shard}", save(tensors, {"format": "pt"})


def tensor(dtype="U8", shape=(4,), offsets=(0, 4), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def pack(header, data=bytes(4), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def broken_headers():
    good = tensor()
    yield "nothing", b""
    yield "short", b"\0\0\0"
    yield "too-long", pack({"x": good}, length=2**63)
    yield "past-end", pack({"x": good}, length=1000)
    yield "cut", pack({"x": good})[:-6]
    yield "trailing", pack({"x": good}, bytes(9))
    yield "hole", pack({"x": tensor(offsets=(2, 6))}, bytes(6))
    yield "overlap", pack({"x": good, "y": tensor(offsets=(3, 7))}, bytes(7))
    yield "reversed", pack({"x": tensor(offsets=(4, 0))})
    yield "wrong-size", pack({"x": tensor(shape=(5,))})
    yield "overflow", pack({"x": tensor(shape=(2**32, 2**32))})
    yield "beyond-64-bits", pack({"x": tensor(shape=(2**64,))})
    yield "half-byte", pack({"x": tensor("F4", (3,), (0, 1))}, bytes(1))
    yield "sub-byte", pack({"x": tensor("F4", (2,), (0, 1)), "y": tensor("F6_E2M3", (4,), (1, 4))})
    yield "dimensions", pack({"x": tensor(shape=(1,) * 8 + (4,))})
    yield "unknown-type", pack({"x": tensor("Q4")})
    yield "unknown-field", pack({"x": tensor(later=[{"a": [None, True, -1.5e3]}])})
    yield "missing-field", pack({"x": {"dtype": "U8", "shape": [4]}})
    yield "metadata-number", pack({"__metadata__": {"a": 1}, "x": good})
    yield "control", pack({"a\nb": good})
    yield "surrogate", pack(b'{"\\ud834\\udd1e":%s,"\\ud834":1}' % json.dumps(good).encode())
    yield "twice", pack(b'{"x":%s,"\\u0078":%s}' % ((json.dumps(good).encode(),) * 2))
    yield "not-utf8", pack(b'{"\xff\xfe":%s}' % json.dumps(good).encode())
    yield "leading-zero", pack(b'{"x":{"dtype":"U8","shape":[04],"data_offsets":[0,4]}}')
    yield "comma", pack(b'{"x":%s,}' % json.dumps(good).encode())
    yield "deep", pack(b"[" * 200 + b"]" * 200)
    yield "padded", pack(json.dumps({"x": good}).encode() + b" " * 40)


def index(weight_map, **more):
    return json.dumps({"metadata": {"total_size": 1234}, "weight_map": weight_map, **more}, indent=2).encode()


def indexes():
    real = {k: f"model-0000{s + 1}-of-00003.safetensors" for s in range(3) for k in layer(s)}
    yield "real", index(real)
    yield "compact", json.dumps({"weight_map": real}, separators=(",", ":")).encode()
    yield "empty", index({})
    yield "no-map", b'{"metadata":{}}'
    yield "list", b'{"weight_map":["a"]}'
    yield "number", index({"a": 1})
    yield "parent", index({"a": "../x.safetensors"})
    yield "absolute", index({"a": "/etc/x.safetensors"})
    yield "control", index({"a": "x\u0000y\n.safetensors"})
    yield "pickle", index({"a": "pytorch_model-00001-of-00002.bin"})
    yield "long", index({"a": "x" * 250 + ".safetensors"})
    yield "twice", b'{"weight_map":{"a":"x.safetensors","\\u0061":"y.safetensors"}}'
    yield "nested", b'{"metadata":' + b"[" * 100 + b"]" * 100 + b',"weight_map":{}}'
    yield "cut", index(real)[:-30]


def main(target):
    for folder, seeds in (("header", [*real_headers(), *broken_headers()]), ("index", list(indexes()))):
        path = Path(target, folder)
        path.mkdir(parents=True, exist_ok=True)
        for name, data in seeds:
            Path(path, name).write_bytes(data)
        print(f"{path}: {len(seeds)} seeds")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_corpus.py DIR")
    main(sys.argv[1])
