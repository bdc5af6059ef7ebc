"""The numeric primitives one by one, by instruction set, beside memcpy and a build that is not vectorised."""

import json
import subprocess

from .context import Bench
from .measure import Result, skipped

TASK = "task_bf16[2]"
TASK_TARGETS = {"avx2": 4, "avx512": 6, "avx512_bf16": 6}  # GB/s of output
PLACES = {"l2": "in L2", "memory": "in memory"}


def measure(bench: Bench, place: str) -> list[dict]:
    words = [bench.build / "tests/bench/bench_kernel", place]
    done = subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def kernel_rows(place: str, found: list[dict]) -> list[Result]:
    rows = []
    for name in dict.fromkeys(entry["name"] for entry in found):
        rates = {entry["isa"]: entry["gb_s"] for entry in found if entry["name"] == name}
        copy = next(entry["memcpy_gb_s"] for entry in found if entry["name"] == name)
        scalar = rates.pop("scalar")
        best = max(rates.values())
        rows.append(Result(
            f"kernel {name} {PLACES[place]}", ", ".join(f"{isa} {rate:.1f}" for isa, rate in rates.items()) + " GB/s",
            f"scalar {scalar:.1f}, memcpy {copy:.1f} GB/s", best / scalar, figures=rates | {"scalar": scalar,
                                                                                           "memcpy": copy}))  # fmt: skip
    return rows


def target_rows(found: list[dict]) -> list[Result]:
    rows = []
    for isa, target in TASK_TARGETS.items():
        rates = [entry["out_gb_s"] for entry in found if entry["name"] == TASK and entry["isa"] == isa]
        name = f"kernel task_arithmetic {isa}"
        if not rates:
            rows.append(skipped(name, "not in this build, or this CPU lacks it"))
            continue
        rows.append(Result(name, f"{rates[0]:.2f} GB/s", "of output, 2 donors, bfloat16, in L2", rates[0] / target, 1,
                           f"at least {target} GB/s", {"out_gb_s": rates[0]}))  # fmt: skip
    return rows


def place_row(place: str):
    def row(bench: Bench) -> list[Result]:
        found = measure(bench, place)
        return kernel_rows(place, found) + (target_rows(found) if place == "l2" else [])

    return row


ROWS = {"kernel": {place: place_row(place) for place in PLACES}}
