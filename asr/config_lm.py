"""The configuration of a language model: one YAML file, as strict as that of a recognizer (`asr.config`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from asr.config import BlockConfig, OptimConfig, Positive, Section


class LanguageModelConfig(BlockConfig):
    """Sizes of the Transformer."""

    n_layers: Positive = 4


class TextConfig(Section):
    """Which text, and how it is read. Plain files, .gz and .xz; one sentence a line, UTF-8."""

    text: tuple[Path, ...] = ()
    dev: tuple[Path, ...] = ()  # held-out text; or set hold_out
    hold_out: int = Field(0, ge=0, description="so many lines at the end of the last text are held out")
    case: Literal["as_is", "upper", "lower"] = "as_is"  # to which letters are brought
    characters_of: Path | None = None  # a model folder: its characters, and no sentence with any other
    max_characters: Positive = 400  # longer sentences are left out
    batch_characters: Positive = 16384  # in a batch at most, padding included

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> TextConfig:
        if self.dev and self.hold_out:
            raise ValueError("dev and hold_out are two ways to hold text out; keep one")
        if self.max_characters >= self.batch_characters:
            raise ValueError(
                f"a sentence of max_characters {self.max_characters} and its EOS do not fit into "
                f"batch_characters {self.batch_characters}; raise the latter"
            )
        return self


class LanguageTrainConfig(Section):
    """The training loop."""

    seed: int = Field(0, ge=0)
    steps: Positive = 10000  # optimizer steps in all
    precision: Literal["auto", "float32", "bf16"] = "auto"  # auto: bf16 where the device multiplies it faster
    validate_every: Positive = 500  # steps
    checkpoint_every: Positive = 500  # steps; besides, one is written at every stop


class LanguageConfig(Section):
    """Everything that makes a language model; its copy is stored with the model."""

    kind: Literal["language model"] = "language model"  # tells its folder from a recognizer's
    model: LanguageModelConfig = LanguageModelConfig()
    data: TextConfig = TextConfig()
    optim: OptimConfig = OptimConfig()
    train: LanguageTrainConfig = LanguageTrainConfig()

    @model_validator(mode="after")
    def _no_average(self) -> LanguageConfig:
        if self.optim.ema is not None:
            raise ValueError("optim.ema: a language model is trained without a moving average; leave it out")
        return self

    def trains_as(self, other: LanguageConfig) -> bool:
        """Whether both give the same weights: how often a checkpoint is written makes no difference."""
        ours, theirs = self.model_dump(), other.model_dump()
        ours["train"]["checkpoint_every"] = theirs["train"]["checkpoint_every"]
        return ours == theirs
