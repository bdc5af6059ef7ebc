"""The random words of DARE and DELLA, written from Philox's paper, and mergekit with them in place of its own."""

import contextlib

import numpy
import xxhash

MASK = 0xFFFFFFFF


def halves(key: int, model: int, which: int, n: int) -> numpy.ndarray:
    """Philox4x32-10's blocks of counters (0, 0, which, model), (1, 0, which, model) ... as n halves of words."""
    blocks = numpy.arange((n + 7) // 8, dtype=numpy.uint64)
    c = [blocks & MASK, blocks >> 32, blocks * 0 + which, blocks * 0 + model]
    low, high = key & MASK, key >> 32
    for _ in range(10):
        a, b = c[0] * numpy.uint64(0xD2511F53), c[2] * numpy.uint64(0xCD9E8D57)
        c = [(b >> 32) ^ c[1] ^ numpy.uint64(low), b & MASK, (a >> 32) ^ c[3] ^ numpy.uint64(high), a & MASK]
        low, high = (low + 0x9E3779B9) & MASK, (high + 0xBB67AE85) & MASK
    return numpy.stack([word >> shift & 0xFFFF for word in c for shift in (0, 16)], 1).reshape(-1)[:n]


def draws(seed: int, name: str, model: int, n: int) -> numpy.ndarray:
    """A word of 32 bits for element i of donor `model` of tensor `name`."""
    key = seed ^ xxhash.xxh64_intdigest(name.encode())
    return halves(key, model, 0, n) << 16 | halves(key, model, 1, n)


@contextlib.contextmanager
def in_mergekit(seed: int = 0):
    """mergekit keeps an element where its word is below the probability that mergekit has found for it."""
    import torch
    from mergekit.merge_methods import generalized_task_arithmetic as task

    merge_group, sparsify, bernoulli = task.GeneralizedTaskArithmeticMerge.merge_group, task.sparsify, torch.bernoulli
    name, donor = "", -1

    def merge_named(self, group, /, **parameters):
        nonlocal name, donor
        name, donor = group.metadata.name, -1
        return merge_group(self, group, **parameters)

    def sparsify_next(*args, **options):
        nonlocal donor
        donor += 1
        return sparsify(*args, **options)

    def draw(probabilities):
        words = draws(seed, name, donor, probabilities.numel())
        kept = words / 2.0**32 < probabilities.double().numpy().reshape(-1)
        return torch.from_numpy(kept).reshape(probabilities.shape).to(probabilities.dtype)

    task.GeneralizedTaskArithmeticMerge.merge_group = merge_named
    task.sparsify, torch.bernoulli = sparsify_next, draw
    try:
        yield
    finally:
        task.GeneralizedTaskArithmeticMerge.merge_group = merge_group
        task.sparsify, torch.bernoulli = sparsify, bernoulli
