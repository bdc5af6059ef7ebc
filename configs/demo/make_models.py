"""Three small models for the merge files in configs/: make_models.py FOLDER writes base, chat and math there.

Llama-shaped, bfloat16, 34 million random parameters. chat and math are the base with noise, as fine-tuned models
are the base with something learnt: they say nothing, but merge as real ones do.
"""

import json
import pathlib
import shutil
import struct
import sys

import numpy

HIDDEN, INNER, LAYERS, VOCAB = 512, 1408, 8, 8000
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "vocab_size": VOCAB,
    "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 8,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "rope_theta": 10000.0,
    "max_position_embeddings": 2048, "hidden_act": "silu",
}  # fmt: skip


def shapes() -> dict[str, tuple[int, ...]]:
    table = {
        "lm_head.weight": (VOCAB, HIDDEN),
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name in "qkvo":
            table[f"{at}self_attn.{name}_proj.weight"] = (HIDDEN, HIDDEN)
        table |= {at + "mlp.gate_proj.weight": (INNER, HIDDEN), at + "mlp.up_proj.weight": (INNER, HIDDEN),
                  at + "mlp.down_proj.weight": (HIDDEN, INNER), at + "input_layernorm.weight": (HIDDEN,),
                  at + "post_attention_layernorm.weight": (HIDDEN,)}  # fmt: skip
    return table


def to_bfloat16(x: numpy.ndarray) -> numpy.ndarray:
    """The upper halves of float32 values, rounded to nearest, ties to even."""
    bits = x.astype(numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def save(folder: pathlib.Path, tensors: dict[str, numpy.ndarray]) -> None:
    header, off = {"__metadata__": {"format": "pt"}}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": [off, off + value.nbytes]}
        off += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            file.write(value.tobytes())


def make(folder: pathlib.Path, seed: int) -> None:
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    dice, learning = numpy.random.default_rng(0), numpy.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes().items():
        value = dice.standard_normal(shape, numpy.float32) * 0.02 + ("norm" in name)
        if seed:
            value += learning.standard_normal(shape, numpy.float32) * 0.002
        tensors[name] = to_bfloat16(value)
    save(part, tensors)
    part.rename(folder)


if __name__ == "__main__":
    for seed, name in enumerate(("base", "chat", "math")):
        folder = pathlib.Path(sys.argv[1]) / name
        if not folder.exists():
            make(folder, seed)
