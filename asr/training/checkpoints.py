"""Checkpoints of a run: complete or absent, never half written.

run/                     a model folder: the best so far, at the end the average of the best
  checkpoints/step-00000500/    a model folder each, with trainer.json
                                and, in the newest one, optimizer.safetensors

With a moving average of the weights, the average is the model, and the weights lie with the moments.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr.config import Config, LanguageConfig
from asr.errors import AsrError
from asr.files import atomic_write
from asr.model_folder import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    load_tensors,
    read_config,
    save_tensors,
)
from asr.tokenizers import load_tokenizer
from asr.training.optimizer import moments_of, restore_moments
from asr.training.weights import MovingAverage

OPTIMIZER, TRAINER = "optimizer.safetensors", "trainer.json"
LIVE = "live"  # the weight that is trained, beside its moments


@dataclass
class Progress:
    """Where a run stands. With the weights and the optimizer's moments, it is all that resuming needs."""

    step: int = 0  # optimizer steps done
    epoch: int = 0
    position: int = 0  # batches of this epoch's plan done
    seconds: float = 0.0  # of training, over all sittings
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry for each validation
    bad: list[str] = field(default_factory=list)  # recordings that could not be read, one message each
    skipped: int = 0  # steps whose gradient was not finite


def save_checkpoint(
    run: Path,
    bundle: Bundle,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    average: MovingAverage | None = None,
) -> None:
    """Write a checkpoint, then delete what is no longer needed: all but the newest and the best to average.

    Raises AsrError when it cannot be written; what was there before is then still there.
    """
    folder = folder_of(run, progress.step)
    if not (folder / OPTIMIZER).is_file():

        def write(unfinished: Path) -> None:
            with average.in_place() if average else nullcontext():
                bundle.save(unfinished, step=progress.step)
            state = _training_state(bundle, optimizer, average is not None)
            save_training_state(unfinished, state, progress)

        write_checkpoint(folder, write)
    else:  # the same step once more, validated now: only what is known about it has changed
        _save_progress(folder, progress)
    prune_checkpoints(run, progress, bundle.config.train.average)


def folder_of(run: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return run / "checkpoints" / f"step-{step:08d}"


def write_checkpoint(folder: Path, write: Callable[[Path], None]) -> None:
    """Let a checkpoint be written under another name, then give it its own: it is complete or absent.

    Raises AsrError when it cannot be written.
    """
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        write(unfinished)
        shutil.rmtree(folder, ignore_errors=True)  # of a best one there is no OPTIMIZER any more
        unfinished.rename(folder)
    except (AsrError, OSError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)  # no room: leave what there is to the next one
        step = int(folder.name.removeprefix("step-"))
        raise AsrError(f"no checkpoint of step {step}: {error}") from error


def save_training_state(folder: Path, state: dict[str, Tensor], progress: Any) -> None:
    """Write beside a model what resuming needs: the optimizer's state, and where the run stands."""
    # The entry is there because safetensors cannot read back a file without one and without tensors, which is
    # what there is when every step so far was skipped.
    save_tensors(folder / OPTIMIZER, state, {"format": "pt"})
    _save_progress(folder, progress)


def prune_checkpoints(run: Path, progress: Progress, keep: int) -> None:
    """Delete all checkpoints but the newest and the `keep` best, and whatever a process that died left.

    A checkpoint that goes gets the name of an unfinished one first: half of one is never taken for a whole.
    """
    best = {entry["step"] for entry in best_validations(progress.history, keep)} | {progress.step}
    with suppress(OSError):  # what cannot be deleted now can be the next time
        for folder in _folders(run):
            if int(folder.name.removeprefix("step-")) not in best:
                shutil.rmtree(unfinished := folder.with_name(f".{folder.name}.tmp"), ignore_errors=True)
                folder.rename(unfinished)
            elif folder != folder_of(run, progress.step):
                (folder / OPTIMIZER).unlink(missing_ok=True)
        for left in [
            path for where in ("", "checkpoints/", "checkpoints/*/") for path in run.glob(f"{where}.*.tmp")
        ]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def newest(run: Path) -> Path | None:
    """The checkpoint to resume from: the newest complete one."""
    complete = [folder for folder in _folders(run) if (folder / OPTIMIZER).is_file()]
    return complete[-1] if complete else None


def checkpoint_to_resume(config: Config | LanguageConfig, run: Path, resume: bool) -> Path | None:
    """The checkpoint that a run begins with; None: it begins at the beginning.

    Raises AsrError when the folder holds a run that is not to be resumed, another one, or none.
    """
    found = newest(run)
    if resume and not (run / CONFIG).is_file():
        raise AsrError(f"{run}: nothing to resume, there is no run; leave out --resume")
    if found is not None and not resume:
        raise AsrError(
            f"{run}: holds a run already ({found.name}); add --resume to go on, or choose another folder"
        )
    if resume and not _is_of(config, run):
        raise AsrError(
            f"{run}: was trained with another configuration ({run / CONFIG}); choose another folder"
        )
    return found  # None with `resume`: the run was killed before its first checkpoint


def _is_of(config: Config | LanguageConfig, run: Path) -> bool:
    """Whether the run in a folder is of a configuration."""
    if isinstance(config, LanguageConfig):
        return read_config(run).trains_as(config)
    return read_config(run).trains_as(config)


def check_room(run: Path, parameters: int, config: Config) -> None:
    """Refuse to begin where there is no room for the models to average and one more with its moments."""
    needed = 4 * parameters * (config.train.average + 1 + (3 if config.optim.ema is None else 4))
    run.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run).free
    if free < needed:
        raise AsrError(
            f"{run}: {free / 2**20:.0f} MB free, and this run will need {needed / 2**20:.0f} MB; "
            "make room, or choose another folder"
        )


def load_checkpoint(
    folder: Path, bundle: Bundle, optimizer: torch.optim.Optimizer, average: MovingAverage | None = None
) -> Progress:
    """Put weights and moments back in place; the progress that was stored with them.

    Raises AsrError when the weights do not fit, because the training texts have other characters now.
    """
    if load_tokenizer(folder / TOKENIZER) != bundle.tokenizer:
        raise AsrError(
            f"{folder}: the training texts have other characters than when this run began; start anew"
        )
    bundle.module.load_state_dict(load_tensors(folder / WEIGHTS)[0])
    if average is not None:
        average.restart()
    stored = load_tensors(folder / OPTIMIZER)[0]
    for name, parameter in bundle.network.named_parameters():
        if f"{name}/{LIVE}" in stored:
            parameter.data.copy_(stored[f"{name}/{LIVE}"])
    restore_moments(bundle.network, optimizer, stored)
    try:
        return Progress(**json.loads((folder / TRAINER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise AsrError(
            f"{folder / TRAINER}: cannot be read ({error}); delete {folder} to resume earlier"
        ) from None


def best_validations(history: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The validations with the lowest CER, the later one first where they tie."""
    return sorted(history, key=lambda entry: (entry["cer"], -entry["step"]))[:count]


def has_weights(run: Path, step: int) -> bool:
    """Whether the checkpoint of a step is there: for some there may have been no room on the disk."""
    return (folder_of(run, step) / WEIGHTS).is_file()


def model_step(run: Path) -> int | None:
    """The step of the model in the run folder, None where there is none."""
    path = run / WEIGHTS
    return int(load_tensors(path)[1]["step"]) if path.is_file() else None


def average_weights(run: Path, steps: list[int]) -> dict[str, Tensor]:
    """Mean of the weights of some checkpoints, summed in float64."""
    total: dict[str, Tensor] = {}
    for step in steps:
        state, _ = load_tensors(folder_of(run, step) / WEIGHTS)
        for name, tensor in state.items():
            total[name] = total.get(name, 0) + tensor.double()
    return {name: (tensor / len(steps)).float() for name, tensor in total.items()}


def _training_state(bundle: Bundle, optimizer: torch.optim.Optimizer, live: bool) -> dict[str, Tensor]:
    """The moments of every weight, and the weight itself where the model has its average."""
    weights = bundle.network.named_parameters() if live else ()
    return moments_of(bundle.network, optimizer) | {f"{name}/{LIVE}": p for name, p in weights}


def _save_progress(folder: Path, progress: Any) -> None:
    with atomic_write(folder / TRAINER) as out:
        json.dump(asdict(progress), out, indent=1)


def _folders(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))
