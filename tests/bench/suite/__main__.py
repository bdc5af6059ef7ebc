"""Chooses rows, runs them, prints the table, writes it as JSON. tests/bench/run.sh tells how it is called."""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import signal
import sys

from . import context, export, first, kernels, load, memory, read, stats
from .measure import Result, skipped

MODULES = (export, load, read, first, memory, stats, kernels)
ROWS = {group: rows for module in MODULES for group, rows in module.ROWS.items()}
LEFT_OUT = export.LEFT_OUT | memory.LEFT_OUT  # row: modes in which it must be asked for by name


def choose(words: list[str], mode: str) -> list[tuple[str, str]]:
    """`export ties sce read` is two rows of export and all of read."""
    chosen: dict[str, list[str]] = {}
    group = None
    for word in words:
        if word in ROWS:
            group = word
            chosen.setdefault(group, [])
        elif group and word in ROWS[group]:
            chosen[group].append(word)
        else:
            known = ", ".join(ROWS[group]) if group else ", ".join(ROWS)
            raise SystemExit(f"bench: there is no {'row' if group else 'group'} `{word}`: {known}")
    chosen = chosen or dict.fromkeys(ROWS, [])
    return [(group, row) for group, rows in chosen.items() for row in rows or ROWS[group]
            if rows or mode not in LEFT_OUT.get((group, row), ())]  # fmt: skip


def line(row: str, ours: str, beside: str, ratio: str, target: str, verdict: str, note: str) -> None:
    print(f"{row:<36} {ours:<47} {beside:<41} {ratio:>7} {target:>6} {verdict:<7} {note}".rstrip(), flush=True)


def tell(result: Result) -> None:
    ratio = f"{result.ratio:.2f}x" if result.ratio is not None else ""
    target = f"{result.target:g}x" if result.target is not None else ""
    verdict = {True: "met", False: "missed", None: ""}[result.met]
    line(result.row, result.ours, result.beside, ratio, target, verdict, result.note)


def machine() -> dict:
    model = [text.split(":")[1].strip() for text in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
             if text.startswith("model name")]  # fmt: skip
    return {"cpus": len(os.sched_getaffinity(0)), "cpu": model[0] if model else platform.machine(),
            "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "kernel": platform.release(),
            "load": os.getloadavg()}  # fmt: skip


def run_row(bench: context.Bench, group: str, row: str) -> list[Result]:
    """What cannot be measured is a row that says why; the others go on."""
    try:
        return ROWS[group][row](bench)
    except Exception as error:
        return [skipped(f"{group} {row}", " ".join(str(error).split())[:300] or type(error).__name__)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh")
    parser.add_argument("rows", nargs="*", help="a group, or a group and rows of it: " + ", ".join(ROWS))
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_const", const="quick", dest="mode", help="a tenth of the size")
    mode.add_argument("--full", action="store_const", const="full", dest="mode", help="mergekit by every method")
    parser.add_argument("--json", type=pathlib.Path, help="where the table goes, too")
    parser.set_defaults(mode="default")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    rows = choose(args.rows, args.mode)
    store, build = pathlib.Path(os.environ["BENCH_STORE"]), pathlib.Path(os.environ["BENCH_BUILD"])
    store.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    results, began = [], datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    about = machine()
    print(f"{about['cpu']}, {about['cpus']} CPUs, Linux {about['kernel']}, load {about['load'][0]:.1f}; {args.mode}")
    line("row", "meldfs", "beside it", "ratio", "target", "", "")
    with context.folders(store, args.mode) as (scratch, disk):
        bench = context.Bench(args.mode, store, scratch, disk, build, sys.executable)
        for group, row in rows:
            for result in run_row(bench, group, row):
                tell(result)
                results.append(result)
    missed = sum(result.met is False for result in results)
    path = args.json or store / f"{args.mode}.json"
    path.write_text(json.dumps({"began": began, "mode": args.mode, "machine": about,
                                "rows": [dataclasses.asdict(result) for result in results]}, indent=1) + "\n")  # fmt: skip
    print(f"{sum(result.met is True for result in results)} met, {missed} missed; {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
