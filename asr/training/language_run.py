"""The run folder of a language model, and what a run shows.

run/                     a model folder: the best so far
  checkpoints/step-00000500/    the newest checkpoint: a model folder, with optimizer.safetensors
                                and trainer.json
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from asr.datasets.text import START, Place
from asr.errors import AsrError
from asr.model_folder import TOKENIZER, Bundle, load_tensors, load_weights
from asr.tokenizers import load_tokenizer
from asr.training.checkpoints import (
    OPTIMIZER,
    TRAINER,
    folder_of,
    save_training_state,
    write_checkpoint,
)
from asr.training.monitor import RunMonitor
from asr.training.optimizer import moments_of, restore_moments


@dataclass
class Standing:
    """Where a run stands. With the weights and the optimizer's moments, it is all that resuming needs."""

    sentences: int  # of the training text, which must be the same when the run goes on
    characters: int
    step: int = 0  # optimizer steps done
    place: Place = START  # in the text
    seconds: float = 0.0  # of training, over all sittings
    best: float = math.inf  # the lowest perplexity of a validation


def save_checkpoint(run: Path, bundle: Bundle, optimizer: torch.optim.Optimizer, standing: Standing) -> None:
    """Write a checkpoint, then delete the one before. Raises AsrError when it cannot be written."""

    def write(unfinished: Path) -> None:
        bundle.save(unfinished, step=standing.step)
        save_training_state(unfinished, moments_of(bundle.network, optimizer), standing)

    folder = folder_of(run, standing.step)
    write_checkpoint(folder, write)
    for other in folder.parent.glob("step-*"):
        if other != folder:
            shutil.rmtree(other)


def load_checkpoint(
    folder: Path, bundle: Bundle, optimizer: torch.optim.Optimizer, fresh: Standing
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
    if load_tokenizer(folder / TOKENIZER) != bundle.tokenizer or not same_text:
        raise AsrError(f"{folder}: the training text is not what it was when this run began; start anew")
    load_weights(bundle.network, folder)
    restore_moments(bundle.network, optimizer, load_tensors(folder / OPTIMIZER)[0])
    return standing


class LanguageStep(NamedTuple):
    """What is known of an optimizer step."""

    number: int
    epoch: int
    loss: float  # per character
    learning_rate: float
    characters: int


class LanguageMonitor(RunMonitor[LanguageStep]):
    """That of a language model."""

    def step(self, step: LanguageStep) -> None:
        """Count one optimizer step."""
        self.count(step.number, step, {"loss": step.loss, "learning_rate": step.learning_rate})

    def describe(self, recent: Sequence[LanguageStep], seconds: float) -> tuple[str, Mapping[str, float]]:
        """Loss per character, characters per second."""
        characters = sum(each.characters for each in recent)
        speed = characters / seconds
        loss = sum(each.loss * each.characters for each in recent) / characters
        line = f"epoch {recent[-1].epoch}  loss {loss:.3f}  {speed:,.0f} characters/s"
        return line, {"characters_per_second": speed}

    def validation(self, step: int, found: float) -> None:
        """The perplexity of the held-out text."""
        self.say(f"step {step}  held-out perplexity {found:.3f} per character")
        self.validated(step, {"loss": math.log(found), "perplexity": found})
