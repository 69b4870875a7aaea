"""Checkpoints of a run: complete or absent, never half written.

run/                     a model folder: the best so far, at the end the average of the best
  checkpoints/step-00000500/    a model folder each, with trainer.json
                                and, in the newest one, optimizer.safetensors
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr.bundle import TOKENIZER, WEIGHTS, Bundle, load_tensors, save_tensors
from asr.errors import AsrError
from asr.files import atomic_write
from asr.tokenizer import Tokenizer

OPTIMIZER, TRAINER = "optimizer.safetensors", "trainer.json"


@dataclass
class Progress:
    """Where a run stands. With the weights and the optimiser's moments, it is all that resuming needs."""

    step: int = 0  # optimiser steps done
    epoch: int = 0
    position: int = 0  # batches of this epoch's plan done
    seconds: float = 0.0  # of training, over all sittings
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry for each validation


def save_checkpoint(
    run: Path, bundle: Bundle, optimizer: torch.optim.Optimizer, progress: Progress, keep: int
) -> None:
    """Write a checkpoint, then delete what is no longer needed: all but the newest and the `keep` best."""
    folder = run / "checkpoints" / f"step-{progress.step:08d}"
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    bundle.save(unfinished, step=progress.step)
    save_tensors(unfinished / OPTIMIZER, _moments(bundle, optimizer), {})
    with atomic_write(unfinished / TRAINER) as out:
        json.dump(asdict(progress), out, indent=1)
    if folder.exists():  # the same step once more, after a validation: the newer one knows its scores
        shutil.rmtree(folder)
    unfinished.rename(folder)

    best = {entry["step"] for entry in best_validations(progress.history, keep)}
    for other in _folders(run):
        if other != folder and int(other.name.removeprefix("step-")) not in best:
            shutil.rmtree(other)
        elif other != folder:
            (other / OPTIMIZER).unlink(missing_ok=True)


def newest(run: Path) -> Path | None:
    """The checkpoint to resume from: the newest complete one."""
    complete = [folder for folder in _folders(run) if (folder / OPTIMIZER).is_file()]
    return complete[-1] if complete else None


def load_checkpoint(folder: Path, bundle: Bundle, optimizer: torch.optim.Optimizer) -> Progress:
    """Put weights and moments back in place; the progress that was stored with them.

    Raises AsrError when the weights do not fit, because the training texts have other characters now.
    """
    if Tokenizer.load(folder / TOKENIZER) != bundle.tokenizer:
        raise AsrError(
            f"{folder}: the training texts have other characters than when this run began; start anew"
        )
    bundle.module.load_state_dict(load_tensors(folder / WEIGHTS)[0])
    moments, _ = load_tensors(folder / OPTIMIZER)
    for name, parameter in bundle.network.named_parameters():
        entries = {key.rpartition("/")[2]: t for key, t in moments.items() if key.rpartition("/")[0] == name}
        # AdamW keeps its step count as a CPU tensor, the moments where the weights are.
        optimizer.state[parameter] = {
            k: t if k == "step" else t.to(parameter.device) for k, t in entries.items()
        }
    try:
        return Progress(**json.loads((folder / TRAINER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise AsrError(
            f"{folder / TRAINER}: cannot be read ({error}); delete {folder} to resume earlier"
        ) from None


def best_validations(history: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The validations with the lowest CER, the later one first where they tie."""
    return sorted(history, key=lambda entry: (entry["cer"], -entry["step"]))[:count]


def average(run: Path, steps: list[int]) -> dict[str, Tensor]:
    """Mean of the weights of some checkpoints, summed in float64."""
    total: dict[str, Tensor] = {}
    for step in steps:
        state, _ = load_tensors(run / "checkpoints" / f"step-{step:08d}" / WEIGHTS)
        for name, tensor in state.items():
            total[name] = total.get(name, 0) + tensor.double()
    return {name: (tensor / len(steps)).float() for name, tensor in total.items()}


def _moments(bundle: Bundle, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in bundle.network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _folders(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))
