"""The models that are measured with, made once in the cache folder.

`1b`: three models of the shapes of Llama 3.2 1B in bfloat16, the donors being the base and a delta each. `70b` and
`deepseek`: headers alone, over files that are holes.
"""

import json
import os
import pathlib
import shutil
import struct
from collections.abc import Iterator

VERSION = 1  # raise it when what is made here changes
DRAWN = 1 << 20  # elements drawn at once
DONORS = ("base", "one", "two")
Shapes = dict[str, list[int]]


def length(shape: list[int]) -> int:
    """Bytes in bfloat16."""
    n = 2
    for dimension in shape:
        n *= dimension
    return n


def llama(hidden: int, inner: int, kv: int, layers: int, vocab: int, tied: bool) -> Shapes:
    table = {"model.embed_tokens.weight": [vocab, hidden]}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        table |= {
            at + "input_layernorm.weight": [hidden],
            at + "mlp.down_proj.weight": [hidden, inner],
            at + "mlp.gate_proj.weight": [inner, hidden],
            at + "mlp.up_proj.weight": [inner, hidden],
            at + "post_attention_layernorm.weight": [hidden],
            at + "self_attn.k_proj.weight": [kv, hidden],
            at + "self_attn.o_proj.weight": [hidden, hidden],
            at + "self_attn.q_proj.weight": [hidden, hidden],
            at + "self_attn.v_proj.weight": [kv, hidden],
        }
    table["model.norm.weight"] = [hidden]
    return table if tied else table | {"lm_head.weight": [vocab, hidden]}


def llama_config(hidden: int, inner: int, kv: int, layers: int, vocab: int, tied: bool) -> dict:
    head = 64 if hidden < 4096 else 128
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "head_dim": head,
            "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": hidden // head,
            "num_key_value_heads": kv // head, "vocab_size": vocab, "tie_word_embeddings": tied,
            "torch_dtype": "bfloat16"}  # fmt: skip


def mlp(at: str, hidden: int, inner: int) -> Shapes:
    return {at + "gate_proj.weight": [inner, hidden], at + "up_proj.weight": [inner, hidden],
            at + "down_proj.weight": [hidden, inner]}  # fmt: skip


def deepseek_layer(at: str, dense: bool) -> Shapes:
    table = {
        at + "input_layernorm.weight": [7168],
        at + "post_attention_layernorm.weight": [7168],
        at + "self_attn.q_a_proj.weight": [1536, 7168],
        at + "self_attn.q_a_layernorm.weight": [1536],
        at + "self_attn.q_b_proj.weight": [24576, 1536],
        at + "self_attn.kv_a_proj_with_mqa.weight": [576, 7168],
        at + "self_attn.kv_a_layernorm.weight": [512],
        at + "self_attn.kv_b_proj.weight": [32768, 512],
        at + "self_attn.o_proj.weight": [7168, 16384],
    }
    if dense:
        return table | mlp(at + "mlp.", 7168, 18432)
    table |= {at + "mlp.gate.weight": [256, 7168], at + "mlp.gate.e_score_correction_bias": [256]}
    for expert in range(256):
        table |= mlp(f"{at}mlp.experts.{expert}.", 7168, 2048)
    return table | mlp(at + "mlp.shared_experts.", 7168, 2048)


def deepseek() -> Shapes:
    """DeepSeek-V3 with its layer of multi-token prediction, in bfloat16: 46,183 tensors."""
    table = {"model.embed_tokens.weight": [129280, 7168]}
    for layer in range(62):
        table |= deepseek_layer(f"model.layers.{layer}.", dense=layer < 3)
    at = "model.layers.61."
    table |= {at + "embed_tokens.weight": [129280, 7168], at + "enorm.weight": [7168], at + "hnorm.weight": [7168],
              at + "eh_proj.weight": [7168, 14336], at + "shared_head.norm.weight": [7168],
              at + "shared_head.head.weight": [129280, 7168]}  # fmt: skip
    return table | {"model.norm.weight": [7168], "lm_head.weight": [129280, 7168]}


DEEPSEEK_CONFIG = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 7168,
                   "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
                   "num_attention_heads": 128, "num_key_value_heads": 128, "n_routed_experts": 256,
                   "num_nextn_predict_layers": 1, "vocab_size": 129280, "tie_word_embeddings": False,
                   "torch_dtype": "bfloat16"}  # fmt: skip
SEVENTY = (8192, 28672, 1024, 80, 128256, False)
ONE = (2048, 8192, 512, 16, 128256, True)
TENTH = (2048, 8192, 512, 1, 32064, True)


def split(table: Shapes, most: int) -> Iterator[Shapes]:
    """Into shards of at most `most` bytes, in order."""
    shard, used = {}, 0
    for name, shape in table.items():
        if shard and used + length(shape) > most:
            yield shard
            shard, used = {}, 0
        shard[name] = shape
        used += length(shape)
    yield shard


def header(table: Shapes) -> tuple[bytes, int]:
    """What a file begins with, and how many bytes of data follow."""
    entries, off = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in table.items():
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [off, off + length(shape)]}
        off += length(shape)
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, off


def write_sparse(folder: pathlib.Path, table: Shapes, config: dict, shard_bytes: int) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    shards, weight_map = list(split(table, shard_bytes)), {}
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):06}.safetensors"
        head, data = header(shard)
        with open(folder / name, "wb") as file:
            file.write(head)
            file.truncate(len(head) + data)
        weight_map |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": sum(map(length, table.values()))}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def write_dense(folder: pathlib.Path, shape: tuple) -> None:
    """Three models of real numbers, the donors with deltas of a twentieth and a tenth of the base's size."""
    import numpy

    table = llama(*shape)
    head, _ = header(table)
    dice = numpy.random.default_rng(0)
    files = []
    for name in DONORS:
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(llama_config(*shape)))
        files.append(open(folder / name / "model.safetensors", "wb"))
        files[-1].write(head)
    for dimensions in table.values():
        left = length(dimensions) // 2
        while left:
            n = min(left, DRAWN)
            base = dice.standard_normal(n, dtype=numpy.float32) * numpy.float32(0.02)
            for i, file in enumerate(files):
                delta = dice.standard_normal(n, dtype=numpy.float32) * numpy.float32(0.001 * i)
                file.write(bfloat16(base + delta))
            left -= n
    for file in files:
        file.close()


def bfloat16(values) -> bytes:
    """Rounded to nearest even."""
    import numpy

    bits = values.view(numpy.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(numpy.uint16).tobytes()


def make_shape(folder: pathlib.Path, shape: str) -> None:
    if shape.startswith("1b"):
        return write_dense(folder, ONE if shape == "1b" else TENTH)
    for name in DONORS:
        if shape == "70b":
            write_sparse(folder / name, llama(*SEVENTY), llama_config(*SEVENTY), 4_900_000_000)
        else:
            write_sparse(folder / name, deepseek(), DEEPSEEK_CONFIG, 8_420_000_000)
    return None


def models(store: pathlib.Path, shape: str) -> pathlib.Path:
    """The folder with base, one and two of a shape (1b, 1b-quick, 70b, deepseek); made if it is not there."""
    folder = store / f"models-{VERSION}-{shape}"
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            make_shape(part, shape)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder
