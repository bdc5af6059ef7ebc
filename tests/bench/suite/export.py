"""Export: beside mergekit-yaml by every method, beside dd to a disk, after a kill, by 1 and 2 threads."""

import os
import shutil
import signal
import subprocess
import time

from . import recipes
from .context import Bench
from .measure import Result, Used, alternate, child, middle

ALWAYS = ("task_arithmetic", "ties")  # that mergekit does in a run that is not --full: it takes minutes for each
# Beside those that have targets; measured with --full, or by name.
SECONDARY = ("breadcrumbs_ties", "della_linear", "ram", "ramplus_tl", "nuslerp", "nearswap", "arcee_fusion")
RSS_TARGET = 30
DISK_TARGET = 0.8


def tell(used: Used) -> str:
    return f"{used.wall:.2f} s, {used.cpu:.1f} s CPU, {used.rss / 2**20:.0f} MiB"


def figures(ours: Used, theirs: Used | None) -> dict:
    return {"ours": vars(ours)} | ({"mergekit": vars(theirs)} if theirs else {})


def export(bench: Bench, merge, out, *options: str) -> Used:
    shutil.rmtree(out, ignore_errors=True)
    words = ["-o", ",".join(options)] if options else []
    return child([bench.meldfs, "export", merge, out, *words], **bench.fresh())


def mergekit(bench: Bench, merge, out) -> Used:
    shutil.rmtree(out, ignore_errors=True)
    return child([bench.python, "-m", "mergekit.scripts.run_yaml", merge, out, "--no-copy-tokenizer",
                  "--no-write-model-card"], HF_HUB_OFFLINE="1")  # fmt: skip


def beside_mergekit(bench: Bench, method: str) -> list[Result]:
    merge, out = bench.recipe("1b", recipes.text(method)), bench.scratch / "out"
    export(bench, merge, out)
    ours = [export(bench, merge, out) for _ in range(bench.repeat // 2)]
    theirs = None
    if method in ALWAYS or bench.mode == "full":
        shutil.rmtree(out, ignore_errors=True)
        theirs = mergekit(bench, merge, out)
    ours += [export(bench, merge, out) for _ in range(bench.repeat - len(ours))]
    shutil.rmtree(out, ignore_errors=True)
    mine = middle(ours)
    row, target = f"export {method}", recipes.TARGETS.get(method)
    if theirs is None:
        return [Result(row, tell(mine), note="beside mergekit with --full", figures=figures(mine, None))]
    return [
        Result(row, tell(mine), f"mergekit {tell(theirs)}", theirs.wall / mine.wall, target,
               figures=figures(mine, theirs)),
        Result(f"{row}, peak RSS", f"{mine.rss / 2**20:.0f} MiB", f"mergekit {theirs.rss / 2**20:.0f} MiB",
               theirs.rss / mine.rss, RSS_TARGET, figures={"ours": mine.rss, "mergekit": theirs.rss}),
    ]  # fmt: skip


def to_disk(bench: Bench) -> list[Result]:
    """dd copies one of the sources, which is in the page cache."""
    merge, out = bench.recipe("1b", recipes.text("task_arithmetic")), bench.disk / "out"
    source = bench.models("1b") / "base/model.safetensors"

    def copy() -> Used:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return child(["dd", f"if={source}", f"of={out / 'copy'}", "bs=1M", "conv=fsync"])

    copy()
    ours, theirs = map(middle, alternate(bench.repeat, lambda: export(bench, merge, out), copy))
    shutil.rmtree(out, ignore_errors=True)
    size = bench.size("1b")
    return [Result("export disk", f"{size / ours.wall / 1e9:.2f} GB/s", f"dd {size / theirs.wall / 1e9:.2f} GB/s",
                   theirs.wall / ours.wall, DISK_TARGET, "task_arithmetic, fsync",
                   {"ours": vars(ours), "dd": vars(theirs)})]  # fmt: skip


def interrupted(bench: Bench, merge, out, after: float) -> Used:
    """Killed after so many seconds (sooner if it has ended by then), begun again, ended."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.monotonic()
    process = subprocess.Popen([bench.meldfs, "export", merge, out], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env=os.environ | bench.fresh())  # fmt: skip
    time.sleep(after)
    ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    if ended:
        return interrupted(bench, merge, out, after / 2)
    again = child([bench.meldfs, "export", merge, out], **bench.fresh())
    return Used(time.monotonic() - start, again.cpu, again.rss)


def resumed(bench: Bench) -> list[Result]:
    merge, out = bench.recipe("1b", recipes.text("task_arithmetic")), bench.scratch / "out"
    half = export(bench, merge, out).wall / 2
    whole, cut = map(middle, alternate(bench.repeat, lambda: export(bench, merge, out),
                                       lambda: interrupted(bench, merge, out, half)))  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    return [Result("export resume", f"{cut.wall:.2f} s", f"uninterrupted {whole.wall:.2f} s", whole.wall / cut.wall,
                   note="killed half-way, begun again: 1 is ideal, 0.67 is to begin anew",
                   figures={"resumed": vars(cut), "whole": vars(whole)})]  # fmt: skip


def threads(bench: Bench) -> list[Result]:
    found = []
    for method in ("task_arithmetic", "ties"):
        merge, out = bench.recipe("1b", recipes.text(method)), bench.scratch / "out"
        one, two = map(middle, alternate(bench.repeat, lambda: export(bench, merge, out, "threads=1"),
                                         lambda: export(bench, merge, out, "threads=2")))  # fmt: skip
        shutil.rmtree(out, ignore_errors=True)
        found.append(Result(f"threads {method}", f"2: {two.wall:.2f} s", f"1: {one.wall:.2f} s", one.wall / two.wall,
                            note="export", figures={"two": vars(two), "one": vars(one)}))  # fmt: skip
    return found


def method_row(method: str):
    return lambda bench: beside_mergekit(bench, method)


ROWS = {"export": {method: method_row(method) for method in recipes.BODIES} | {"disk": to_disk, "resume": resumed},
        "threads": {"export": threads}}  # fmt: skip
LEFT_OUT = {("export", method): ("quick", "default") for method in SECONDARY}
