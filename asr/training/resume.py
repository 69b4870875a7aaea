"""The start of a run: step 0, or a checkpoint of the same experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asr.config import Experiment
from asr.errors import AsrError
from asr.model_folder import read_config
from asr.run_folder import CONFIG, WEIGHTS, checkpoint_folders
from asr.training.checkpoints import damage_of, resumable
from asr.training.train_state import TrainState, flatten

Resume = Literal["never", "always", "if_possible"]

# Settings that a resumed run may change. All other settings determine the next batches or the weights.
MAY_CHANGE = (
    *("train.steps", "train.validate_every", "train.checkpoint_every", "train.average", "train.show"),
    *("train.patience", "train.stop_wer", "train.max_minutes", "train.max_skipped"),
    *("train.precision", "train.compile", "train.recompute"),
    *("optim.lr", "optim.schedule", "optim.warmup_steps", "optim.decay_steps", "optim.clip_norm"),
    *("optim.weight_decay", "optim.betas", "optim.eps", "optim.accumulate", "train.init"),
    *("data.train", "data.dev", "data.text", "data.workers", "data.cache_mb", "data.max_bad"),
)


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run starts with, None for step 0, and lines to report."""

    checkpoint: Path | None = None
    messages: list[str] = field(default_factory=list)


def choose_start(config: Experiment, run: Path, resume: Resume) -> Start:
    """The newest intact checkpoint of a run folder, if it is to be resumed.

    Raises AsrError when the folder holds a run that is not to be resumed or differs in settings that must not
    change, when there is nothing to resume, and when no checkpoint is intact.
    """
    checkpoints = checkpoint_folders(run)
    if not checkpoints and (run / WEIGHTS).is_file():
        raise AsrError(
            f"{run}: holds a model but no checkpoint to resume from; choose another folder, with "
            f"train.init={run} to start from its weights"
        )
    if resume == "never":
        if checkpoints:
            raise AsrError(
                f"{run}: holds a run already ({checkpoints[-1].name}); add --resume to continue it, or "
                "choose another folder"
            )
        return Start()
    if not (run / CONFIG).is_file() and not checkpoints:
        if resume == "always":
            raise AsrError(f"{run}: nothing to resume: there is no run in this folder; leave out --resume")
        return Start(None, [f"{run}: nothing to resume; starting at step 0"])
    messages = _compare(config, run)
    if not checkpoints:
        return Start(None, [*messages, f"{run}: stopped before its first checkpoint; starting at step 0"])
    for checkpoint in resumable(run):
        damage = damage_of(checkpoint)
        if damage is None:
            return Start(checkpoint, [*messages, f"resumed from {checkpoint}"])
        messages.append(f"{checkpoint.name} is damaged ({damage}); falling back to the one before")
    raise AsrError(
        f"{run}: no checkpoint is intact ({'; '.join(messages) or 'none has its optimizer state'}); start a "
        f"new run in another folder, with train.init={checkpoints[-1]} if its weights can be read"
    )


def check_data(stored: TrainState, data: str, checkpoint: Path) -> None:
    """Raises AsrError when the data of a run have changed since the checkpoint was written."""
    if stored.data and stored.data != data:
        raise AsrError(
            f"{checkpoint}: the data have changed since this run began (then {stored.data}; now {data}); "
            f"start a new run, with train.init={checkpoint} to keep the weights"
        )


def _compare(config: Experiment, run: Path) -> list[str]:
    """A line that names the settings in which the configuration differs from that of the run folder.

    Raises AsrError when some of them must not change.
    """
    before = read_config(run)
    if type(before) is not type(config):
        raise AsrError(f"{run}: holds a run of another kind of model; choose another folder")
    old, new = flatten(before.model_dump(mode="json")), flatten(config.model_dump(mode="json"))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    unsafe = [key for key in changed if key not in MAY_CHANGE]
    if unsafe:
        named = ", ".join(f"{key} {old.get(key)} (now {new.get(key)})" for key in unsafe)
        raise AsrError(
            f"{run}: has settings that a resumed run must keep: {named}; choose another folder, with "
            "train.init to start from these weights"
        )
    named = ", ".join(f"{key} {new.get(key)} (was {old.get(key)})" for key in changed)
    return [f"resumed with other settings: {named}"] if changed else []
