"""Write fp8.h: every FP8 value as torch has it, and scaled weights as transformers dequantises them."""

import pathlib

import torch
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

KINDS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2,
         "e4m3_fnuz": torch.float8_e4m3fnuz, "e5m2_fnuz": torch.float8_e5m2fnuz}  # fmt: skip


def words(name: str, kind: str, values) -> str:
    text = f"static const {kind} golden_{name}[] = {{"
    for i, value in enumerate(values):
        text += ("\n    " if i % 12 == 0 else " ") + f"{value:#x},"
    return text + "\n};\n"


def bits(tensor: torch.Tensor) -> list[int]:
    kind, mask = (torch.int16, 0xFFFF) if tensor.element_size() == 2 else (torch.int32, 0xFFFFFFFF)
    return [value & mask for value in tensor.contiguous().view(kind).flatten().tolist()]


def main() -> None:
    text = "/* Made by make_fp8.py. bfloat16 and float32 by their bits. */\n"
    for name, dtype in KINDS.items():
        every = torch.arange(256, dtype=torch.uint8).view(dtype).to(torch.bfloat16)
        text += words(name, "uint16_t", bits(every))
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(2, 6, 8, generator=generator).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 3, 2, generator=generator) + 0.01  # blocks of 2 x 4
    text += words("weight", "uint8_t", weight.view(torch.uint8).flatten().tolist())
    text += words("scale", "uint32_t", bits(scale))
    for name, dtype in {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}.items():
        kind = "uint32_t" if name == "f32" else "uint16_t"
        text += words(f"scaled_{name}", kind, bits(Fp8Dequantize(None)._dequantize_one(weight, scale, dtype)))
    pathlib.Path(__file__).with_name("fp8.h").write_text(text)


main()
