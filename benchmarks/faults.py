"""Kill a small run at random moments and resume it. It must end like a run that was not killed.

    python benchmarks/faults.py [--kills 50] [--seed 0]

All randomness is on: augmentation, dropout, moving average, accumulation. A run is killed with SIGKILL and
resumed by the command line until it ends. Then the next run begins. Each must equal a run of `python cli.py
train` that was not killed: weights, averages and moments bit for bit, scores, state, and no additional file.
The script prints during which work the kills came. The exit status is 1 if a run ended differently.

The processes that are killed are forked from one that has only imported torch, which saves seconds for
each. A forked run that is not killed shows first that this makes no difference.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, because a fork loses threads

import torch._dynamo  # noqa: F401  the first optimizer imports it, which takes a while

from asr import commands
from asr.model_folder import Bundle
from asr.training import loop
from asr.training.recognition import RecognitionTask

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = str(ROOT / "data" / "samples" / "digits" / "manifest.jsonl")
MOMENTS = 0.6  # kills come within this share of the time of a whole run
CONFIG: dict[str, Any] = {
    "model": {
        "front_end": {"channels": 4},
        "encoder": {"n_layers": 1},
        "decoder": {"n_layers": 1},
        **{"d_model": 16, "n_heads": 2, "d_ffn": 32, "dropout": 0.1, "attention_dropout": 0.1},
    },
    "data": {"train": [MANIFEST], "dev": [MANIFEST], "first": 6, "batch_seconds": 8},
    "augment": {
        "speeds": [0.9, 1.0, 1.1],
        "gain_db": 6,
        "noise_db": [-60, -40],
        "edge_silence": 0.2,
        "silence": 1,
        "join": {"per_epoch": 4, "min_items": 2, "max_items": 2},
    },
    "optim": {"accumulate": 2, "warmup_steps": 5, "ema": 0.9},
    "train": {
        "steps": 40,
        "validate_every": 8,
        "checkpoint_every": 3,
        "average": 2,
        "token_noise": 0.1,
        "precision": "float32",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if kill_and_resume(Path(folder), options.kills, random.Random(options.seed)) else 1)


def kill_and_resume(folder: Path, kills: int, draw: random.Random) -> bool:
    """Kill runs so many times. Returns whether every run ended like the one that was not killed."""
    began = time.monotonic()
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    command = [sys.executable, str(ROOT / "cli.py"), *arguments(folder, "alone")]
    subprocess.run(command, check=True, capture_output=True)
    expected = end_of(folder / "alone")
    forked = time.monotonic()
    run_part(folder, "forked")
    seconds = time.monotonic() - forked
    same = _compare(folder, "forked", expected)
    print(f"not killed: {seconds:.1f} s", flush=True)

    hit: Counter[str] = Counter()
    halves = runs = equal = 0
    while hit.total() < kills:
        name, ended = f"run{runs}", False
        while not ended:
            more = hit.total() < kills
            before = unfinished(folder / name)
            phase = run_part(folder, name, draw.uniform(0.0, seconds * MOMENTS) if more else None)
            ended = phase == ""
            if not ended:
                hit[phase] += 1
                halves += bool(unfinished(folder / name) - before)
        runs, equal = runs + 1, equal + _compare(folder, name, expected)
    print(f"{hit.total()} kills, {runs} runs, {equal} of them equal to the one that was not killed")
    print("killed during " + ", ".join(f"{phase}: {count}" for phase, count in hit.most_common()))
    print(f"{halves} kills left unfinished files")
    passed = same and equal == runs
    print(f"{time.monotonic() - began:.0f} s in all; {'passed' if passed else 'FAILED'}")
    return passed


def _compare(folder: Path, name: str, expected: dict[str, Any]) -> bool:
    found = end_of(folder / name)
    names = [file for file in sorted(expected | found) if expected.get(file) != found.get(file)]
    print(f"{name}: " + (f"DIFFERS in {', '.join(names)}" if names else "equal"), flush=True)
    return not names


def arguments(folder: Path, name: str) -> list[str]:
    """The arguments of the command line."""
    run = ["--run", str(folder / name), "--resume-if-possible"]
    return ["train", str(folder / "config.yaml"), *run, "--device", "cpu"]


def run_part(folder: Path, name: str, seconds: float | None = None) -> str:
    """Continue a run, and kill it after so many seconds. Returns its work at that moment, "" if it ended
    before.
    """
    process = multiprocessing.get_context("fork").Process(
        target=train, args=(folder, arguments(folder, name))
    )
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        return (folder / "phase").read_text().strip()
    if process.exitcode != 0:
        sys.exit(f"exit status {process.exitcode}:\n{(folder / 'log').read_text()}")
    return ""


def unfinished(run: Path) -> set[Path]:
    """Temporary files and folders that a kill left behind."""
    return set(run.rglob(".*.tmp"))


def end_of(run: Path) -> dict[str, Any]:
    """The content of all files of a run by name, without times and curves, which may differ."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = str(path.relative_to(run))
        if path.name == "trainer.json":
            values = json.loads(path.read_text(encoding="utf-8"))
            found[name] = values | {"seconds": None, "checksums": None}
        elif path.suffix == ".safetensors":  # its metadata have no order
            with safe_open(path, "numpy") as file:
                tensors = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
                found[name] = (tensors, file.metadata())
        elif not name.startswith("tensorboard/"):
            found[name] = path.read_bytes()
    return found


def train(folder: Path, given: list[str]) -> None:
    """Run the command line and write its present work to a file, which a kill does not remove."""
    os.chdir(ROOT)
    os.dup2(os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    phases = os.open(folder / "phase", os.O_WRONLY | os.O_CREAT)
    current = ""

    def note(phase: str) -> None:
        nonlocal current
        current = phase
        os.pwrite(phases, phase.ljust(20).encode(), 0)

    def noting(phase: str, function: Callable[..., Any], afterwards: str | None = None) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            before = current
            note(phase)
            try:
                return function(*given, **named)
            finally:
                note(afterwards or before)

        return call

    note("set-up")
    for place, name, phase, afterwards in (
        (loop, "check_memory", "set-up", "a step"),
        (RecognitionTask, "validate", "validation", None),
        (loop, "save_checkpoint", "writing a checkpoint", None),
        (Bundle, "save", "writing a model", None),
        (loop.Training, "_finish", "the end", None),
    ):
        setattr(place, name, noting(phase, getattr(place, name), afterwards))
    sys.argv = ["asr", *given]
    commands.main()


if __name__ == "__main__":
    main()
