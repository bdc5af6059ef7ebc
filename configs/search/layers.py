#!/usr/bin/env python3
"""Searches weights layer by layer with CMA-ES: each candidate is a file in a mounted folder of recipes.

    layers.py RECIPE FOLDER MOUNT

RECIPE is a merge file with `models:`, each with one weight, where the search begins. FOLDER is the one that is mounted
on MOUNT: a candidate is written to FOLDER/NAME.yml, read at MOUNT/NAME/, and removed. Each donor has a weight in each
layer and one for all that is in none. What is made smaller and what is reported is as in weights.py. FOLDER/found.yml
is the recipe to keep.
"""

import argparse
import contextlib
import copy
import json
import os
import pathlib
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator

import yaml
from judge import Judge, add_arguments, table

with warnings.catch_warnings(action="ignore"):  # that there is nothing to plot with
    import cma

MELDFS = os.environ.get("MELDFS", "meldfs")
PATIENCE = 10  # seconds
DIGITS = 4


class Recipes:
    """A folder of recipes and where it is mounted."""

    def __init__(self, folder: pathlib.Path, mount: pathlib.Path):
        self.folder, self.mount = folder, mount

    def add(self, name: str, recipe: dict) -> pathlib.Path:
        """The directory of a recipe; written under another name first, so that no half of a file is read."""
        part = self.folder / f"{name}.part"
        part.write_text(yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=120))
        part.rename(self.folder / f"{name}.yml")
        deadline = time.monotonic() + PATIENCE
        while not (self.mount / name).is_dir():
            if time.monotonic() > deadline:
                subprocess.run([MELDFS, "status", self.mount])  # tells why
                sys.exit(f"there is no {self.mount / name}")
            time.sleep(0.01)
        return self.mount / name

    def remove(self, name: str) -> None:
        (self.folder / f"{name}.yml").unlink(missing_ok=True)

    @contextlib.contextmanager
    def one(self, name: str, recipe: dict) -> Iterator[pathlib.Path]:
        try:
            yield self.add(name, recipe)
        finally:
            self.remove(name)


class Layers:
    """A recipe with a vector in place of its weights: for each donor the layers', then that of the rest."""

    def __init__(self, recipe: dict, layers: int):
        self.recipe, self.layers = recipe, layers
        self.given = [model["parameters"]["weight"] for model in recipe["models"]]
        if not all(isinstance(weight, (int, float)) for weight in self.given):
            sys.exit("each of the recipe's models must have one number as its weight, to begin with")

    def start(self) -> list[float]:
        return [float(weight) for weight in self.given for _ in range(self.layers + 1)]

    def with_weights(self, vector) -> dict:
        """A gradient with as many values as there are layers is one value each."""
        recipe = copy.deepcopy(self.recipe)
        values = [round(float(x), DIGITS) for x in vector]
        for i, model in enumerate(recipe["models"]):
            *inside, rest = values[i * (self.layers + 1) : (i + 1) * (self.layers + 1)]
            model["parameters"]["weight"] = [{"filter": ".layers.", "value": inside}, {"value": rest}]
        return recipe


def search(recipes: Recipes, layers: Layers, judge: Judge, args: argparse.Namespace) -> list[float]:
    """The best vector that was tried, the one that the recipe gives among them."""
    options = {"popsize": args.population, "seed": args.seed, "verbose": -9, "CMA_diagonal": True}
    strategy = cma.CMAEvolutionStrategy(layers.start(), args.sigma, options)
    strategy.inject([layers.start()], force=True)
    for generation in range(1, args.generations + 1):
        start = time.monotonic()
        vectors = strategy.ask()
        losses = []
        for i, vector in enumerate(vectors):
            with recipes.one(f"candidate-{generation}-{i + 1}", layers.with_weights(vector)) as path:
                losses.append(judge.loss(path))
        strategy.tell(vectors, losses)
        print(f"  generation {generation:2d}  best {min(losses):8.4f}  mean {sum(losses) / len(losses):8.4f}"
              f"  {(time.monotonic() - start) / len(vectors):5.1f} s a candidate", flush=True)  # fmt: skip
    return strategy.result.xbest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("mount", type=pathlib.Path)
    parser.add_argument("--generations", type=int, default=10)
    parser.add_argument("--population", type=int, default=8)
    parser.add_argument("--sigma", type=float, default=0.15, help="how far from the recipe the first candidates are")
    parser.add_argument("--seed", type=int, default=1)
    add_arguments(parser)
    args = parser.parse_args()
    recipe = yaml.safe_load(args.recipe.read_text())
    recipes = Recipes(args.folder, args.mount)
    with recipes.one("given", recipe) as given:
        judge = Judge(given, args)
        layers = Layers(recipe, json.loads((given / "config.json").read_text())["num_hidden_layers"])
        print(f"{len(layers.start())} weights, {args.population} candidates a generation. Loss in nats per token of "
              f"{len(judge.splits['tune'])} answers that are wanted:\n", flush=True)  # fmt: skip
        found = recipes.add("found", layers.with_weights(search(recipes, layers, judge, args)))
        table(judge, {"the recipe as given": given, "found layer by layer": found})
    print(f"\nTo keep ($ meldfs yaml {found}):\n", flush=True)
    subprocess.run([MELDFS, "yaml", found], check=True)


if __name__ == "__main__":
    main()
