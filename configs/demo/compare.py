"""Compare a mounted merge with the formula: compare.py MOUNT MODELS CHAT MATH

    base + CHAT (chat - base) + MATH (math - base)

A bfloat16 merge rounds to bfloat16 after every operation, and so does this page of numpy: the bits must be equal. The
formula in float64, without those roundings, is shown beside it.
"""

import pathlib
import sys
import time

import numpy
from safetensors import deserialize


def load(folder: pathlib.Path) -> dict[str, numpy.ndarray]:
    """Every tensor, read by the safetensors package; numpy has no bfloat16, so as 16 bits each."""
    return {
        name: numpy.frombuffer(info["data"], numpy.uint16)
        for path in sorted(folder.glob("*.safetensors"))
        for name, info in deserialize(path.read_bytes())
    }


def wide(bits: numpy.ndarray) -> numpy.ndarray:
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)


def rounded(x: numpy.ndarray) -> numpy.ndarray:
    """Float32 values as the nearest that bfloat16 has, ties to even."""
    bits = x.view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(numpy.uint32).view(numpy.float32)


def formula(base, donors, weights) -> numpy.ndarray:
    total = numpy.zeros_like(base)
    for donor, weight in zip(donors, weights):
        scale = rounded(numpy.array([weight], numpy.float32))
        total += rounded(scale * rounded(donor - base))
    return rounded(base + rounded(total))


def main() -> int:
    mount, models = map(pathlib.Path, sys.argv[1:3])
    weights = [float(word) for word in sys.argv[3:]]
    start = time.monotonic()
    merged = load(mount)
    seconds = time.monotonic() - start
    base, *donors = (load(models / name) for name in ("base", "chat", "math"))
    n = same = 0
    worst = at = 0.0
    for name, bits in merged.items():
        b, *d = (wide(model[name]) for model in (base, *donors))
        ours = wide(bits)
        exact = b + sum(w * (x.astype(float) - b) for w, x in zip(weights, d))
        n += bits.size
        same += int((formula(b, d, weights).view(numpy.uint32) == ours.view(numpy.uint32)).sum())
        away = numpy.abs(ours - exact)
        i = away.argmax()
        if away[i] > worst:
            worst, at = float(away[i]), float(exact[i])
    size = sum(bits.nbytes for bits in merged.values())
    print(f"  read by safetensors: {len(merged)} tensors, {size / 1e6:.0f} MB in {seconds:.2f} s")
    print(f"  the formula in numpy, rounding to bfloat16 as it goes: {same} of {n} values have the same bits")
    step = 2.0 ** (numpy.frexp(at)[1] - 8)
    print(f"  the formula without rounding: {worst:.4f} away at most, at {at:.4f}, where bfloat16 steps by {step:.4f}")
    return 0 if same == n else 1


if __name__ == "__main__":
    sys.exit(main())
