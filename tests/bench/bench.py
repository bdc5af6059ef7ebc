#!/usr/bin/env python3
"""The figures that a user asks for: time to mount, read rates beside the native file, memory, export beside mergekit.

    MELDFS=.../meldfs bench.py [FOLDER] [--layers N] [--repeat N]

FOLDER (default: /dev/shm if there is room, else a temporary folder) takes three models of 2.5 GB, in bfloat16 with the
shapes of Llama 3.2 1B, and what is exported. Medians of several runs.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import meld
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

RECIPE = """\
merge_method: task_arithmetic
base_model: base
models:
  - {model: one, parameters: {weight: 1.0}}
  - {model: two, parameters: {weight: 0.6}}
dtype: bfloat16
"""
BLOCK = 1 << 20


def make(folder: pathlib.Path, layers: int, seed: int) -> None:
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"], vocab_size=128256, hidden_size=2048, intermediate_size=8192,
        num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=True,
        dtype=torch.bfloat16)  # fmt: skip
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(seed)
    h, f, kv = 2048, 8192, 512
    shapes = {"model.embed_tokens.weight": (128256, h), "model.norm.weight": (h,)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "self_attn.q_proj.weight": (h, h), at + "self_attn.k_proj.weight": (kv, h),
            at + "self_attn.v_proj.weight": (kv, h), at + "self_attn.o_proj.weight": (h, h),
            at + "mlp.gate_proj.weight": (f, h), at + "mlp.up_proj.weight": (f, h),
            at + "mlp.down_proj.weight": (h, f), at + "input_layernorm.weight": (h,),
            at + "post_attention_layernorm.weight": (h,)}  # fmt: skip
    state = {
        name: torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
        for name, shape in shapes.items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def timed(action) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


def median(action, repeat: int) -> float:
    return statistics.median(timed(action) for _ in range(repeat))


def read(path: pathlib.Path) -> None:
    """Sequentially, into one buffer: nothing but the reading."""
    buffer = bytearray(BLOCK)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def forget(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def rate(path: pathlib.Path, repeat: int, cold: bool) -> float:
    """Bytes a second."""
    seconds = []
    for _ in range(repeat):
        if cold:
            forget(path)
        seconds.append(timed(lambda: read(path)))
    return path.stat().st_size / statistics.median(seconds)


def peak(pid: int) -> int:
    """Peak resident bytes of a living process; 0 of a dead one. Unlike ru_maxrss, not that of its parent."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) << 10 if "VmHWM:" in text else 0


def child(command: list[str], cwd: pathlib.Path) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of a command."""
    start, used = time.monotonic(), 0
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            used = max(used, peak(process.pid))
        else:
            assert process.returncode == 0, command
            return time.monotonic() - start, used


def mount_figures(folder: pathlib.Path, repeat: int) -> list[tuple[str, str]]:
    times = []
    for _ in range(repeat):
        mount = meld.Mount("merge.yml", folder / "mnt", cwd=folder)
        times.append(timed(mount.__enter__))
        mount.__exit__(None, None, None)
    with meld.Mount("merge.yml", folder / "mnt", cwd=folder, foreground=True) as mount:
        computed, native = mount / "model.safetensors", folder / "base/model.safetensors"
        read(native)
        figures = [
            ("time to mount", f"{statistics.median(times) * 1000:.1f} ms"),
            ("cold sequential read, mount", f"{rate(computed, repeat, cold=True) / 1e9:.2f} GB/s"),
            ("warm sequential read, mount", f"{rate(computed, repeat, cold=False) / 1e9:.2f} GB/s"),
            ("warm sequential read, native file", f"{rate(native, repeat, cold=False) / 1e9:.2f} GB/s"),
            ("daemon's peak memory (cache 256 MiB)", f"{peak(mount.process.pid) / 2**20:.0f} MiB"),
        ]
    return figures


def export_figures(folder: pathlib.Path, repeat: int) -> list[tuple[str, str]]:
    out = folder / "out"
    figures = {}
    commands = {
        "meldfs export": ([meld.BINARY, "export", "merge.yml", str(out)], repeat),
        "mergekit-yaml": ([sys.executable, "-m", "mergekit.scripts.run_yaml", "merge.yml", str(out),
                           "--no-copy-tokenizer", "--no-write-model-card"], 1),
    }  # fmt: skip
    for name, (command, n) in commands.items():
        runs = []
        for _ in range(n):
            shutil.rmtree(out, ignore_errors=True)
            runs.append(child(command, folder))
        figures[name] = statistics.median(run[0] for run in runs), max(run[1] for run in runs)
    shutil.rmtree(out)
    ratio = figures["mergekit-yaml"][0] / figures["meldfs export"][0]
    rows = [(name, f"{seconds:.2f} s, {memory / 2**20:.0f} MiB") for name, (seconds, memory) in figures.items()]
    return [*rows, ("ratio", f"{ratio:.1f}x")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, nargs="?")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    room = shutil.disk_usage("/dev/shm").free > 14e9
    with tempfile.TemporaryDirectory(dir=args.folder or ("/dev/shm" if room else None)) as name:
        folder = pathlib.Path(name)
        for seed, model in enumerate(("base", "one", "two")):
            make(folder / model, args.layers, seed)
        (folder / "merge.yml").write_text(RECIPE)
        size = (folder / "base/model.safetensors").stat().st_size
        print(f"task_arithmetic of 3 models of {size / 1e9:.2f} GB in {name}, {os.cpu_count()} CPUs")
        for title, figure in mount_figures(folder, args.repeat) + export_figures(folder, args.repeat):
            print(f"  {title:<38} {figure}")


if __name__ == "__main__":
    main()
