"""The figures of `meldfs report --json`, computed by numpy in float64."""

import pathlib

import numpy as np
from safetensors import safe_open

NEAR = 1e-10


def opened(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The file of each tensor of a model."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found


def load(folder: pathlib.Path, name: str) -> np.ndarray:
    """Elements in float64, which holds those of every type here."""
    with safe_open(opened(folder)[name], "pt") as file:
        return file.get_tensor(name).double().numpy().ravel()


def near(a: float, b: float, scale: float = 0) -> bool:
    return abs(a - b) <= NEAR * max(abs(b), scale)


def float32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)


class Merge:
    """report: the JSON; models: the folder with its models, by name; out: the exported result."""

    def __init__(self, report: dict, models: pathlib.Path, out: pathlib.Path):
        self.report, self.models, self.out = report, models, out
        self.names = [model["name"] for model in report["models"]]

    def check(self, name: str) -> None:
        t = next(t for t in self.report["tensors"] if t["name"] == name)
        x = {i["model"]: load(self.models / self.names[i["model"]], i.get("tensor", name)) for i in t["inputs"]}
        base = x[t["reference"]]
        change = {m: v - base for m, v in x.items() if m != t["reference"]}
        self.check_inputs(t, x, change)
        self.check_pairs(t, change)
        out = load(self.out, name)
        assert near(t["change"], np.linalg.norm(out - base)) and t["changed"] == np.mean(out != base)
        if self.report["method"] == "ties":
            self.check_kept(t, x)
        if self.report["method"] in ("task_arithmetic", "linear"):
            self.check_survival(t, x, out)

    def check_inputs(self, t: dict, x: dict, change: dict) -> None:
        for i in t["inputs"]:
            model = i["model"]
            assert near(i["norm"], np.linalg.norm(x[model])), (t["name"], i)
            if model == t["reference"]:
                assert "relative" not in i
                continue
            assert near(i["change"], np.linalg.norm(change[model]))
            assert near(i["relative"], np.linalg.norm(change[model]) / np.linalg.norm(x[t["reference"]]))
            assert i["changed"] == np.mean(change[model] != 0)

    def check_pairs(self, t: dict, change: dict) -> None:
        assert len(t["cosines"]) == len(change) * (len(change) - 1) // 2
        for a, b, cosine in t["cosines"]:
            norms = np.linalg.norm(change[a]) * np.linalg.norm(change[b])
            if norms == 0:  # a tensor that fine-tuning left alone has no direction
                assert cosine is None
            else:
                assert near(cosine, np.dot(change[a], change[b]) / norms, 1)
        signs = np.sign(np.array(list(change.values())))
        shared = (signs != 0).sum(axis=0) > 1
        if len(change) > 1:
            both = (signs > 0).any(axis=0) & (signs < 0).any(axis=0)
            assert near(t["conflict"], np.mean(both[shared])) if shared.any() else t["conflict"] is None

    def check_kept(self, t: dict, x: dict) -> None:
        """ties in float32: the largest magnitudes, equals by their index, then the elected sign."""
        delta, kept, weighted = {}, {}, {}
        for i in t["inputs"]:
            model = i["model"]
            if model == t["reference"]:
                continue
            d = delta[model] = float32(x[model]) - float32(x[t["reference"]])
            count = max(1, int(i["parameters"]["density"] * len(d)))
            mask = np.zeros(len(d), bool)
            mask[np.argsort(-np.abs(d), kind="stable")[:count]] = True
            kept[model] = d * mask
            weighted[model] = kept[model] * np.float32(i["parameters"]["weight"])
        elected = np.where(sum(weighted.values()) < 0, -1, 1)
        for i in t["inputs"]:
            model = i["model"]
            if model == t["reference"]:
                continue
            used = kept[model] * (np.sign(weighted[model]) == elected)
            n = np.count_nonzero(delta[model])
            assert i["kept"] == (np.count_nonzero(used) / n if n else None)
            whole = np.linalg.norm(delta[model].astype(np.float64))
            if n:
                assert near(i["kept_length"], np.linalg.norm(used.astype(np.float64)) / whole)
            else:
                assert i["kept_length"] is None

    def check_survival(self, t: dict, x: dict, out: np.ndarray) -> None:
        """What float32 makes of the formula, and how much of that is in what is served."""
        base = float32(x[t["reference"]])
        weights = {i["model"]: np.float32(i["parameters"].get("weight", np.nan)) for i in t["inputs"]}
        if self.report["method"] == "linear":
            total = np.float32(0)
            merged = np.zeros(len(base), np.float64)
            for i in t["inputs"]:  # fused: one rounding a step
                merged = (merged + x[i["model"]] * np.float64(weights[i["model"]])).astype(np.float32).astype(np.float64)
                total += weights[i["model"]]
            merged = float32(merged) / total
        else:
            merged = np.zeros(len(base), np.float32)
            for i in t["inputs"]:
                if i["model"] != t["reference"]:
                    merged += weights[i["model"]] * (float32(x[i["model"]]) - base)
            merged += base
        exact = merged.astype(np.float64) - base
        if not exact.any():
            assert t["survival"] is None
        else:
            served = np.dot(exact, out - x[t["reference"]])
            assert near(t["survival"], min(1, served / np.dot(exact, exact))), t["name"]
