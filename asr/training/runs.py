"""A table of runs: their settings and results, from the files of the run folders.

It reads JSON and the headers of the weights, and does not import torch, so a hundred runs are fast to read.
"""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from asr.config import EXPERIMENTS
from asr.errors import AsrError
from asr.run_folder import CHECKPOINTS, CONFIG, TRAINER, WEIGHTS, checkpoint_folders
from asr.section import Section
from asr.training.train_state import best_validations, flatten, stop_reason


@dataclass
class Run:
    """A run, as its files describe it. A value that no file has is None."""

    run: str  # its folder
    status: str = ""
    cer: float | None = None  # of the model in the run folder, on the dev set
    wer: float | None = None
    perplexity: float | None = None  # of a language model
    model: str | None = None  # the best step, or an average
    loss: float | None = None  # on the dev set, of the best step
    step: int | None = None  # of the newest checkpoint
    steps: int | None = None  # in the configuration
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
            raise AsrError(f"{folder}: no run in this folder; `asr train --run FOLDER` writes one")
        found += [run for run in runs if run not in found]
    return found


def read_run(folder: Path) -> Run:
    """The run of a folder. If a file is broken, the status says so."""
    run = Run(str(folder))
    try:
        _read_settings(folder, run)
        checkpoint = _read_state(folder, run)
        _read_model(folder, run, checkpoint)
        run.status = _status(run)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        name = Path(error.filename).name + ": " if isinstance(error, OSError) and error.filename else ""
        run.status = f"broken: {name}{reason or type(error).__name__}"
    return run


def report(runs: Sequence[Run], width: int | None) -> str:
    """A table of results, and of the settings that differ between the runs.

    Values are separated by tabs when `width` is None. Otherwise the table is drawn for a terminal with
    `width` columns. If the table does not fit, and a table with one column for each run is narrower, the runs
    are columns.
    """
    results = dict(RESULTS)
    if not any(run.perplexity for run in runs):
        del results["perplexity"]
    table = [[*results, *(names := _differing(runs))]]
    for run in runs:
        shown = [show(run) for show in results.values()]
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
    """A list with an object for each run, with all settings and validations."""
    return json.dumps([asdict(run) for run in runs], indent=1, ensure_ascii=False)


RESULTS = {
    "run": lambda run: run.run,
    "status": lambda run: run.status,
    "CER": lambda run: "" if run.cer is None else f"{run.cer:.2%}",
    "WER": lambda run: "" if run.wer is None else f"{run.wer:.2%}",
    "perplexity": lambda run: "" if run.perplexity is None else f"{run.perplexity:.3f}",
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
        return [folder]  # reading it will report the error
    found = [(path, _below(path)) for path in inner if not path.is_symlink() or (path / CONFIG).exists()]
    return [run for _, runs in found for run in runs]


def _read_settings(folder: Path, run: Run) -> None:
    values = _read_json(folder / CONFIG)
    experiment = EXPERIMENTS.get(values.get("kind", "recognizer"))
    if experiment is None or not values.keys() & experiment.model_fields.keys():
        raise ValueError(f"{CONFIG}: not the configuration of a run")
    for name, field_info in experiment.model_fields.items():
        section = field_info.annotation
        if isinstance(section, type) and issubclass(section, Section):
            with suppress(ValidationError):  # settings that are newer than the run get their default values
                values[name] = section.model_validate(values.get(name, {})).model_dump(mode="json")
    run.settings = flatten(values)
    run.steps = run.settings.get("train.steps")


def _read_state(folder: Path, run: Run) -> Path | None:
    """The newest checkpoint. Its state becomes that of the run."""
    checkpoints = checkpoint_folders(folder)
    if not checkpoints:
        return None
    path = checkpoints[-1] / TRAINER
    state = _read_json(path)
    run.step, run.minutes, run.history = state["step"], state["seconds"] / 60, state["history"]
    run.saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    return checkpoints[-1]


def _read_model(folder: Path, run: Run, checkpoint: Path | None) -> None:
    """Parameters and scores, from the model of the run folder if there is one already."""
    for best in best_validations(run.history, 1):
        run.cer, run.wer, run.perplexity = (best.get(name) for name in ("cer", "wer", "perplexity"))
        run.loss, run.model = best["loss"], f"step {best['step']}"
    path = folder / WEIGHTS
    if not path.exists():
        if checkpoint is None:
            return
        path = checkpoint / WEIGHTS
    header = _read_header(path)
    metadata = header.pop("__metadata__", {})
    shapes = [entry["shape"] for name, entry in header.items() if name.startswith("network.")]
    run.parameters = sum(map(math.prod, shapes))
    scores = [metadata.get(f"dev_{name}") for name in ("cer", "wer", "perplexity")]
    if any(scores):
        run.cer, run.wer, run.perplexity = (None if text is None else float(text) for text in scores)
        steps = json.loads(metadata.get("averaged", "[]"))
        run.model = f"average of {len(steps)}" if steps else f"step {metadata['step']}"


def _status(run: Run) -> str:
    """The progress of a run, from its files. They do not show whether a process still works on the run."""
    if run.step is None:
        return "nothing saved yet" if run.parameters is None else "a model alone"
    if run.steps is None:
        return f"at {run.step}"
    names = ("patience", "stop_wer", "max_minutes")
    rules: dict[str, Any] = {name: run.settings.get(f"train.{name}") for name in names}
    seconds = 60 * (run.minutes or 0.0)
    reason = stop_reason(run.step, run.history, run.steps, seconds=seconds, **rules)
    if reason is None:
        return f"at {run.step} of {run.steps}"
    return "finished" if run.step >= run.steps else f"finished at {run.step}: {reason}"


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


def _differing(runs: Sequence[Run]) -> list[str]:
    """The settings that differ between the runs whose settings are known."""
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
