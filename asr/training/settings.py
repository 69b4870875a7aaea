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


class LoopConfig(Section):
    """The training loop, for every kind of model."""

    seed: int = Field(0, ge=0)
    init: Path | None = None  # a model folder to start from; weights that do not fit start at random
    freeze: tuple[str, ...] = ()  # weights that are not trained: patterns of names, such as encoder.*
    steps: Positive = 10000  # optimizer steps in all
    precision: Literal["auto", "float32", "bf16"] = "auto"  # auto: bf16 on devices that are faster with it
    compile: bool = False  # torch.compile; takes minutes at the start, and needs a C++ compiler on a CPU
    max_skipped: int = Field(20, ge=0, description="skipped steps in a row before training stops")
    validate_every: Positive = 500  # steps
    patience: Positive | None = None  # validations without a better score before training stops
    checkpoint_every: Positive = 500  # steps; one is also written before each validation and at every stop
    average: Positive = 5  # checkpoints with the best scores whose weights are averaged at the end
    show: int = Field(3, ge=0, description="transcripts shown at each validation")


class TrainConfig(LoopConfig):
    """The training of a recognizer: the loop and the losses."""

    ctc_weight: Fraction = 0.3  # of the CTC loss; the attention loss has the rest
    label_smoothing: Fraction = 0.1
    token_noise: Fraction = 0.0  # share of the decoder's input tokens that are replaced by others
    stop_wer: float | None = Field(None, ge=0, description="stop as soon as the dev WER is this low")


class LanguageTrainConfig(LoopConfig):
    """The training of a language model: the loop."""

    average: Positive = 1  # checkpoints with the best scores whose weights are averaged at the end
