"""Small models to merge: real config.json files, odd sizes, the same bytes every time.

make_all(folder) writes three families under folder:

llama/  untied, 5 layers: base, base16, base32 and donors in bf16, f16 and f32, single and sharded
qwen/   Qwen2 with biases, tied, 4 layers; `untied` has a head of its own
large/  llama again, 23 MB a model: many times the smallest cache, tensors longer than a cache piece
"""

import hashlib
import json
import pathlib
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GenerationConfig, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast, Qwen2Config

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


@dataclass(frozen=True)
class Model:
    dtype: torch.dtype = BF16
    shards: int = 1
    noise: float = 0.02  # of a donor, around the family's base
    spread: float = 0.0  # of tensors that share nothing with the base
    tied: bool | None = None  # None: as the family
    extremes: str = ""  # "finite" or "nan": unusual values in each tensor


LLAMA = {
    "base": Model(noise=0.0),
    "base16": Model(F16, noise=0.0),
    "base32": Model(F32, 2, noise=0.0),
    "other-base": Model(spread=0.07),
    "alpha": Model(shards=3),
    "beta": Model(),
    "gamma": Model(F16),
    "delta": Model(F32, 2),
    "epsilon": Model(),
    "zeta": Model(noise=0.3),
    "tied": Model(tied=True),
    "loud16": Model(F16, noise=30000.0),
    "finite": Model(extremes="finite"),
    "nan": Model(extremes="nan"),
}
QWEN = {
    "base": Model(noise=0.0),
    "one": Model(),
    "two": Model(shards=2),
    "three": Model(F32),
    "half": Model(F16),
    "untied": Model(tied=False),
}
LARGE = {"base": Model(noise=0.0), "one": Model(shards=2), "two": Model(F16)}
FINITE = [0.0, -0.0, 1e-38, -1e-38, 1e-40, -1e-40, 3.3e38, -3.3e38, 65504.0, -65504.0, 6e-8, 1.0, -1.0, 2.0**-126]
NAN = [float("nan"), float("inf"), float("-inf")]


def config(family: str, tied: bool, dtype: torch.dtype, positions: int) -> PretrainedConfig:
    common = dict(max_position_embeddings=positions, bos_token_id=1, eos_token_id=2, tie_word_embeddings=tied,
                  dtype=dtype)  # fmt: skip
    if family == "qwen":
        return Qwen2Config(
            architectures=["Qwen2ForCausalLM"], vocab_size=311, hidden_size=36, intermediate_size=77,
            num_hidden_layers=4, num_attention_heads=3, num_key_value_heads=1, **common)  # fmt: skip
    size = dict(vocab_size=263, hidden_size=42, intermediate_size=109, num_hidden_layers=5, num_attention_heads=3,
                num_key_value_heads=1, head_dim=14)  # fmt: skip
    if family == "large":
        size |= dict(vocab_size=4099, hidden_size=264, intermediate_size=701, num_hidden_layers=11, head_dim=88)
    return LlamaConfig(architectures=["LlamaForCausalLM"], rms_norm_eps=1e-5, **size, **common)


def shapes(config: PretrainedConfig, bias: bool) -> dict[str, list[int]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    q, kv = head * config.num_attention_heads, head * config.num_key_value_heads
    result = {"model.embed_tokens.weight": [config.vocab_size, hidden], "model.norm.weight": [hidden]}
    if not config.tie_word_embeddings:
        result["lm_head.weight"] = [config.vocab_size, hidden]
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}"
        rows = {"self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
                "self_attn.o_proj": (hidden, q), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
                "mlp.down_proj": (hidden, inner)}  # fmt: skip
        for part, shape in rows.items():
            result[f"{at}.{part}.weight"] = list(shape)
            if bias and part.split(".")[1] in ("q_proj", "k_proj", "v_proj"):
                result[f"{at}.{part}.bias"] = [shape[0]]
        result[f"{at}.input_layernorm.weight"] = [hidden]
        result[f"{at}.post_attention_layernorm.weight"] = [hidden]
    return result


def random(shape: list[int], *seed: str) -> torch.Tensor:
    """Standard normal values that depend on the words of the seed alone."""
    digest = hashlib.sha256("/".join(seed).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    return torch.randn(shape, generator=generator, dtype=F32)


def tensor(family: str, name: str, model: Model, key: str, shape: list[int]) -> torch.Tensor:
    base = random(shape, family, key) * 0.05 + (1.0 if "norm" in key else 0.0)
    if model.spread:
        return (random(shape, family, name, key) * model.spread).to(model.dtype)
    value = base.to(BF16).to(F32) if model.dtype == F32 else base
    if model.noise:
        moved = random(shape, family, name, key, "moved") > -0.8  # the others equal the base
        value = value + random(shape, family, name, key) * model.noise * moved
    if model.extremes:
        odd = torch.tensor(FINITE + (NAN if model.extremes == "nan" else []))[: value.numel()]
        value.view(-1)[: len(odd)] = odd
    return value.to(model.dtype)


def save(folder: pathlib.Path, state: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(state)
    index = {"metadata": {"total_size": sum(t.nbytes for t in state.values())}, "weight_map": {}}
    for i in range(shards):
        part = names[i::shards]  # interleaved: neighbours lie in different files
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        save_file({name: state[name] for name in part}, folder / file, metadata={"format": "pt"})
        index["weight_map"] |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def save_tokenizer(folder: pathlib.Path, name: str, size: int) -> None:
    words = ["<unk>", "<s>", "</s>"] + [f"{name}{i}" for i in range(size - 3)]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)


def make(folder: pathlib.Path, family: str, name: str, model: Model, positions: int) -> None:
    folder.mkdir(parents=True)
    tied = family == "qwen" if model.tied is None else model.tied
    settings = config(family, tied, model.dtype, positions)
    settings.save_pretrained(folder)
    GenerationConfig(bos_token_id=1, eos_token_id=2).save_pretrained(folder)
    save_tokenizer(folder, name, settings.vocab_size)
    table = shapes(settings, bias=family == "qwen")
    save(folder, {key: tensor(family, name, model, key, shape) for key, shape in table.items()}, model.shards)


def make_all(folder: pathlib.Path) -> None:
    for family, members in {"llama": LLAMA, "qwen": QWEN, "large": LARGE}.items():
        for i, (name, model) in enumerate(members.items()):  # positions tell whose config.json was taken
            make(folder / family / name, family, name, model, positions=512 + 8 * i)
