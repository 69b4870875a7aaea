"""Configuration sections about training: the optimizer and the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from asr.datasets.settings import TextInjectionConfig
from asr.section import Fraction, Positive, Section


class OptimConfig(Section):
    """The optimizer and its schedule."""

    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon for the linear layers of blocks, AdamW for all other weights"
    )
    lr: float = Field(1e-3, gt=0, description="learning rate at the peak of the schedule")
    schedule: Literal["inverse_sqrt", "cosine", "constant"] = Field(
        "inverse_sqrt", description="learning rate after the warm-up"
    )
    warmup_steps: int = Field(1000, ge=0, description="steps in which the learning rate rises from 0")
    decay_steps: int = Field(
        0, ge=0, description="last steps of the run, in which the learning rate also falls linearly to 0"
    )
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.98), description="decay of AdamW's two moments")
    eps: float = Field(1e-9, gt=0, description="AdamW's epsilon")
    weight_decay: float = Field(0.01, ge=0, description="decay of weight matrices, not of biases and norms")
    clip_norm: float = Field(5.0, gt=0, description="largest norm of the gradient; larger ones are scaled")
    accumulate: Positive = Field(
        1, description="batches on each device whose gradients are summed for one step"
    )
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the moving average of the weights")


class LoraConfig(Section):
    """Low-rank adapters of linear layers (Hu et al. 2021)."""

    rank: Positive = Field(8, description="size between the two matrices of an adapter")
    alpha: float = Field(16.0, gt=0, description="the product of the matrices is multiplied by alpha / rank")
    layers: tuple[str, ...] = Field(
        ("*attention.query", "*attention.key_value"),
        min_length=1,
        description="patterns of the names of linear layers, such as *.feed_forward.0",
    )


class LoopConfig(Section):
    """The training loop of every kind of model."""

    seed: int = Field(0, ge=0, description="random seed of weights, batches, augmentation and dropout")
    init: Path | None = Field(
        None, description="model folder to start from; weights that do not fit are initialized"
    )
    freeze: tuple[str, ...] = Field(
        (), description="patterns of the names of weights that are not trained, such as encoder.*"
    )
    trainable: Literal["all", "norms_and_biases", "lora"] = Field(
        "all",
        description="norms_and_biases: only vectors are trained; lora: only adapters, which are merged into "
        "the weights of the model; a CTC head is trained in any case",
    )
    lora: LoraConfig = Field(LoraConfig(), description="the adapters, with trainable: lora")
    steps: Positive = Field(10000, description="optimizer steps in total")
    max_minutes: float | None = Field(
        None,
        gt=0,
        description="training also ends after this time of training steps (without validations); "
        "the schedule then follows the clock, so a run cannot be repeated exactly",
    )
    precision: Literal["auto", "float32", "bf16", "fp16"] = Field(
        "auto",
        description="auto: bf16 if the device is faster with it, which is measured on a CPU; fp16 scales the "
        "loss, for GPUs without bf16",
    )
    recompute: bool = Field(
        False,
        description="gradient checkpointing: keep only the input of each block, and compute the "
        "rest again in the backward pass; less memory, about a third more time",
    )
    compile: bool = Field(
        False, description="use torch.compile; starting takes minutes, and a CPU needs a C++ compiler"
    )
    max_skipped: int = Field(
        20,
        ge=0,
        description="training stops after more consecutive steps than this without a finite gradient",
    )
    validate_every: Positive = Field(500, description="steps between validations")
    patience: Positive | None = Field(
        None, description="training stops after this many validations without a better score"
    )
    checkpoint_every: Positive = Field(
        500, description="steps between checkpoints; others are written before validations and at every stop"
    )
    average: Positive = Field(
        5, description="number of best checkpoints whose weights are averaged at the end"
    )
    show: int = Field(3, ge=0, description="number of transcripts shown at each validation")

    @model_validator(mode="after")
    def _adapters_are_trained(self) -> LoopConfig:
        if self.trainable != "lora" and self.lora != LoraConfig():
            raise ValueError("lora has no effect without adapters; set trainable to lora")
        return self


def refuse_average_of_adapters(optim: OptimConfig, train: LoopConfig) -> None:
    """Raises ValueError for a moving average together with adapters.

    A checkpoint merges the adapters of the average. A resumed run cannot separate them again.
    """
    if train.trainable == "lora" and optim.ema is not None:
        raise ValueError(
            "optim.ema and train.trainable lora cannot be used together; leave out one of the two"
        )


class PhonemeConfig(Section):
    """CTC for the phonemes of the manifests, as a second target of the encoder's intermediate head."""

    symbols: str = Field(
        min_length=1, description="the phonemes, one character each; others in the manifests are left out"
    )
    weight: float = Field(0.3, gt=0, description="factor of this loss, which is added to the others")

    @field_validator("symbols")
    @classmethod
    def _distinct(cls, symbols: str) -> str:
        if len(set(symbols)) < len(symbols):
            raise ValueError("symbols has a character twice; give each phoneme once")
        return symbols


class ScheduledSamplingConfig(Section):
    """The share of the decoder's input tokens that are its predictions rises linearly."""

    probability: Fraction = Field(0.3, description="share of the tokens that are replaced, from `end` on")
    start: int = Field(2000, ge=0, description="last step without sampling")
    end: int = Field(6000, ge=0, description="step from which the share has its full value")

    @model_validator(mode="after")
    def _in_order(self) -> ScheduledSamplingConfig:
        if self.end < self.start:
            raise ValueError(f"end {self.end} is before start {self.start}; set end to a later step")
        return self

    def at(self, step: int) -> float:
        """The share at a step of the training."""
        if step <= self.start:
            return 0.0
        return self.probability * min(1.0, (step - self.start) / max(1, self.end - self.start))


class TrainConfig(LoopConfig):
    """The training of a recognizer: the loop and the losses."""

    ctc_weight: Fraction = Field(0.3, description="share of CTC in the loss; 0: no CTC head, 1: no decoder")
    label_smoothing: Fraction = Field(0.1, description="label smoothing of the decoder's cross-entropy")
    token_noise: Fraction = Field(
        0.0, description="share of the decoder's input tokens that are replaced by random ones"
    )
    consistency: float = Field(
        0.0,
        ge=0,
        description="factor of the loss that makes CTC predict the same for two augmented views of each "
        "utterance, usually 0.2; a batch then takes about twice the time; 0: one view",
    )
    scheduled_sampling: ScheduledSamplingConfig | None = Field(
        None, description="the decoder reads some of its own predictions; null: only the true text"
    )
    phonemes: PhonemeConfig | None = Field(
        None, description="a second target; needs an encoder with a phoneme head, such as conformer"
    )
    text_injection: TextInjectionConfig | None = Field(
        None, description="sentences without audio; needs train.phonemes; null: only audio"
    )
    stop_wer: float | None = Field(
        None,
        ge=0,
        description="training stops when the WER (in scripts without spaces the CER) is at most this",
    )

    @model_validator(mode="after")
    def _consistency_has_ctc(self) -> TrainConfig:
        if self.consistency and not self.ctc_weight:
            raise ValueError(
                "train.consistency compares predictions of CTC; set train.ctc_weight above 0, or "
                "consistency to 0"
            )
        return self


class LanguageTrainConfig(LoopConfig):
    """The training of a language model: the loop."""

    average: Positive = Field(
        1, description="number of best checkpoints whose weights are averaged at the end"
    )
