"""Checkpoints of a run. A checkpoint is complete or absent (file names: asr.run_folder).

A checkpoint is a model folder with trainer.json, which holds the state of the run and the checksums of the
other files. The two newest ones can be resumed from: they have optimizer.safetensors, with the moments. With
a moving average of the weights, the average is the model, and the trained weights are stored with the
moments. With adapters, the model has them merged, and weights and adapters are stored with the moments.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr.errors import AsrError
from asr.files import atomic_write
from asr.model.adapters import is_adapter
from asr.model_folder import Bundle, load_tensors, load_weights, save_tensors
from asr.run_folder import (
    CONFIG,
    OPTIMIZER,
    TOKENIZER,
    TRAINER,
    WEIGHTS,
    checkpoint_folder,
    checkpoint_folders,
    step_of,
)
from asr.tokenizers import load_tokenizer
from asr.training.optimizer import moments_of, restore_moments
from asr.training.train_state import TrainState, best_validations
from asr.training.weights import MovingAverage

RESUMABLE = 2  # the newest checkpoints that keep the moments
_LIVE = "live"  # NAME/live is a trained weight, beside its moments


def save_checkpoint(
    run: Path,
    bundle: Bundle[Any],
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    average: MovingAverage | None = None,
    keep: int = 1,
) -> None:
    """Write a checkpoint, then delete old ones: all but the two newest and the `keep` best.

    If the step has a checkpoint already, only its state is written. Raises AsrError when the checkpoint
    cannot be written; the earlier ones are still there then.
    """
    folder = checkpoint_folder(run, state.step)
    try:
        if (folder / OPTIMIZER).is_file():
            _save_state(folder, state, _checksums_in(folder))
        else:
            _write_folder(folder, bundle, optimizer, state, average)
    except (AsrError, OSError) as error:
        raise AsrError(f"no checkpoint of step {state.step}: {error}") from error
    prune_checkpoints(run, state, keep)


def load_checkpoint(
    folder: Path,
    bundle: Bundle[Any],
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None = None,
) -> TrainState:
    """Put back weights and moments, and return the state that was stored with them.

    Raises AsrError when a file cannot be read, or the weights belong to another vocabulary.
    """
    if load_tokenizer(folder / TOKENIZER) != bundle.tokenizer:
        raise AsrError(f"{folder}: the tokenizer differs from that of the training texts; start a new run")
    bundle.metadata |= load_weights(bundle, folder)
    if average is not None:
        average.restart()
    stored = load_tensors(folder / OPTIMIZER)[0]
    for name, parameter in bundle.network.named_parameters():
        if f"{name}/{_LIVE}" in stored:
            parameter.data.copy_(stored[f"{name}/{_LIVE}"])
    restore_moments(bundle.network, optimizer, stored)
    return read_state(folder)


def read_state(folder: Path) -> TrainState:
    """The state of a checkpoint. Raises AsrError when it cannot be read."""
    try:
        values = json.loads((folder / TRAINER).read_text(encoding="utf-8"))
        values.pop("checksums", None)
        return TrainState.from_json(values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise AsrError(f"{folder / TRAINER}: cannot be read ({error})") from None


def damage_of(folder: Path) -> str | None:
    """The first problem of a checkpoint's files. None if no file has changed since it was written."""
    try:
        values = json.loads((folder / TRAINER).read_text(encoding="utf-8"))
        checksums = values.pop("checksums", {})  # versions up to 0.2 wrote no checksums
        found = {name: _checksum(folder / name) for name in checksums if name != TRAINER}
        found[TRAINER] = _text_checksum(values)
    except OSError as error:
        return f"{error.filename}: cannot be read ({error.strerror})"
    except (ValueError, AttributeError) as error:
        return f"{folder / TRAINER}: cannot be read ({error})"
    changed = [name for name, checksum in checksums.items() if found[name] != checksum]
    return f"{folder / changed[0]}: differs from its checksum" if changed else None


def newest(run: Path) -> Path | None:
    """The newest checkpoint that can be resumed from."""
    return next(iter(resumable(run)), None)


def resumable(run: Path) -> list[Path]:
    """The checkpoints that can be resumed from, the newest first."""
    return [path for path in reversed(checkpoint_folders(run)) if (path / OPTIMIZER).is_file()]


def prune_checkpoints(run: Path, state: TrainState, keep: int) -> None:
    """Delete all checkpoints except the newest two and the `keep` best, and delete unfinished files.

    Checkpoints of later steps than the state's are deleted too: they are damaged. A folder is renamed to an
    unfinished one before it is deleted, so that a partly deleted checkpoint is never read as a complete one.
    """
    steps = [step_of(path) for path in resumable(run) if step_of(path) <= state.step][:RESUMABLE]
    best = {entry["step"] for entry in best_validations(state.history, keep)}
    with suppress(OSError):  # the rest is deleted the next time
        for folder in checkpoint_folders(run):
            if step_of(folder) not in best | set(steps):
                shutil.rmtree(unfinished := _unfinished(folder), ignore_errors=True)
                folder.rename(unfinished)
            elif step_of(folder) not in steps:
                (folder / OPTIMIZER).unlink(missing_ok=True)
        for pattern in (".*.tmp", "checkpoints/.*.tmp", "checkpoints/*/.*.tmp"):
            for path in run.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def has_weights(run: Path, step: int) -> bool:
    """Whether the checkpoint of a step exists. It does not exist if the disk was full."""
    return (checkpoint_folder(run, step) / WEIGHTS).is_file()


def model_step(run: Path) -> int | None:
    """The step of the model in the run folder, None without a model."""
    path = run / WEIGHTS
    return int(load_tensors(path)[1]["step"]) if path.is_file() else None


def average_weights(run: Path, steps: Iterable[int]) -> dict[str, Tensor]:
    """The mean of the weights of some checkpoints, summed in float64."""
    total: dict[str, Tensor] = {}
    steps = list(steps)
    for step in steps:
        for name, tensor in load_tensors(checkpoint_folder(run, step) / WEIGHTS)[0].items():
            total[name] = total.get(name, 0) + tensor.double()
    return {name: (tensor / len(steps)).float() for name, tensor in total.items()}


def check_room(run: Path, parameters: int, keep: int, moving_average: bool) -> None:
    """Raises AsrError when the disk has no room for `keep` models and three checkpoints with moments.

    The third one is written before the oldest is deleted.
    """
    needed = 4 * parameters * (keep + 1 + (RESUMABLE + 1) * (4 if moving_average else 3))
    run.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run).free
    if free < needed:
        raise AsrError(
            f"{run}: {free / 2**20:.0f} MB free, and this run will need {needed / 2**20:.0f} MB; "
            "make room, or choose another folder"
        )


def _write_folder(
    folder: Path,
    bundle: Bundle[Any],
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    average: MovingAverage | None,
) -> None:
    """Write all files under another name, then rename the folder."""
    unfinished = _unfinished(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with average.in_place() if average else nullcontext():
            bundle.save(unfinished, step=state.step)
        adapters = any(is_adapter(name) for name, _ in bundle.network.named_parameters())
        tensors = training_tensors(bundle, optimizer, average is not None or adapters)
        # safetensors cannot read a file without metadata and tensors, the case when all steps were skipped.
        save_tensors(unfinished / OPTIMIZER, tensors, {"format": "pt"})
        names = (CONFIG, TOKENIZER, WEIGHTS, OPTIMIZER)
        _save_state(unfinished, state, {name: _checksum(unfinished / name) for name in names})
        shutil.rmtree(folder, ignore_errors=True)  # one of the best, without moments
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)  # free the disk space for the next checkpoint
        raise


def training_tensors(bundle: Bundle[Any], optimizer: torch.optim.Optimizer, live: bool) -> dict[str, Tensor]:
    """The moments of every weight and, if `live`, the weight itself, which is not in the model."""
    weights = bundle.network.named_parameters() if live else ()
    return moments_of(bundle.network, optimizer) | {f"{name}/{_LIVE}": p for name, p in weights}


def _save_state(folder: Path, state: TrainState, checksums: dict[str, str]) -> None:
    values = state.to_json()
    with atomic_write(folder / TRAINER) as out:
        json.dump(values | {"checksums": checksums | {TRAINER: _text_checksum(values)}}, out, indent=1)


def _checksums_in(folder: Path) -> dict[str, str]:
    return json.loads((folder / TRAINER).read_text(encoding="utf-8")).get("checksums", {})


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text_checksum(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.tmp")
