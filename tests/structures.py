"""Small models of shapes that are not a plain decoder, made by transformers with a fixed seed.

make_all(folder) writes FAMILY/base, one, two for each family, each tensor of `one` and `two` a little off the base's,
and FAMILY/new, new-base, new-one: `two` and the others in the layout that transformers 5 keeps in memory, experts packed
and parts renamed. base, one and two have two tensors that no table of architectures lists.
"""

import json
import pathlib

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

SMALL = dict(vocab_size=67, hidden_size=16, intermediate_size=24, num_attention_heads=2, num_key_value_heads=1)
EXTRA = {"model.extra.weight": (5, 3), "model.layers.1.extra.bias": (7,)}


def mixtral() -> PreTrainedModel:
    return MixtralForCausalLM(MixtralConfig(num_hidden_layers=3, num_local_experts=4, num_experts_per_tok=2, **SMALL))


def qwen3moe() -> PreTrainedModel:
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(
        num_hidden_layers=3, num_experts=12, num_experts_per_tok=2, moe_intermediate_size=10, head_dim=8, **SMALL))  # fmt: skip


def t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(T5Config(
        vocab_size=67, d_model=16, d_kv=8, d_ff=24, num_layers=3, num_decoder_layers=4, num_heads=2,
        feed_forward_proj="gated-gelu"))  # fmt: skip


def qwen2vl() -> PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    vision = dict(depth=3, embed_dim=16, hidden_size=16, num_heads=2, mlp_ratio=2, patch_size=4)
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(
        text_config=dict(num_hidden_layers=4, rope_parameters=rope, bos_token_id=1, eos_token_id=2, **SMALL),
        vision_config=vision))  # fmt: skip


def llava() -> PreTrainedModel:
    vision = dict(model_type="clip_vision_model", hidden_size=16, intermediate_size=24, num_hidden_layers=3,
                  num_attention_heads=2, image_size=16, patch_size=8, projection_dim=16)  # fmt: skip
    text = dict(model_type="llama", num_hidden_layers=4, **SMALL)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=1))


FAMILIES = {make.__name__: make for make in (mixtral, qwen3moe, t5, qwen2vl, llava)}


def add_extra(folder: pathlib.Path, family: str) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    names = EXTRA if family in ("mixtral", "qwen3moe") else {"model.extra.weight": (5, 3), "extra_scalar": ()}
    state |= {name: torch.randn(shape).to(torch.bfloat16) for name, shape in names.items()}
    save_file(state, path, metadata={"format": "pt"})


def move(model: PreTrainedModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.02


def make_all(folder: pathlib.Path) -> None:
    for i, (family, make) in enumerate(FAMILIES.items()):
        for name in ("base", "one", "two"):
            torch.manual_seed(i)
            model = make().to(torch.bfloat16)
            torch.manual_seed(100 * i + len(name) * 7 + ord(name[0]))
            if name != "base":
                move(model)
            model.save_pretrained(folder / family / name)
            new = "new" if name == "two" else f"new-{name}"
            model.save_pretrained(folder / family / new, save_original_format=False)
            add_extra(folder / family / name, family)


def pack(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by name with experts packed as transformers 5 has them in memory: what mergekit writes."""
    parts = {"w1": (0, "gate_up_proj"), "w3": (1, "gate_up_proj"), "w2": (0, "down_proj"),
             "gate_proj": (0, "gate_up_proj"), "up_proj": (1, "gate_up_proj"), "down_proj": (0, "down_proj")}  # fmt: skip
    packed, result = {}, {}
    for name, tensor in state.items():
        before, found, after = name.replace(".block_sparse_moe.", ".mlp.").partition(".mlp.experts.")
        if not found or not after[0].isdigit():
            result[before + found + after] = tensor
            continue
        expert, part, _ = after.split(".")
        place, pack_name = parts[part]
        packed.setdefault(before + found + pack_name, {})[int(expert), place] = tensor
    for name, pieces in packed.items():
        experts = range(1 + max(expert for expert, _ in pieces))
        places = range(1 + max(place for _, place in pieces))
        result[name] = torch.stack([torch.cat([pieces[e, p] for p in places]) for e in experts])
    return result


def settings(folder: pathlib.Path) -> dict:
    return json.loads((folder / "config.json").read_text())
