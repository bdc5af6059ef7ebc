"""What methods mean, in float64: the judge where a reduction lets meldfs and mergekit differ.

Each function takes base (or None), donors and parameters as float64 arrays and numbers, and `round`, which rounds to
the type merged in. It gives the result, and which elements it is sure of: where a choice (a sign, a threshold) hangs
on the last bits of a rounded sum, either answer is right. Choices that hang on no reduction are made on the rounded
differences, as the methods define them.
"""

import numpy
import torch

TINY = 1e-300
CLOSE = {2: 2.0**-6, 4: 2.0**-20, 8: 2.0**-40}  # a choice within so much of its threshold is not sure; by bytes of the type


def all_of(result: numpy.ndarray) -> tuple:
    return result, numpy.ones(result.shape, bool)


def norm(x, axis=None):
    return numpy.sqrt(numpy.sum(x * x, axis=axis, keepdims=axis is not None))


def top(size: numpy.ndarray, count: int) -> numpy.ndarray:
    """Mask of the `count` largest, the first of equals."""
    mask = numpy.zeros(size.size, bool)
    mask[numpy.argsort(-size.ravel(), kind="stable")[:count]] = True
    return mask.reshape(size.shape)


def pruned(round, delta, density, gamma=None):
    """Mask of ties (gamma None) and of breadcrumbs; None: nothing is pruned."""
    size, n = numpy.abs(round(delta)).astype(numpy.float32), delta.size  # mergekit sorts float32
    if density >= 1:
        return None
    if gamma is None:
        return top(size, max(1, int(density * n)) if density > 0 else 0)
    count, above = int(density * n), int(gamma * n)
    mask, first = numpy.zeros(n, bool), max(0, n - count - above)
    mask[numpy.argsort(size.ravel(), kind="stable")[first : first + count]] = True
    return mask.reshape(delta.shape)


def sparse(round, delta, mask, rescale):
    if mask is None:
        return delta
    kept = delta * mask
    before, after = numpy.abs(delta).sum(), numpy.abs(kept).sum()
    return kept * (before / after) if rescale and before >= 1e-7 and after >= 1e-7 else kept


def elected(parts, width):
    """The sign of the sum, zero being positive, and where that is sure."""
    total = sum(parts)
    return numpy.where(total >= 0, 1, -1), (numpy.abs(total) > CLOSE[width] * sum(map(abs, parts))) | (total == 0)


def task(round, width, base, donors, weight, density=None, gamma=None, normalize=False, rescale=False, consensus=False,
         **more):  # fmt: skip
    deltas = []
    for i, donor in enumerate(donors):
        mask = pruned(round, donor - base, 1 if density is None else density[i], gamma[i] if gamma else None)
        deltas.append(sparse(round, donor - base, mask, rescale))
    weights = [round(numpy.float64(w)) for w in weight[: len(donors)]]
    parts = [delta * w for delta, w in zip(deltas, weights)]
    sign, sure = elected(parts, width) if consensus else (0, numpy.ones(base.shape, bool))
    agrees = [numpy.sign(part) == sign if consensus else numpy.ones(base.shape) for part in parts]
    moved = sum(part * agree for part, agree in zip(parts, agrees)) * numpy.ones(base.shape)
    divisor = sum(w * agree for w, agree in zip(weights, agrees)) * numpy.ones(base.shape)
    if normalize:
        moved = moved / numpy.where(divisor == 0, 1, divisor)
    return base + moved * more.get("lambda", 1), sure


def ties(round, width, base, donors, normalize=True, **parameters):
    return task(round, width, base, donors, normalize=normalize, consensus=True, **parameters)


def breadcrumbs(round, width, base, donors, density=(1,) * 5, gamma=(0.01,) * 5, **parameters):
    return task(round, width, base, donors, density=density, gamma=gamma, **parameters)


def breadcrumbs_ties(round, width, base, donors, **parameters):
    return breadcrumbs(round, width, base, donors, consensus=True, **parameters)


def sce(round, width, base, donors, select_topk=1.0, int8_mask=False):
    deltas, sure = [round(donor - base) for donor in donors], numpy.ones(base.shape, bool)
    if select_topk < 1:
        spread = numpy.var(deltas, axis=0)
        count = int(numpy.float32(numpy.count_nonzero(spread)) * numpy.float32(max(select_topk, 0)))
        mask = top(spread, count)
        if 0 < count < spread.size:
            sure = numpy.abs(spread - spread[mask].min()) > CLOSE[width] * spread[mask].min()
        deltas = [delta * mask for delta in deltas]
    sign, certain = elected(deltas, width)
    weights = numpy.array([numpy.mean(delta * delta) for delta in deltas])
    total = round(weights.sum())
    weights = weights / weights.sum() if total >= 1e-6 else numpy.full(len(donors), 1 / len(donors))
    if abs(total - 1e-6) < CLOSE[width] * 1e-6:
        sure = numpy.zeros(base.shape, bool)
    weights = [w * (numpy.sign(delta) == sign) for w, delta in zip(weights, deltas)]
    divisor = numpy.maximum(sum(weights), round(numpy.float64(1e-6)))
    return base + sum(delta * w for delta, w in zip(deltas, weights)) / divisor, sure & certain


def slerp(round, width, base, donors, t):
    (donor,) = donors
    units = [x / (norm(x) if norm(x) > 1e-8 else 1) for x in (base, donor)]
    dot = numpy.clip(numpy.sum(units[0] * units[1]), -1, 1)
    sure = numpy.full(base.shape, abs(abs(dot) - 0.9995) > 1e-6)
    if abs(dot) > 0.9995:
        return (1 - t) * base + t * donor, sure
    angle = numpy.arccos(dot)
    return (numpy.sin((1 - t) * angle) * base + numpy.sin(t * angle) * donor) / numpy.sin(angle), sure


def nuslerp(round, width, base, donors, weight, nuslerp_flatten=True, nuslerp_row_wise=False):
    t = 0.5 if abs(weight[0] + weight[1]) < 1e-6 else weight[1] / (weight[0] + weight[1])
    a, b = donors if base is None else [donor - base for donor in donors]
    axis = tuple(range(a.ndim)) if nuslerp_flatten else 0 if nuslerp_row_wise else -1
    units = [x / numpy.maximum(norm(x, axis), 1e-7) for x in (a, b)]
    cosine = numpy.clip(numpy.sum(units[0] * units[1], axis=axis, keepdims=True), -1, 1)
    straight = 1 - cosine * cosine <= 1e-16
    angle = numpy.arccos(numpy.where(straight, 0, cosine))
    turned = (numpy.sin((1 - t) * angle) * a + numpy.sin(t * angle) * b) / numpy.sin(angle)
    result = numpy.where(straight, (1 - t) * a + t * b, turned)
    # 1 - cos^2 is 0 once the cosine rounds to 1
    sure = (numpy.abs(cosine) < 1 - CLOSE[width]) | (numpy.abs(cosine) >= 1 - TINY)
    return result if base is None else base + result, sure & numpy.ones(a.shape, bool)


def multislerp(round, width, base, donors, weight, normalize_weights=True, eps=1e-8):
    if len(donors) == 1:
        return all_of(donors[0])
    deltas = [donor - (0 if base is None else base) for donor in donors]
    weights = [round(numpy.float64(w)) for w in weight[: len(donors)]]
    if normalize_weights:
        weights = [w / sum(weights) for w in weights]
    norms = [norm(delta) for delta in deltas]
    units = [delta / (n + eps) if n else delta for delta, n in zip(deltas, norms)]
    mean = sum(unit * w for unit, w in zip(units, weights))
    origin = 0 if base is None else base
    sure = numpy.full(deltas[0].shape, not 0 < norm(mean) < 1e-3)
    if norm(mean) < eps:
        return sum(delta * w for delta, w in zip(deltas, weights)) + origin, sure
    mean = mean / norm(mean)
    tangent = sum((unit - numpy.sum(unit * mean) * mean) * w for unit, w in zip(units, weights))
    length = norm(tangent) + eps
    result = mean * numpy.cos(length) + tangent * (numpy.sin(length) / length)
    return result * sum(n * w for n, w in zip(norms, weights)) + origin, sure


def karcher(round, width, base, donors, max_iter=10, tol=1e-5):
    donors = donors + ([] if base is None else [base])
    if len(donors) == 1:
        return all_of(donors[0])
    norms = [norm(donor) for donor in donors]
    units = [donor / n for donor, n in zip(donors, norms) if n > tol]
    if not units:
        return all_of(numpy.zeros(donors[0].shape))
    mean = sum(units) / len(units)
    mean = units[0] if norm(mean) < tol else mean / norm(mean)
    for _ in range(max_iter):
        tangent = numpy.zeros(mean.shape)
        for unit in units:
            dot = numpy.clip(numpy.sum(mean * unit), -1, 1)
            angle = numpy.arccos(dot)
            if angle >= tol:
                tangent = tangent + angle / numpy.sin(angle) * (unit - dot * mean) / len(units)
        length = norm(tangent)
        if length < tol:
            break
        mean = numpy.cos(length) * mean + numpy.sin(length) * tangent / length
        mean = mean / norm(mean) if norm(mean) > tol else mean
    return all_of(numpy.mean(norms) * mean)


def model_stock(round, width, base, donors, filter_wise=False):
    shape = base.shape
    flat = [x if filter_wise and x.ndim > 1 else x.reshape(1, -1) for x in [base, *donors]]
    base, donors, n = flat[0], flat[1:], len(donors)
    deltas = [donor - base for donor in donors]
    pairs = [(a, b) for i, a in enumerate(deltas) for b in deltas[i + 1 :]]
    cosines = [numpy.sum(a * b, -1, keepdims=True) / numpy.maximum(norm(a, -1) * norm(b, -1), 1e-6) for a, b in pairs]
    cosine = numpy.mean([numpy.clip(c, -1, 1) for c in cosines], axis=0)
    divisor = 1 + (n - 1) * cosine
    singular = numpy.abs(divisor) < 1e-6
    t = numpy.where(singular, 0, n * cosine / numpy.where(singular, 1, divisor))
    sure = (numpy.abs(divisor) > 0.05) & numpy.ones(base.shape, bool)
    return (t * (sum(donors) / n) + (1 - t) * base).reshape(shape), sure.reshape(shape)


def arcee_fusion(round, width, base, donors):
    """The mask hangs on differences of logarithms of nearly equal numbers: sure of little."""
    (donor,) = donors
    p, q = [x - x.max(-1, keepdims=True) for x in (donor, base)]
    p, q = [numpy.exp(x) / numpy.exp(x).sum(-1, keepdims=True) + 1e-8 for x in (p, q)]
    importance = numpy.abs(donor - base) * numpy.sum(p * numpy.log(p / q), -1, keepdims=True)
    ordered = numpy.sort(importance.ravel())
    low, middle, high = (ordered[int(q * (ordered.size - 1))] for q in (0.25, 0.5, 0.75))
    return all_of(base + (donor - base) * (importance >= middle + 1.5 * (high - low)))


def rounding(dtype: torch.dtype) -> float:
    """What one rounding to dtype moves a value by, at most, in parts of it."""
    return torch.finfo(dtype).eps


def of(method: str, work: torch.dtype, base, donors, parameters: dict) -> tuple:
    """The true result of a merge in the type `work`, and where it is sure."""

    def round(x):
        return torch.from_numpy(numpy.asarray(x, numpy.float64)).to(work).double().numpy()

    with numpy.errstate(all="ignore"):
        return globals()[method](round, work.itemsize, base, donors, **parameters)
