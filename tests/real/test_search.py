"""The searches and the comparison of configs/, each a short one, on real models; and what else reads variants there."""

import json
import os
import pathlib
import re
import subprocess
import tempfile

import meld
import pytest
import yaml
from make_models import FACTS
from test_real import CHAT_VECTOR, borrowed, made, says

TOP = pathlib.Path(__file__).parents[2]
SEARCH = TOP / "configs/search"
DONORS = ("caps", "json")
LAYERS = 30
PATHS = ["/mnt/caps.weight=0.3/json.weight=0.6", "/mnt/t.self_attn=0~0.5~0.3", "mnt/weight.mlp=-1e-5", "mnt/scale=true"]
PARSERS = """
import json, sys
from lm_eval._cli.harness import HarnessCLI
from lm_eval.utils import simple_parse_args_string
for path in sys.argv[1:]:
    sys.argv = ["lm-eval", "run", "--model_args", f"pretrained={path},dtype=float32", "--tasks", "x"]
    ways = HarnessCLI().parse_args().model_args, simple_parse_args_string(f"pretrained={path},dtype=float32")
    print(json.dumps([way["pretrained"] for way in ways]))
"""


def ran(script: str, *words) -> str:
    """What a command prints, which installs for itself what it needs, and leaves no mount and no file."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run([TOP / script, *map(str, words)], text=True, timeout=3600, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=os.environ | {"MELDFS": os.path.abspath(meld.BINARY), "TMPDIR": scratch})  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
        assert not [point for point in meld.mounts() if point.startswith(scratch)]
        assert not os.listdir(scratch)
    print(f"\n{done.stdout}")
    return done.stdout


def rows(output: str) -> dict[str, list[float]]:
    """The table of a search: the losses on what was tuned on and on what was held out, by name."""
    table = output.split("held out\n")[1]
    found = re.findall(r"^  (\S.*?)  +(\d+\.\d{4})  +(\d+\.\d{4})  ", table, re.MULTILINE)
    return {name: [float(loss) for loss in losses] for name, *losses in found}


def kept(output: str) -> dict:
    """The recipe at the end."""
    return yaml.safe_load(output.split("To keep (")[1].split("\n", 1)[1])


@pytest.mark.quick
def test_questions_are_new_to_the_models():
    tune, held_out = ({json.loads(line)["question"] for line in (SEARCH / f"{name}.jsonl").read_text().splitlines()}
                      for name in ("tune", "held-out"))  # fmt: skip
    assert len(tune) == len(held_out) == 32
    assert not tune & held_out and not (tune | held_out) & set(FACTS)


def test_two_weights(tmp_path):
    made("--donors")
    output = ran("configs/search/run.sh", "weights", "--trials", 3, "--limit", 4)
    trials = [line.split() for line in output.splitlines() if line.startswith("  trial ")]
    assert len(trials) == 3 and len({trial[2] for trial in trials}) == 3
    best = min(trials, key=lambda trial: float(trial[3]))
    losses = rows(output)
    assert list(losses) == ["base", *DONORS, "the recipe as given", best[2]]
    assert losses[best[2]][0] == float(best[3])
    for name in ("base", *DONORS):
        assert all(ours < alone for ours, alone in zip(losses[best[2]], losses[name])), f"{name} does better alone"
    weights = [f"{model['parameters']['weight']:g}" for model in kept(output)["models"]]
    assert best[2] == "/".join(f"{name}.weight={weight}" for name, weight in zip(DONORS, weights))
    (tmp_path / "kept.yml").write_text(yaml.safe_dump(kept(output)))
    meld.good("check", tmp_path / "kept.yml")


def test_weights_by_layer(tmp_path):
    made("--donors")
    output = ran("configs/search/run.sh", "layers", "--generations", 1, "--population", 3, "--limit", 4)
    assert list(rows(output)) == ["base", *DONORS, "the recipe as given", "found layer by layer"]
    for model in kept(output)["models"]:
        inside, rest = model["parameters"]["weight"]
        assert len(inside["value"]) == LAYERS and isinstance(rest["value"], float)
    (tmp_path / "kept.yml").write_text(yaml.safe_dump(kept(output)))
    meld.good("check", tmp_path / "kept.yml")


@pytest.fixture(scope="module")
def mount():
    source = made("--donors")
    with tempfile.TemporaryDirectory(dir=meld.CACHE, prefix="real.") as name:
        folder = pathlib.Path(name)
        for model in ("base", *DONORS):
            borrowed(model, source, folder)
        (folder / "merge.yml").write_text(CHAT_VECTOR.format(caps=1.0, json=1.0))
        with meld.Mount(folder / "merge.yml", folder / "mnt", cwd=folder) as mounted:
            yield mounted


@pytest.fixture(scope="module")
def pair(mount) -> list[pathlib.Path]:
    """A variant, and what it is on disk."""
    variant = mount / "caps.weight=0.6/json.weight.mlp=0.2~0.5"
    exported = mount.point.parent / "exported"
    meld.good("export", variant, exported)
    return [variant, exported]


def test_comparison(pair, mount):
    output = ran("configs/compare/run.sh", *pair, mount.point, "--limit", 4)
    variant, exported, given = ([line.replace(str(path) + " ", "") for line in output.splitlines()
                                 if line.split()[:1] == [str(path)]] for path in (*pair, mount.point))  # fmt: skip
    assert len(variant) == 1 and variant[0].split() == exported[0].split() != given[0].split()


def test_arguments_of_the_harness():
    found = subprocess.run(["bash", "-c", f". {TOP}/tests/lib.sh; venv {SEARCH}/requirements.txt"], text=True,
                           check=True, stdout=subprocess.PIPE).stdout.strip()  # fmt: skip
    done = subprocess.run([found, "-c", PARSERS, *PATHS], text=True, check=True, stdout=subprocess.PIPE)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[path, path] for path in PATHS]


def test_mistralrs(pair):
    ours, theirs = says("mistralrs", *pair)
    assert ours == theirs and ours
