"""Configuration sections about data: manifests, text, and what is done to audio in training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from asr.features.settings import SpecAugmentConfig
from asr.section import Fraction, Positive, Section


class JoinConfig(Section):
    """Strings joined on the fly from recordings of one speaker, with random pauses between them."""

    order: Literal["random", "neighbours"] = "random"  # neighbours: those that follow in the manifest
    per_epoch: int = Field(0, ge=0, description="joined strings in each epoch, beside every single utterance")
    min_items: Positive = 3
    max_items: Positive = 10
    max_seconds: float = Field(20.0, gt=0, description="of recordings; what would go beyond is left off")
    min_pause: float = Field(0.05, ge=0, description="seconds")
    max_pause: float = Field(0.6, ge=0, description="seconds")
    separator: str = " "  # between the texts; empty for scripts written without spaces

    @model_validator(mode="after")
    def _ordered(self) -> JoinConfig:
        if self.min_items > self.max_items or self.min_pause > self.max_pause:
            raise ValueError("min_items must not exceed max_items, nor min_pause max_pause")
        return self


class NoiseConfig(Section):
    """Recorded noise from a folder, added at a signal-to-noise ratio."""

    folder: Path
    probability: Fraction = 0.5  # of an example to get some
    snr_db: tuple[float, float] = (5.0, 25.0)  # drawn between; of the speech's power to the noise's

    @model_validator(mode="after")
    def _ordered(self) -> NoiseConfig:
        if self.snr_db[0] > self.snr_db[1]:
            raise ValueError("snr_db must be [low, high], the lower ratio first")
        return self


class RoomConfig(Section):
    """Room impulse responses from a folder, with which the audio is convolved."""

    folder: Path
    probability: Fraction = 0.3  # of an example to be in a room


class AugmentConfig(Section):
    """What is done to the audio in training. All of it is a function of (seed, epoch, place in the epoch)."""

    specaugment: SpecAugmentConfig | None = SpecAugmentConfig()
    speeds: tuple[float, ...] = (1.0,)  # one is drawn for each utterance; pitch moves with it
    gain_db: float = Field(0.0, ge=0, description="level changes by up to this much, up or down")
    edge_silence: float = Field(0.0, ge=0, description="up to so many seconds of silence before and after")
    noise_db: tuple[float, float] | None = Field(
        None, description="white noise at a level drawn from [low, high] dBFS"
    )
    silence: int = Field(
        0, ge=0, description="examples of nothing but silence or noise in each epoch, text empty"
    )
    join: JoinConfig = JoinConfig()
    rooms: RoomConfig | None = None
    noise: NoiseConfig | None = None

    @field_validator("speeds")
    @classmethod
    def _sane_speeds(cls, speeds: tuple[float, ...]) -> tuple[float, ...]:
        if not speeds or not all(0.5 <= speed <= 2.0 for speed in speeds):
            raise ValueError("speeds must be a list of factors between 0.5 and 2.0")
        return speeds

    @field_validator("noise_db")
    @classmethod
    def _ordered_noise(cls, noise_db: tuple[float, float] | None) -> tuple[float, float] | None:
        if noise_db is not None and noise_db[0] > noise_db[1]:
            raise ValueError("noise_db must be [low, high], the lower level first")
        return noise_db


class DataConfig(Section):
    """Which manifests, and which of their utterances."""

    train: tuple[Path, ...] = ()
    dev: tuple[Path, ...] = ()
    exclude_speakers: tuple[str, ...] = ()  # left out of training and validation
    first: Positive | None = None  # only the first so many utterances of each set
    distinct_texts: bool = False  # only the first utterance with each text
    unknown_characters: Literal["refuse", "unk"] = "refuse"  # in texts, where the model has none such
    min_seconds: float = Field(0.05, ge=0)
    max_seconds: float = Field(30.0, gt=0)
    batch_seconds: float = Field(120.0, gt=0, description="padded audio in a batch, at most")
    max_batch: Positive = 256  # utterances in a batch, at most
    workers: int = Field(2, ge=1, description="threads that decode audio")
    cache_mb: int = Field(512, ge=0, description="decoded audio kept in memory between epochs")
    max_bad: int = Field(100, ge=0, description="recordings that cannot be read before training stops")

    @model_validator(mode="after")
    def _something_is_left(self) -> DataConfig:
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds {self.min_seconds} is above max_seconds {self.max_seconds}")
        return self


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
