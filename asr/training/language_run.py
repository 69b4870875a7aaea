"""The run folder of a language model, and what a run shows.

run/                     a model folder: the best so far
  checkpoints/step-00000500/    the newest checkpoint: a model folder, with optimizer.safetensors
                                and trainer.json
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from asr.bundle import CONFIG, LANGUAGE_MODEL, TOKENIZER, kind_of, load_tensors, load_weights, save_tensors
from asr.bundle_lm import LanguageBundle
from asr.config import load_config
from asr.config_lm import LanguageConfig
from asr.datasets.text import START, Place
from asr.errors import AsrError
from asr.files import atomic_write
from asr.tokenizer import Tokenizer
from asr.training.optimizer import moments_of, restore_moments

OPTIMIZER, TRAINER = "optimizer.safetensors", "trainer.json"
LINE_EVERY = 20.0  # seconds between lines where there is no terminal to draw a bar on


@dataclass
class Standing:
    """Where a run stands. With the weights and the optimiser's moments, it is all that resuming needs."""

    sentences: int  # of the training text, which must be the same when the run goes on
    characters: int
    step: int = 0  # optimiser steps done
    place: Place = START  # in the text
    seconds: float = 0.0  # of training, over all sittings
    best: float = math.inf  # the lowest perplexity of a validation


def save_checkpoint(
    run: Path, bundle: LanguageBundle, optimizer: torch.optim.Optimizer, standing: Standing
) -> None:
    """Write a checkpoint, a model folder that is complete or absent; then delete the one before."""
    folder = run / "checkpoints" / f"step-{standing.step:08d}"
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    bundle.save(unfinished, step=standing.step)
    save_tensors(unfinished / OPTIMIZER, moments_of(bundle.network, optimizer), {"format": "pt"})
    with atomic_write(unfinished / TRAINER) as out:
        json.dump(asdict(standing), out, indent=1)
    unfinished.rename(folder)
    for other in folder.parent.glob("step-*"):
        if other != folder:
            shutil.rmtree(other)


def load_checkpoint(
    folder: Path, bundle: LanguageBundle, optimizer: torch.optim.Optimizer, fresh: Standing
) -> Standing:
    """Put weights and moments back in place; where the run stood. Raises AsrError when the text changed."""
    try:
        standing = Standing(**json.loads((folder / TRAINER).read_text(encoding="utf-8")))
        standing.place = Place(*standing.place)
    except (OSError, ValueError, TypeError) as error:
        raise AsrError(
            f"{folder / TRAINER}: cannot be read ({error}); start anew in another folder"
        ) from None
    same_text = (standing.sentences, standing.characters) == (fresh.sentences, fresh.characters)
    if Tokenizer.load(folder / TOKENIZER) != bundle.tokenizer or not same_text:
        raise AsrError(f"{folder}: the training text is not what it was when this run began; start anew")
    load_weights(bundle.network, folder)
    restore_moments(bundle.network, optimizer, load_tensors(folder / OPTIMIZER)[0])
    return standing


def checkpoint_to_resume(config: LanguageConfig, run: Path, resume: bool) -> Path | None:
    found = max((run / "checkpoints").glob("step-*"), default=None)
    if found is None:
        if resume:
            raise AsrError(f"{run}: nothing to resume, there is no checkpoint; leave out --resume")
        return None
    if not resume:
        raise AsrError(
            f"{run}: holds a run already ({found.name}); add --resume to go on, or choose another folder"
        )
    if kind_of(run) != LANGUAGE_MODEL or load_config(run / CONFIG, (), LanguageConfig) != config:
        raise AsrError(
            f"{run}: was trained with another configuration ({run / CONFIG}); choose another folder"
        )
    return found


class Monitor:
    """A progress bar or lines, and TensorBoard curves. Speed is over the time since the last report."""

    def __init__(self, run: Path, step: int, steps: int) -> None:
        self.steps, self._first, self._spent = steps, step, 0.0
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("training", total=steps, completed=step)
        self._reset()

    def __enter__(self) -> Monitor:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self.board.close()

    def say(self, line: str) -> None:
        """One line, above the bar."""
        self.console.print(line, markup=False)

    def step(self, step: int, epoch: int, loss: float, rate: float, characters: int) -> None:
        """Count one optimiser step: loss per character, learning rate, characters."""
        self.board.add_scalar("train/loss", loss, step)
        self.board.add_scalar("train/learning_rate", rate, step)
        self._loss += loss * characters
        self._characters += characters
        elapsed = time.monotonic() - self._since
        speed, mean = self._characters / elapsed, self._loss / self._characters
        line = f"epoch {epoch}  loss {mean:.3f}  {speed:,.0f} characters/s"
        self.bar.update(self.task, completed=step, description=line)
        if elapsed >= LINE_EVERY:
            self.board.add_scalar("speed/characters_per_second", speed, step)
            self._spent += elapsed
            if not self.console.is_terminal:
                left = self._spent / (step - self._first) * (self.steps - step)
                self.say(f"step {step}/{self.steps}  {line}  {left / 60:.0f} min left")
            self._reset()

    def validation(self, step: int, found: float) -> None:
        """The perplexity of the held-out text."""
        self.say(f"step {step}  held-out perplexity {found:.3f} per character")
        self.board.add_scalar("dev/loss", math.log(found), step)
        self.board.add_scalar("dev/perplexity", found, step)
        self._spent += time.monotonic() - self._since
        self._reset()  # the time of a validation is not the training's

    def _reset(self) -> None:
        self._since, self._loss, self._characters = time.monotonic(), 0.0, 0
