"""Random merge files over the small models of models.py, and smaller ones that still fail.

recipe(seed) is the same dict every time; shrunk(recipe, fails) drops what the failure does not need.
"""

import copy
import random

FILTERS = ["self_attn", "mlp", "q_proj", "norm", "layernorm", "embed_tokens", "lm_head", "layers.1", "layers.3", "bias",
           "weight", "*", "no_such"]  # fmt: skip
LAYERS = {"llama": 5, "qwen": 4}
BASES = {"llama": ["base", "base", "base16", "base32", "other-base"], "qwen": ["base"]}
DONORS = {"llama": ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"], "qwen": ["one", "two", "three", "half"]}
TYPES = ["bfloat16", "bfloat16", "float16", "float32", None]


def spread(low: float, high: float, *special: float):
    """Numbers of two digits between low and high, now and then a special one."""
    return lambda dice: dice.choice(special) if special and dice.random() < 0.3 else round(dice.uniform(low, high), 2)


def flag(dice):
    return dice.random() < 0.5


TASK = {"weight": ("M", spread(-0.6, 1.4, 0.0, 1.0)), "normalize": ("G", flag), "lambda": ("G", spread(-0.5, 1.5, 1.0)),
        "int8_mask": ("G", flag)}  # fmt: skip
PRUNE = TASK | {"density": ("M", spread(0.0, 1.0, 0.0, 1e-4, 0.5, 0.99, 1.0)), "rescale": ("G", flag)}
CRUMBS = PRUNE | {"gamma": ("M", spread(0.0, 0.4, 0.0, 0.01))}
POSITIVE = ("M", spread(0.1, 1.5, 1.0))
# base: required, optional, none, or just another input; least and most donors; parameters by scope and value
METHODS = {
    "linear": ("input", 1, 5, {"weight": ("M", spread(-0.5, 1.5, 0.0, 1.0)), "normalize": ("G", flag)}),
    "passthrough": ("none", 1, 1, {"scale": ("M", spread(-1.0, 2.0, 1.0, 0.0))}),
    "task_arithmetic": ("required", 1, 5, TASK | {"density": PRUNE["density"]}),
    "ties": ("required", 1, 5, PRUNE),
    "breadcrumbs": ("required", 1, 4, CRUMBS),
    "breadcrumbs_ties": ("required", 1, 4, CRUMBS),
    "sce": ("required", 1, 5, {"select_topk": ("G", spread(0.05, 1.0, 0.0, 1.0))}),
    "ram": ("required", 1, 5, {"epsilon": ("G", spread(0.0, 0.05, 1e-5))}),
    "ramplus_tl": ("required", 1, 5, {"epsilon": ("G", spread(0.0, 0.05, 1e-5)), "r": ("G", spread(-0.5, 1.0)),
                                      "alpha": ("G", spread(0.0, 2.0))}),
    "slerp": ("required", 1, 1, {"t": ("G", spread(0.0, 1.0, 0.0, 1.0, 0.5))}),
    "nuslerp": ("optional", 2, 2, {"weight": POSITIVE, "nuslerp_flatten": ("G", flag),
                                   "nuslerp_row_wise": ("G", flag)}),
    "multislerp": ("optional", 1, 4, {"weight": POSITIVE, "normalize_weights": ("G", flag)}),
    "karcher": ("input", 1, 4, {"max_iter": ("G", lambda dice: dice.randrange(1, 20))}),
    "model_stock": ("required", 2, 5, {"filter_wise": ("G", flag)}),
    "nearswap": ("required", 1, 1, {"t": ("G", spread(0.01, 0.1, 1e-3, 1.0))}),
    "arcee_fusion": ("required", 1, 1, {}),
}  # fmt: skip
REQUIRED = {"weight", "t"}


def value(dice, draw):
    """A scalar, a gradient, or filters over them."""
    kind = dice.random()
    if kind < 0.45:
        return draw(dice)
    if kind < 0.65:
        return gradient(dice, draw)
    entries = [{"filter": dice.choice(FILTERS), "value": gradient(dice, draw) if flag(dice) else draw(dice)}
               for _ in range(dice.randrange(1, 4))]  # fmt: skip
    if flag(dice):
        entries.append({"value": draw(dice)})
    return entries[0] if len(entries) == 1 and flag(dice) else entries


def gradient(dice, draw):
    values = [draw(dice) for _ in range(dice.randrange(2, 6))]
    return values if not isinstance(values[0], int) or isinstance(values[0], bool) else values[0]


def parameters(dice, table: dict, scope: str, chance: float) -> dict:
    """Of a model (M), or of a level where both kinds stand (MG)."""
    found = {key: value(dice, draw) for key, (kind, draw) in table.items() if kind in scope and dice.random() < chance}
    return {"parameters": found} if found else {}


def model_list(dice, family: str, method: str) -> tuple[str | None, list[str]]:
    """The base, and the models listed, where the base is or is not."""
    rule, least, most, _ = METHODS[method]
    most = min(most, len(DONORS[family]))
    donors = dice.sample(DONORS[family], dice.randint(least, most))
    if rule == "none" or rule in ("optional", "input") and flag(dice):
        return None, [f"{family}/{name}" for name in donors]
    base = f"{family}/{dice.choice(BASES[family])}"
    models = [f"{family}/{name}" for name in donors]
    if flag(dice):
        models.insert(dice.randint(0, len(models)), base)
    return base, models


def slices(dice, family: str, method: str, base: str | None, models: list[str]) -> list[dict]:
    table = METHODS[method][3]
    if METHODS[method][0] in ("required", "optional") and base and base not in models:
        models = models + [base]
    found = []
    for i in range(dice.randint(1, 4)):
        length = dice.randint(0 if i else 1, LAYERS[family])
        sources = []
        for model in models:
            first = dice.randint(0, LAYERS[family] - length) if flag(dice) else 0
            own = {} if model == base and method != "linear" else parameters(dice, table, "M", 0.4)
            sources.append({"model": model, "layer_range": [first, first + length]} | own)
        found.append({"sources": sources} | parameters(dice, table, "MG", 0.25))
    return found


def content(dice, family: str, method: str, base: str | None, models: list[str]) -> dict:
    if dice.random() < 0.4:
        return {"slices": slices(dice, family, method, base, models)}
    table = METHODS[method][3]
    return {"models": [{"model": model} | ({} if model == base and method != "linear"
                                           else parameters(dice, table, "M", 0.6)) for model in models]}  # fmt: skip


def recipe(seed: int) -> dict:
    dice = random.Random(seed)
    method = list(METHODS)[seed % len(METHODS)]
    family = "llama" if dice.random() < 0.75 else "qwen"
    base, models = model_list(dice, family, method)
    found = {"merge_method": method} | ({"base_model": base} if base else {})
    table = METHODS[method][3]
    if dice.random() < 0.2:
        found["modules"] = {"default": content(dice, family, method, base, models) | parameters(dice, table, "MG", 0.3)}
    else:
        found |= content(dice, family, method, base, models)
    top = parameters(dice, table, "MG", 0.5).get("parameters", {})
    for key in REQUIRED & set(table):  # some value is found for every tensor
        given = top.get(key, table[key][1](dice))
        given = given if isinstance(given, list) and isinstance(given[0], dict) else [given]
        top[key] = [entry if isinstance(entry, dict) else {"value": entry} for entry in given] + [{"value": 0.5}]
    found |= {"parameters": top} if top else {}
    dtype, out = dice.choice(TYPES), dice.choice(TYPES) if dice.random() < 0.3 else None
    return found | ({"dtype": dtype} if dtype else {}) | ({"out_dtype": out} if out else {})


# ---- smaller


def places(node, path=()):
    """Every path into a recipe, the shallow ones first."""
    found, queue = [], [(path, node)]
    while queue:
        at, here = queue.pop(0)
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else []
        for key in keys:
            found.append((*at, key))
            queue.append(((*at, key), here[key]))
    return found


def at(recipe: dict, path: tuple):
    for key in path:
        recipe = recipe[key]
    return recipe


def without(recipe: dict, path: tuple) -> dict:
    smaller = copy.deepcopy(recipe)
    del at(smaller, path[:-1])[path[-1]]
    return smaller


def instead(recipe: dict, path: tuple, new) -> dict:
    smaller = copy.deepcopy(recipe)
    at(smaller, path[:-1])[path[-1]] = copy.deepcopy(new)
    return smaller


def without_source(recipe: dict, index: int) -> dict:
    """Less one source in every slice."""
    smaller = copy.deepcopy(recipe)
    for path in places(smaller):
        if path[-1] == "sources":
            del at(smaller, path)[index]
    return smaller


def candidates(recipe: dict):
    every = places(recipe)
    counts = [len(at(recipe, path)) for path in every if path[-1] == "sources"]
    for i in range(min(counts, default=0) if min(counts, default=0) > 1 else 0):
        yield without_source(recipe, i)
    for path in every:
        here = at(recipe, path)
        if path[-1] == "layer_range":
            continue
        if path[-1] == "value" or len(path) > 1 and path[-2] == "parameters":
            if isinstance(here, list) and here:
                yield instead(recipe, path, here[0])
            if isinstance(here, dict) and "value" in here:
                yield instead(recipe, path, here["value"])
        if path[-1] not in ("merge_method", "model", "value", "sources", 0, 1) or isinstance(here, dict | list):
            yield without(recipe, path)
        if path[-1] == "sources" and here and here[0]["layer_range"][1] - here[0]["layer_range"][0] > 1:
            firsts = [source["layer_range"][0] for source in here]
            yield instead(recipe, path, [source | {"layer_range": [first, first + 1]}
                                         for source, first in zip(here, firsts)])  # fmt: skip


def shrunk(recipe: dict, fails, tries: int = 400) -> dict:
    """The recipe less whatever can go while fails(recipe) stays true."""
    progress = True
    while progress and tries > 0:
        progress = False
        for smaller in candidates(recipe):
            tries -= 1
            if tries < 0:
                break
            if fails(smaller):
                recipe, progress = smaller, True
                break
    return recipe
