"""Configuration sections about training: the optimizer and the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from asr.section import Fraction, Positive, Section


class OptimConfig(Section):
    """AdamW and its schedule."""

    lr: float = Field(1e-3, gt=0, description="the peak of the schedule")
    schedule: Literal["inverse_sqrt", "cosine", "constant"] = "inverse_sqrt"
    warmup_steps: int = Field(1000, ge=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    eps: float = Field(1e-9, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(5.0, gt=0)
    accumulate: Positive = 1  # batches on each device whose gradients make one step
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the moving average of the weights")


class TrainConfig(Section):
    """The training loop."""

    seed: int = Field(0, ge=0)
    init: Path | None = None  # a model folder to start from; characters it does not have begin anew
    freeze: tuple[str, ...] = ()  # weights left as they are: patterns of names, such as encoder.*
    steps: Positive = 10000  # optimizer steps in all
    ctc_weight: Fraction = 0.3
    label_smoothing: Fraction = 0.1
    token_noise: Fraction = 0.0  # share of the decoder's given characters replaced by others
    precision: Literal["auto", "float32", "bf16"] = "auto"  # auto: bf16 where the device multiplies it faster
    compile: bool = False  # torch.compile; takes minutes to begin, and a C++ compiler on a CPU
    max_skipped: int = Field(20, ge=0, description="steps whose loss is not finite before training stops")
    validate_every: Positive = 500  # steps
    patience: Positive | None = None  # validations without a better CER after which training stops
    checkpoint_every: Positive = 500  # steps; besides, one is written at every stop
    average: Positive = 5  # checkpoints with the best dev CER whose weights are averaged at the end
    stop_wer: float | None = Field(None, ge=0, description="stop as soon as the dev WER is this low")
    show: int = Field(3, ge=0, description="transcripts shown at each validation")


class LanguageTrainConfig(Section):
    """The training loop."""

    seed: int = Field(0, ge=0)
    steps: Positive = 10000  # optimizer steps in all
    precision: Literal["auto", "float32", "bf16"] = "auto"  # auto: bf16 where the device multiplies it faster
    validate_every: Positive = 500  # steps
    checkpoint_every: Positive = 500  # steps; besides, one is written at every stop
