"""Writes vectors of the methods of norms and dots (slerp, nuslerp, multislerp, karcher, model_stock, arcee_fusion).

    python make_norm_vectors.py norm.bin             the cases that are kept beside this file
    python make_norm_vectors.py --broad SEED x.bin   some hundred random ones, for test_method_norm x.bin

The layout and the requirements are those of make_vectors.py. Where the type of the output is F64 and that of the
arithmetic is not, the output is mergekit's in float64: the truth that roundings are held against.
"""
import argparse
import random
import warnings

import torch
from make_vectors import BF16, F16, F32, F64, WORK, Vectors, models, raw, weights
from mergekit.merge_methods import merge_tensors


class NormVectors(Vectors):
    def add_truth(self, method, inputs, base=None, work=None, shared={}, per_input={}):
        given = dict(shared)
        for name, values in per_input.items():
            given[name] = [v for i, v in enumerate(values) if i != base]
        work = work or inputs[0].dtype
        exact = merge_tensors([x.to(work).to(F64) for x in inputs], method, parameters=given, base_index=base)
        before = len(self.cases)
        self.add(method, inputs, base, work, F64, shared, per_input)
        self.cases[before] = self.cases[before][:len(self.cases[before]) - 8 * exact.numel()] + raw(exact.to(F64))

    def put(self, method, inputs, *args, **keys):
        """In float32, where sums decide, the truth."""
        (self.add_truth if inputs[0].dtype == F32 else self.add)(method, inputs, *args, **keys)


def stable(sort):
    def sorted_stably(x, dim=-1, descending=False, stable=True):
        return sort(x, dim=dim, descending=descending, stable=True)
    return sorted_stably


def far(shape, dtype):
    """A base and a donor far from it."""
    return [(torch.randn(shape) * 0.05).to(dtype) for _ in range(2)]


def opposite(shape, dtype):
    x = (torch.randn(shape) * 0.05).to(dtype)
    return [x, -x]


SHAPES = ((37,), (3, 11), (1, 20), (6, 5), (9, 3), (5, 1), (2, 3, 5), ())


def model_set(n, shape, dtype):
    made = models(n, (1,) if shape == () else shape, [dtype])
    return [x.reshape(shape) for x in made]


def slerp(v, dtype):
    for shape in SHAPES:
        v.put("slerp", far(shape, dtype), base=0, shared={"t": 0.3})
        v.put("slerp", model_set(2, shape, dtype), base=1, shared={"t": 0.6})
    for t in (0.0, 1.0, 0.5, -0.25, 1.5):
        v.add("slerp", far((5, 29), dtype), base=0, shared={"t": t})
    a = far((40,), dtype)
    v.add("slerp", [a[0], torch.zeros_like(a[0])], base=0, shared={"t": 0.4})
    v.add("slerp", [a[0], -a[0]], base=0, shared={"t": 0.4})
    v.add("slerp", far((0, 5), dtype), base=0, shared={"t": 0.4})


def nuslerp(v, dtype):
    for shape in SHAPES:
        for shared in ({}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}):
            v.put("nuslerp", far(shape, dtype), shared=shared, per_input={"weight": [0.6, 0.7]})
            v.put("nuslerp", model_set(3, shape, dtype), base=0, shared=shared,
                  per_input={"weight": [None, 0.9, 0.4]})
    for w in ([1.0, -1.0], [1.0, -0.5], [0.0, 1.0], [0.0, 0.0]):
        v.add("nuslerp", far((5, 29), dtype), per_input={"weight": w})
    if dtype != F32:  # there it takes the last place of a sum to tell whether they are parallel
        v.add("nuslerp", opposite((31,), dtype), per_input={"weight": [0.6, 0.4]})
    v.add("nuslerp", model_set(3, (35,), dtype), base=1, per_input={"weight": [0.9, None, 0.4]})
    v.add("nuslerp", far((0, 5), dtype), shared={"nuslerp_flatten": False}, per_input={"weight": [0.6, 0.7]})


def multislerp(v, dtype):
    for shape in SHAPES:
        for n in (2, 3, 5):
            w = [abs(x) for x in weights(n)]
            if dtype == F16 and shape == ():
                continue  # NaN there: no tangent, and eps is 0
            if n != 3:
                v.put("multislerp", model_set(n, shape, dtype), per_input={"weight": w})
            if n != 5:
                v.put("multislerp", model_set(n + 1, shape, dtype), base=0, per_input={"weight": [None] + w})
    for n in (1, 2, 4):
        w = [abs(x) for x in weights(n)]
        v.add("multislerp", model_set(n, (33,), dtype), per_input={"weight": w})
        v.add("multislerp", model_set(n + 1, (33,), dtype), base=n, shared={"normalize_weights": False},
              per_input={"weight": w + [None]})
    v.add("multislerp", opposite((31,), dtype), shared={"eps": 1e-3}, per_input={"weight": [0.5, 0.5]})
    v.add("multislerp", model_set(3, (31,), dtype), base=0, shared={"eps": 1e-3},
          per_input={"weight": [None, 0.5, 0.7]})


def karcher(v, dtype):
    for shape in SHAPES[::2]:
        for n in (2, 3, 5):
            v.add_truth("karcher", model_set(n, shape, dtype))
    a = far((40,), dtype)
    v.add_truth("karcher", a + far((40,), dtype) + [a[0]])
    v.add_truth("karcher", [torch.zeros_like(a[0]), a[0], a[1]])
    v.add_truth("karcher", [torch.zeros_like(a[0])] * 2)
    v.add_truth("karcher", a, shared={"max_iter": 0})
    v.add_truth("karcher", a + far((40,), dtype), shared={"max_iter": 2, "tol": 1e-3})
    v.add_truth("karcher", [torch.zeros((0, 3), dtype=dtype)] * 2)


def model_stock(v, dtype):
    for shape in SHAPES:
        for n in (2, 3, 5):
            for shared in ({}, {"filter_wise": True}):
                v.put("model_stock", model_set(n + 1, shape, dtype), base=0, shared=shared)
    a = model_set(2, (33,), dtype)
    v.add("model_stock", [a[0], a[1], a[1]], base=0)
    v.add("model_stock", [a[0], a[0], a[0]], base=0)
    v.add("model_stock", [a[1], a[0], (2 * a[0].float() - a[1].float()).to(dtype)], base=1)
    v.add("model_stock", model_set(3, (0, 5), dtype), base=0)


def arcee(v, dtype):
    for shape in SHAPES[::2] + ((2, 257),):
        v.add("arcee_fusion", model_set(2, shape, dtype), base=0)
        v.add("arcee_fusion", [(x.float() * 40).to(dtype) for x in far(shape, dtype)], base=1)


METHODS = {"slerp": slerp, "nuslerp": nuslerp, "multislerp": multislerp, "karcher": karcher,
           "model_stock": model_stock, "arcee_fusion": arcee}


def kept(vectors):
    for dtype in WORK:
        for make in METHODS.values():
            make(vectors, dtype)
    vectors.add("slerp", far((1600,), BF16), base=0, shared={"t": 0.3})
    vectors.add("nuslerp", far((700,), F32), per_input={"weight": [0.6, 0.7]})
    vectors.add("multislerp", models(3, (700,), [BF16]), per_input={"weight": [0.6, 0.7, 0.2]})
    vectors.add("arcee_fusion", models(2, (3, 260), [BF16]), base=0)
    for work in WORK:
        vectors.add("slerp", models(2, (45,), [F32, BF16]), base=0, work=work, out=BF16, shared={"t": 0.3})
        vectors.add("multislerp", models(2, (45,), [F64, F16]), work=work, out=BF16,
                    per_input={"weight": [0.6, 0.7]})
        vectors.add("model_stock", models(3, (45,), [BF16, F32]), base=0, work=work, out=F16)
        if work != F32:  # where an element at the threshold falls on either side
            vectors.add("arcee_fusion", models(2, (4, 45), [BF16]), base=0, work=work, out=BF16)


def broad_case(v):
    n = random.choice((1, 2, 3, 5))
    shape = random.choice(((1000,), (4096,), (33, 65), (1, 700), (64, 64), (17, 257), (3, 20, 31), (300, 1)))
    dtype, spread = random.choice(WORK), random.choice((0.003, 0.1, 1.0))
    method = random.choice(tuple(METHODS))
    base = random.randint(0, n)
    w = [random.uniform(0.1, 1.5) for _ in range(n)]
    with_base = w[:base] + [None] + w[base:]
    pick = lambda k: models(k, shape, [dtype], spread)
    add = lambda *args, **keys: (v.add(*args, **keys), v.add_truth(*args, **keys))
    if method == "slerp":
        add(method, far(shape, dtype) if spread > 0.5 else pick(2), base=base % 2,
            shared={"t": random.uniform(0, 1)})
    elif method == "nuslerp":
        shared = {"nuslerp_flatten": random.random() < 0.5, "nuslerp_row_wise": random.random() < 0.5}
        if random.random() < 0.5:
            add(method, pick(2), shared=shared, per_input={"weight": [0.3, random.random()]})
        else:
            add(method, pick(3), base=0, shared=shared, per_input={"weight": [None, 0.3, random.random()]})
    elif method == "multislerp":
        if random.random() < 0.5:
            add(method, pick(n), per_input={"weight": w})
        else:
            add(method, pick(n + 1), base=base, per_input={"weight": with_base})
    elif method == "karcher":
        add(method, pick(n))
    elif method == "model_stock":
        n = max(n, 2)
        add(method, pick(n + 1), base=base, shared={"filter_wise": random.random() < 0.5})
    else:
        add(method, far(shape, dtype) if spread > 0.5 else pick(2), base=base % 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--broad", type=int, metavar="SEED")
    parser.add_argument("--cases", type=int, default=600)
    parser.add_argument("file")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.sort, torch.argsort = stable(torch.sort), stable(torch.argsort)
    torch.manual_seed(args.broad or 0)
    random.seed(args.broad or 0)
    vectors = NormVectors()
    if args.broad is None:
        kept(vectors)
    else:
        for _ in range(args.cases):
            broad_case(vectors)
    vectors.write(args.file)
    print(len(vectors.cases), "cases")


if __name__ == "__main__":
    main()
