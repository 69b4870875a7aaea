"""Runs side by side: what the files of run folders say about their settings and results.

Reads JSON and the header of the weights and nothing else, so that a hundred runs take no time: torch, and
with it what wrote these files (asr.model_folder, asr.training.checkpoints), is not imported.
"""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from asr.config import Config
from asr.errors import AsrError

# As in asr.model_folder and asr.training.checkpoints.
CONFIG, WEIGHTS, CHECKPOINTS, TRAINER = "config.json", "model.safetensors", "checkpoints", "trainer.json"


@dataclass
class Run:
    """A run as its files tell it; what they do not tell is None."""

    run: str  # its folder
    status: str = ""
    cer: float | None = None  # of the model in the run folder, on the dev set
    wer: float | None = None
    model: str | None = None  # which one that is: the best step, or an average
    loss: float | None = None  # on the dev set, of the best step
    step: int | None = None  # of the newest checkpoint
    steps: int | None = None  # asked for
    minutes: float | None = None  # of training steps, up to the newest checkpoint
    parameters: int | None = None
    saved: str | None = None  # when the newest checkpoint was written, local time
    settings: dict[str, Any] = field(default_factory=dict)  # by dotted name
    history: list[dict[str, Any]] = field(default_factory=list)  # validations


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The run folders among and below some folders, sorted by path within each.

    Raises AsrError for a folder that is not there or has no run in it.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise AsrError(
                f"{folder}: no such folder; name one that has runs, which `asr train` writes to runs/"
            )
        runs = _below(folder)
        if not runs:
            raise AsrError(f"{folder}: no run in this folder; `asr train` writes one where --run says")
        found += [run for run in runs if run not in found]
    return found


def read_run(folder: Path) -> Run:
    """What a run folder holds. One that is broken gives a run whose status says so."""
    run = Run(str(folder))
    try:
        _read_settings(folder, run)
        checkpoint = _read_progress(folder, run)
        _read_model(folder, run, checkpoint)
        run.status = _status(run)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        name = Path(error.filename).name + ": " if isinstance(error, OSError) and error.filename else ""
        run.status = f"broken: {name}{reason or type(error).__name__}"
    return run


def report(runs: Sequence[Run], width: int | None) -> str:
    """A table of results, and of the settings that are not the same in all runs.

    With tabs when `width` is None; otherwise drawn for a terminal so many columns wide, and turned on its
    side, a column for each run, when it is too wide and that is narrower.
    """
    table = [[*RESULTS, *(names := _differing(runs))]]
    for run in runs:
        shown = [show(run) for show in RESULTS.values()]
        table.append(shown + [_shown(run.settings[n]) if n in run.settings else "" for n in names])
    if width is None:
        return "\n".join("\t".join(" ".join(cell.split()) for cell in row) for row in table)
    console = Console(file=io.StringIO(), width=width, highlight=False)
    upright, turned = _drawn(table), _drawn(list(zip(*table, strict=True)))
    endless = console.options.update(width=10**6)
    widths = [Measurement.get(console, endless, drawn).maximum for drawn in (upright, turned)]
    console.print(turned if widths[0] > width and widths[1] < widths[0] else upright)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def as_json(runs: Sequence[Run]) -> str:
    """All there is to know, settings and validations too: a list with an object for each run."""
    return json.dumps([asdict(run) for run in runs], indent=1, ensure_ascii=False)


RESULTS = {
    "run": lambda run: run.run,
    "status": lambda run: run.status,
    "CER": lambda run: "" if run.cer is None else f"{run.cer:.2%}",
    "WER": lambda run: "" if run.wer is None else f"{run.wer:.2%}",
    "model": lambda run: run.model or "",
    "dev loss": lambda run: "" if run.loss is None else f"{run.loss:.3f}",
    "minutes": lambda run: "" if run.minutes is None else f"{run.minutes:.1f}",
    "parameters": lambda run: "" if run.parameters is None else f"{run.parameters:,}",
    "saved": lambda run: run.saved or "",
}


def _below(folder: Path) -> list[Path]:
    if any((folder / name).exists() for name in (CONFIG, CHECKPOINTS, WEIGHTS)):
        return [folder]
    try:
        inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return [folder]  # what it is cannot be seen: reading it will say why
    found = [(path, _below(path)) for path in inner if not path.is_symlink() or (path / CONFIG).exists()]
    return [run for _, runs in found for run in runs]


def _read_settings(folder: Path, run: Run) -> None:
    values = _read_json(folder / CONFIG)
    try:  # settings that are newer than the run have their default values
        values = Config.model_validate(values).model_dump(mode="json")
    except ValidationError:
        if not values.keys() & Config.model_fields.keys():
            raise ValueError(f"{CONFIG}: not the configuration of a run") from None
    run.settings = dict(_flat(values))
    run.steps = run.settings.get("train.steps")


def _read_progress(folder: Path, run: Run) -> Path | None:
    """The newest checkpoint with its progress."""
    checkpoints = sorted((folder / CHECKPOINTS).glob("step-*"))
    if not checkpoints:
        return None
    path = checkpoints[-1] / TRAINER
    progress = _read_json(path)
    run.step, run.minutes, run.history = progress["step"], progress["seconds"] / 60, progress["history"]
    run.saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    return checkpoints[-1]


def _read_model(folder: Path, run: Run, checkpoint: Path | None) -> None:
    """Parameters and scores, from the model of the run folder where there is one already."""
    best = min(run.history, key=lambda entry: (entry["cer"], -entry["step"]), default=None)
    if best is not None:
        run.cer, run.wer, run.loss, run.model = best["cer"], best["wer"], best["loss"], f"step {best['step']}"
    path = folder / WEIGHTS
    if not path.exists():
        if checkpoint is None:
            return
        path = checkpoint / WEIGHTS
    header = _read_header(path)
    said = header.pop("__metadata__", {})
    shapes = [entry["shape"] for name, entry in header.items() if name.startswith("network.")]
    run.parameters = sum(map(math.prod, shapes))
    if "dev_cer" in said:
        run.cer, run.wer = float(said["dev_cer"]), float(said["dev_wer"])
        steps = json.loads(said.get("averaged", "[]"))
        run.model = f"average of {len(steps)}" if steps else f"step {said['step']}"


def _status(run: Run) -> str:
    """What the files prove: whether a process is still at work on the run, they do not."""
    if run.step is None:
        return "nothing saved yet" if run.parameters is None else "a model alone"
    if run.steps is not None and run.step >= run.steps:
        return "finished"
    if run.history and run.history[-1]["step"] == run.step:
        wanted, patience = run.settings.get("train.stop_wer"), run.settings.get("train.patience")
        if wanted is not None and run.history[-1]["wer"] <= wanted:
            return f"finished at {run.step}, WER reached"
        cers = [entry["cer"] for entry in run.history]
        if patience is not None and len(cers) - 1 - cers.index(min(cers)) >= patience:
            return f"finished at {run.step}, no better"
    return f"at {run.step} of {run.steps}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path.name}: not a JSON object")
    return values


def _read_header(path: Path) -> dict[str, Any]:
    """The names, shapes and metadata of a safetensors file: its length in 8 bytes, then JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= os.fstat(file.fileno()).st_size - 8:
            raise ValueError(f"{path.name}: not a safetensors file")
        return json.loads(file.read(length))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _differing(runs: Sequence[Run]) -> list[str]:
    """Settings that are not the same in all runs whose settings are known."""
    known = [run.settings for run in runs if run.settings]
    names = dict.fromkeys(name for settings in known for name in settings)
    absent = object()
    return [n for n in names if any(s.get(n, absent) != known[0].get(n, absent) for s in known)]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_shown, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _drawn(rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, name in enumerate(rows[0]):
        table.add_column(name, overflow="fold", min_width=min(8, max(len(row[column]) for row in rows)))
    for row in rows[1:]:
        table.add_row(*row)
    return table
