"""Writes vectors of methods: inputs, parameters and what mergekit makes of them.

    python make_vectors.py elementwise.bin           the cases that are kept beside this file
    python make_vectors.py --sparse sparse.bin       those of ties, breadcrumbs, sce, ram and their like
    python make_vectors.py --broad SEED other.bin    some thousand random ones, for test_method other.bin
    python make_vectors.py --broad SEED --sparse other.bin    for test_method_sparse other.bin

The methods of --sparse sort, here stably: torch's own order of equals is an accident of its C++ library.

Needs mergekit 0.1.5 and torch, CPU, and pins torch to one thread. Layout, little-endian:

    8 bytes "MELDVEC1", u32 number of cases; each case
    text method; u8 work, result, out (types: 0 F32, 1 BF16, 2 F16, 3 F64)
    u8 inputs; i8 base, -1 none; u8 type of each input; u8 dimensions, u32 each
    u8 parameters, each: text name; u8 values (0: one shared; else as many as inputs, NaN none), f64 each
    each input's elements, then the output's
    text: u8 length and bytes
"""
import argparse
import itertools
import random
import struct
import warnings

import torch
from mergekit.merge_methods import merge_tensors

F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
CODE = {F32: 0, BF16: 1, F16: 2, F64: 3}
WORK = (F32, BF16, F16)
NAN = float("nan")
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1.5, 3e38, -3e38, 65504.0, -65504.0, 1e-8, -6e-8, 6.1e-5, 1e-40, -1e-45,
           float("inf"), float("-inf"), NAN]


def text(name):
    return struct.pack("<B", len(name)) + name.encode()


def raw(tensor):
    flat = tensor.detach().contiguous().reshape(-1)
    as_integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()]
    return flat.view(as_integers).numpy().tobytes()


class Vectors:
    def __init__(self):
        self.cases = []

    def add(self, method, inputs, base=None, work=None, out=None, shared={}, per_input={}):
        """per_input: lists over the inputs; None is none. Parameters of the base are left out for mergekit."""
        given = dict(shared)
        for name, values in per_input.items():
            given[name] = [v for i, v in enumerate(values) if i != base]
        result = merge_tensors(inputs, method, parameters=given, base_index=base, dtype=work, out_dtype=out)
        if work is None:
            work = inputs[0].dtype
            for tensor in inputs:
                work = torch.promote_types(work, tensor.dtype)
        made = F32 if method == "ramplus_tl" and len(inputs) > 1 else work
        case = text(method) + struct.pack("<BBB", CODE[work], CODE[made], CODE[result.dtype])
        case += struct.pack("<Bb", len(inputs), -1 if base is None else base)
        case += bytes(CODE[tensor.dtype] for tensor in inputs)
        case += struct.pack("<B", inputs[0].dim()) + b"".join(struct.pack("<I", n) for n in inputs[0].shape)
        case += struct.pack("<B", len(shared) + len(per_input))
        for name, value in shared.items():
            case += text(name) + struct.pack("<Bd", 0, float(value))
        for name, values in per_input.items():
            numbers = [NAN if v is None or i == base else float(v) for i, v in enumerate(values)]
            case += text(name) + struct.pack("<B", len(numbers)) + struct.pack(f"<{len(numbers)}d", *numbers)
        self.cases.append(case + b"".join(raw(tensor) for tensor in inputs) + raw(result))

    def write(self, path):
        with open(path, "wb") as file:
            file.write(b"MELDVEC1" + struct.pack("<I", len(self.cases)) + b"".join(self.cases))


def models(n, shape, dtypes, spread=0.01, wide=False):
    """A base and n - 1 tensors near it, with equal elements, zeros of both signs; wide: any magnitude."""
    base = torch.randn(shape) * (torch.exp2(torch.randint(-12, 12, shape).float()) if wide else 0.05)
    made = [base]
    for _ in range(n - 1):
        made.append(base + torch.randn(shape) * spread * (base.abs() + 0.01) * 4)
    for i, tensor in enumerate(made):
        flat = tensor.view(-1)
        flat[i::13] = base.reshape(-1)[i::13].clone()
        flat[i::29] = -0.0 if i % 2 else 0.0
    return [tensor.to(dtypes[i % len(dtypes)]) for i, tensor in enumerate(made)]


def specials(n, dtype):
    """Every special value against every other (and rotated against the third and on)."""
    a, b = (torch.tensor(x) for x in zip(*itertools.product(SPECIAL, SPECIAL)))
    return [a.to(dtype), b.to(dtype)] + [b.roll(7 * i).to(dtype) for i in range(1, n - 1)]


WEIGHTS = [[0.7], [1.0, 0.3], [0.5, -0.25, 0.8], [0.4, -0.3, 0.7, 1.1], [0.3, 0.2, 0.9, -0.1, 0.6]]


def weights(n):
    return list(WEIGHTS[n - 1]) if n <= 5 else [round(random.uniform(-0.5, 1.5), 3) for _ in range(n)]


def kept(vectors):
    for dtype in WORK:
        for n in (1, 2, 3, 5):
            for normalize in (True, False):
                vectors.add("linear", models(n, (3, 31), [dtype]), shared={"normalize": normalize},
                            per_input={"weight": weights(n)})
        vectors.add("linear", models(9, (70,), [dtype]), per_input={"weight": weights(9)})
        vectors.add("linear", models(2, (40,), [dtype]), per_input={"weight": [1.0, -1.0]})
        vectors.add("linear", specials(2, dtype), per_input={"weight": [0.75, 0.5]})
        for scale in (None, 1.3, -0.1, 0.0, 1e30):
            vectors.add("passthrough", models(1, (5, 17), [dtype]), per_input={"scale": [scale]})
        vectors.add("passthrough", specials(2, dtype)[:1], per_input={"scale": [1.7]})
        for n in (1, 2, 3, 4, 5):
            for shared in ({}, {"normalize": True}, {"lambda": 0.7}, {"normalize": True, "lambda": 1.3}):
                vectors.add("task_arithmetic", models(n + 1, (2, 3, 13), [dtype], wide=n > 3), base=0,
                            shared=shared, per_input={"weight": [None] + weights(n)})
        vectors.add("task_arithmetic", models(3, (50,), [dtype]), base=2, shared={"normalize": True},
                    per_input={"weight": [1.0, -1.0, None]})
        vectors.add("task_arithmetic", models(3, (50,), [dtype]), base=1,
                    per_input={"weight": [0.0, None, 0.5]})
        vectors.add("task_arithmetic", models(1, (20,), [dtype]), base=0, per_input={"weight": [None]})
        for n, size in ((6, 1), (9, 1), (17, 1), (5, 7), (7, 9), (6, 15), (18, 33), (40, 35)):
            vectors.add("task_arithmetic", models(n + 1, (size,), [dtype], wide=True), base=0,
                        shared={"normalize": True}, per_input={"weight": [None] + weights(n)})
        vectors.add("task_arithmetic", specials(2, dtype), base=0, per_input={"weight": [None, 1.0]})
        vectors.add("task_arithmetic", specials(3, dtype), base=1, shared={"lambda": 0.5},
                    per_input={"weight": [-0.0, None, 0.6]})
        for t in (1e-4, 1e-2, 1.0, -0.5):
            vectors.add("nearswap", models(2, (3, 41), [dtype], spread=0.003), base=0, shared={"t": t})
        vectors.add("nearswap", models(2, (77,), [dtype], spread=0.003), base=1, shared={"t": 1e-3})
    for dtype in (F32, BF16):  # float16 differs there: mergekit's 1/d overflows
        vectors.add("nearswap", models(2, (99,), [dtype], spread=0.003), base=0, shared={"t": 0.0})
        vectors.add("nearswap", specials(2, dtype), base=0, shared={"t": 0.01})
    for out in (F32, BF16, F16, F64):
        for work in (None,) + WORK:
            vectors.add("task_arithmetic", models(3, (75,), [BF16, F16, BF16]), base=0, work=work, out=out,
                        per_input={"weight": [None, 1.0, 0.6]})
            vectors.add("linear", models(3, (45,), [F32, BF16]), work=work, out=out,
                        per_input={"weight": [0.2, 0.3, 0.7]})
    for work in WORK:
        vectors.add("linear", models(2, (45,), [F64, F16]), work=work, out=BF16,
                    per_input={"weight": [0.2, 0.9]})
        vectors.add("passthrough", models(1, (45,), [F64]), work=work, out=F16, per_input={"scale": [1.1]})


def broad_case(vectors):
    n, dims = random.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 33, 70)), random.randint(1, 3)
    shape = tuple(random.choice((1, 2, 3, 5, 7, 8, 16, 31, 32, 33)) for _ in range(dims))
    if random.random() < 0.2:
        shape = (random.choice((1, 4, 9, 1023, 1024, 1025, 2048, 2080, 4097, 5000)),)
    dtype, wide = random.choice(WORK), random.random() < 0.5
    dtypes = [dtype] if random.random() < 0.7 else random.sample((F32, BF16, F16, F64), 2)
    out = random.choice((None, F32, BF16, F16))
    spread = random.choice((0.003, 0.1, 1.0))
    method = random.choice(("linear", "passthrough", "task_arithmetic", "task_arithmetic", "nearswap"))
    if method == "linear":
        vectors.add(method, models(n, shape, dtypes, spread, wide), work=dtype, out=out,
                    shared={"normalize": random.random() < 0.7}, per_input={"weight": weights(n)})
    elif method == "passthrough":
        vectors.add(method, models(1, shape, dtypes, spread, wide), work=dtype, out=out,
                    per_input={"scale": [random.choice((None, 0.3, 1.0, -7.5))]})
    elif method == "task_arithmetic":
        base = random.randint(0, n)
        w = weights(n)
        w.insert(base, None)
        vectors.add(method, models(n + 1, shape, dtypes, spread, wide), base=base, work=dtype, out=out,
                    shared={"normalize": random.random() < 0.5, "lambda": random.choice((1.0, 1.0, 0.3))},
                    per_input={"weight": w})
    else:
        t = random.choice((1e-4, 1e-2, 1.0))
        vectors.add(method, models(2, shape, dtypes, spread, wide), base=random.randint(0, 1), work=dtype,
                    out=out, shared={"t": t})


def sort_stably():
    argsort, sort = torch.argsort, torch.sort

    def topk(x, k, largest=True):
        ordered = sort(x, descending=largest, stable=True)
        return ordered.values[:k], ordered.indices[:k]

    torch.argsort = lambda x, dim=-1, descending=False: argsort(x, dim=dim, descending=descending, stable=True)
    torch.sort = lambda x, dim=-1, descending=False: sort(x, dim=dim, descending=descending, stable=True)
    torch.topk = topk


def equal_models(n, shape, dtype, steps=4):
    """As models, with so few magnitudes of deltas that every cut is among equals."""
    base = torch.randint(-8, 8, shape).float() / 16
    made = [base] + [base + torch.randint(-steps, steps + 1, shape).float() / 64 for _ in range(n - 1)]
    return [tensor.to(dtype) for tensor in made]


def few_specials(n, dtype):
    return [tensor[1::3].clone() for tensor in specials(n, dtype)]


DENSITIES = [[0.5], [0.3, 0.7], [0.99, 0.01, 0.5], [0.2, 1.0, 0.0, 0.6], [0.53, 0.1, 0.9, 1.0, 0.001]]
GAMMAS = [[0.01], [0.1, 0.02], [0.05, 0.3, 0.01], [0.1, 0.1, 0.9, 0.0], [0.01, 0.5, 0.2, 0.1, 0.05]]


def of_donors(values):
    return [None] + list(values)


def pruned(vectors, method, inputs, densities, gammas=None, w=None, shared={}):
    n = len(inputs) - 1
    per_input = {"weight": of_donors(w or weights(n)), "density": of_donors(densities)}
    if method.startswith("breadcrumbs"):
        per_input["gamma"] = of_donors(gammas or GAMMAS[n - 1])
    vectors.add(method, inputs, base=0, shared=shared, per_input=per_input)


def kept_pruned(vectors, dtype):
    for method in ("ties", "breadcrumbs", "breadcrumbs_ties"):
        for n in (1, 2, 3, 5):
            pruned(vectors, method, models(n + 1, (3, 31), [dtype], spread=0.1), DENSITIES[n - 1])
        pruned(vectors, method, models(3, (2, 3, 13), [dtype]), DENSITIES[1],
               shared={"normalize": False, "lambda": 0.7})
        pruned(vectors, method, models(3, (77,), [dtype]), [1.0, 1.0], shared={"normalize": True})
        pruned(vectors, method, models(2, (1,), [dtype]), [0.5])
        for density in (0.0, 1e-6, 0.5, 0.99, -1.0):
            pruned(vectors, method, equal_models(3, (101,), dtype), [density] * 2, w=[0.5, -0.75])
        pruned(vectors, method, equal_models(4, (5, 1, 19), dtype, 1), [0.4, 0.6, 0.8], w=[0.0, 1.0, -1.0])
        pruned(vectors, method, few_specials(2, dtype), [0.3])
        pruned(vectors, method, few_specials(3, dtype), [0.99, 0.01], w=[0.5, -1.0])
    for gamma in (0.0, 0.3, 0.7, 1.0, 2.0):
        pruned(vectors, "breadcrumbs", equal_models(2, (64,), dtype), [0.5], [gamma])
    for method in ("dare_linear", "dare_ties", "della", "della_linear"):
        pruned(vectors, method, models(4, (3, 17), [dtype]), [1.0, 1.0, 1.0])
    pruned(vectors, "della", models(3, (3, 17), [dtype]), [1.0, 0.0])


def kept_others(vectors, dtype):
    for n in (1, 2, 3, 5):
        inputs = models(n + 1, (4, 23), [dtype], spread=0.1)
        vectors.add("ram", inputs, base=0)
        vectors.add("ram", inputs, base=0, shared={"epsilon": 2e-3})
        vectors.add("ramplus_tl", inputs, base=0, shared={"epsilon": 2e-3, "r": 0.3, "alpha": 0.5})
        if dtype != F32 or n > 1:
            vectors.add("sce", inputs, base=0)
    vectors.add("ramplus_tl", models(3, (50,), [dtype]), base=2)
    vectors.add("ram", few_specials(3, dtype), base=0)
    vectors.add("ramplus_tl", few_specials(3, dtype), base=1)
    for method in ("ram", "ramplus_tl", "sce"):
        vectors.add(method, models(1, (9,), [dtype]), base=0)
        vectors.add(method, models(3, (1,), [dtype]), base=0)
    for topk in (0.0, 1e-6, 0.15, 0.5, 0.8, 0.99, -1.0):
        vectors.add("sce", equal_models(3, (7, 13), dtype), base=0, shared={"select_topk": topk})
        vectors.add("sce", equal_models(4, (91,), dtype, 1), base=1, shared={"select_topk": topk})
    vectors.add("sce", few_specials(3, dtype), base=0, shared={"select_topk": 0.4})
    vectors.add("sce", equal_models(3, (60,), dtype, 0), base=0)


def kept_sparse(vectors):
    for dtype in WORK:
        kept_pruned(vectors, dtype)
        kept_others(vectors, dtype)
    for method in ("ties", "breadcrumbs", "breadcrumbs_ties"):
        pruned(vectors, method, models(4, (6, 25), [BF16]), DENSITIES[2], shared={"rescale": True})
        pruned(vectors, method, models(3, (6, 25), [BF16]), [0.0, 1.0], shared={"rescale": True})
    for n in (2, 3):
        vectors.add("sce", models(n + 1, (9, 21), [BF16], spread=0.1), base=0, shared={"select_topk": 0.4})


def broad_sparse_case(vectors):
    n, dims = random.choice((1, 2, 3, 4, 5, 6, 9, 17)), random.randint(1, 3)
    shape = tuple(random.choice((1, 2, 3, 5, 8, 16, 31, 33)) for _ in range(dims))
    if random.random() < 0.3:
        shape = (random.choice((1, 4, 1023, 1024, 1025, 4097, 70000)),)
    dtype = random.choice(WORK)
    if random.random() < 0.4:
        inputs = equal_models(n + 1, shape, dtype, random.choice((1, 2, 9)))
    else:
        inputs = models(n + 1, shape, [dtype], random.choice((0.003, 0.1, 1.0)), random.random() < 0.3)
    method = random.choice(("ties", "breadcrumbs", "breadcrumbs_ties", "ram", "ramplus_tl"))
    if method.startswith("ram"):
        vectors.add(method, inputs, base=random.randint(0, n), shared={"epsilon": random.choice((1e-5, 2e-3))})
        return
    shared = {"normalize": random.random() < 0.5, "lambda": random.choice((1.0, 1.0, 0.3))}
    densities = [random.choice((0.0, 1e-6, 0.5, 0.99, 1.0, round(random.random(), 3))) for _ in range(n)]
    gammas = [random.choice((0.0, 0.01, 0.3, round(random.random(), 3))) for _ in range(n)]
    pruned(vectors, method, inputs, densities, gammas, shared=shared)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--broad", type=int, metavar="SEED")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--sparse", action="store_true")
    parser.add_argument("file")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(args.broad or 0)
    random.seed(args.broad or 0)
    vectors = Vectors()
    if args.sparse:
        sort_stably()
    if args.broad is None:
        (kept_sparse if args.sparse else kept)(vectors)
    else:
        for _ in range(args.cases):
            (broad_sparse_case if args.sparse else broad_case)(vectors)
    vectors.write(args.file)
    print(len(vectors.cases), "cases")


if __name__ == "__main__":
    main()
