"""Configuration sections about data: manifests, text, and the augmentation of audio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from asr.features.settings import SpecAugmentConfig, VocalTractConfig
from asr.section import Fraction, Positive, Section


class JoinConfig(Section):
    """Strings joined on the fly from recordings of one speaker, with random pauses between them."""

    order: Literal["random", "neighbors"] = Field(
        "random",
        description="which recordings of the speaker are joined; neighbors: consecutive lines of "
        "the manifest",
    )
    per_epoch: int = Field(
        0, ge=0, description="joined strings in each epoch, in addition to every single utterance"
    )
    min_items: Positive = Field(3, description="fewest recordings in a string")
    max_items: Positive = Field(10, description="most recordings in a string")
    max_seconds: float = Field(
        20.0, gt=0, description="longest total of the recordings; further recordings are left out"
    )
    min_pause: float = Field(0.05, ge=0, description="shortest pause between recordings, in seconds")
    max_pause: float = Field(0.6, ge=0, description="longest pause between recordings, in seconds")
    separator: str = Field(
        " ", description="text between the joined texts; empty for scripts written without spaces"
    )

    @model_validator(mode="after")
    def _ordered(self) -> JoinConfig:
        if self.min_items > self.max_items or self.min_pause > self.max_pause:
            raise ValueError("min_items must not exceed max_items, nor min_pause max_pause")
        return self


class NoiseConfig(Section):
    """Recorded noise from a folder, added at a signal-to-noise ratio."""

    folder: Path = Field(description="folder of noise recordings")
    probability: Fraction = Field(0.5, description="share of the examples that get noise")
    snr_db: tuple[float, float] = Field(
        (5.0, 25.0), description="lowest and highest signal-to-noise ratio, in dB"
    )

    @model_validator(mode="after")
    def _ordered(self) -> NoiseConfig:
        if self.snr_db[0] > self.snr_db[1]:
            raise ValueError("snr_db must be [low, high], the lower ratio first")
        return self


class RoomConfig(Section):
    """Room impulse responses from a folder, with which the audio is convolved."""

    folder: Path = Field(description="folder of room impulse responses")
    probability: Fraction = Field(0.3, description="share of the examples that get a room")


class AugmentConfig(Section):
    """Changes to the audio in training. All are functions of (seed, epoch, position in the epoch)."""

    specaugment: SpecAugmentConfig | None = Field(SpecAugmentConfig(), description="masks on the features")
    vocal_tract: VocalTractConfig | None = Field(
        None, description="vocal tract length perturbation, on the features"
    )
    speeds: tuple[float, ...] = Field(
        (1.0,), description="speed factors; one is drawn for each utterance, and the pitch changes too"
    )
    gain_db: float = Field(0.0, ge=0, description="largest change of the level, up or down")
    edge_silence: float = Field(0.0, ge=0, description="longest silence added before and after, in seconds")
    noise_db: tuple[float, float] | None = Field(
        None, description="lowest and highest level of added white noise, in dBFS"
    )
    silence: int = Field(
        0, ge=0, description="examples of only silence or noise, with empty text, in each epoch"
    )
    join: JoinConfig = Field(JoinConfig(), description="strings of recordings")
    rooms: RoomConfig | None = Field(None, description="room impulse responses")
    noise: NoiseConfig | None = Field(None, description="recorded noise")

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


class TextInjectionConfig(Section):
    """Sentences without audio: the encoder reads simulated phonemes in place of audio (text injection)."""

    file: Path = Field(description="JSON lines with text and phonemes, in which spaces separate words")
    sentences: Positive = Field(8, description="sentences that go with each batch of audio")
    weight: float = Field(0.3, gt=0, description="factor of this loss, which is added to the others")


class DataConfig(Section):
    """Which manifests, and which of their utterances."""

    train: tuple[Path, ...] = Field((), description="manifests to train on")
    weights: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        description="passes over each manifest of train in an epoch, such as 3 or 0.5; empty: one pass",
    )
    dev: tuple[Path, ...] = Field((), description="manifests to validate on")
    exclude_speakers: tuple[str, ...] = Field(
        (), description="speakers that are left out of training and validation"
    )
    first: Positive | None = Field(
        None, description="use only this many utterances of each set, the first ones"
    )
    distinct_texts: bool = Field(False, description="use only the first utterance with each text")
    unknown_characters: Literal["refuse", "unk"] = Field(
        "refuse", description="what happens to characters that the tokenizer does not have"
    )
    min_seconds: float = Field(0.05, ge=0, description="shorter utterances are left out")
    max_seconds: float = Field(30.0, gt=0, description="longer utterances are left out")
    shard_pool: Positive | None = Field(
        None,
        description="number of shards of `asr data shard` in a pool; a pool is read and shuffled "
        "together, and pools follow one another; null: everything is shuffled",
    )
    batch_seconds: float = Field(120.0, gt=0, description="most seconds of audio in a batch, with padding")
    max_batch: Positive = Field(256, description="most utterances in a batch")
    pad_seconds: float = Field(
        0.0,
        ge=0,
        description="batches are padded to a multiple of these seconds, such as 0.5; training on a CPU in "
        "bf16 is then faster, because kernels are compiled for each shape of a batch",
    )
    pad_tokens: Positive = Field(1, description="the same for texts, in tokens, such as 16")
    workers: int = Field(2, ge=1, description="threads that decode audio")
    cache_mb: int = Field(
        512, ge=0, description="megabytes of decoded audio that are kept in memory between epochs"
    )
    max_bad: int = Field(
        100, ge=0, description="training stops when more recordings than this cannot be read"
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> DataConfig:
        if self.min_seconds > self.max_seconds:
            raise ValueError(
                f"min_seconds {self.min_seconds} is above max_seconds {self.max_seconds}; lower min_seconds"
            )
        return self

    @model_validator(mode="after")
    def _a_weight_for_each(self) -> DataConfig:
        if self.weights and len(self.weights) != len(self.train):
            raise ValueError(
                f"{len(self.weights)} weights for {len(self.train)} manifests in train; give one for each"
            )
        return self


class TextConfig(Section):
    """The text of a language model: UTF-8, one sentence a line, plain, .gz or .xz."""

    text: tuple[Path, ...] = Field((), description="files to train on")
    dev: tuple[Path, ...] = Field((), description="held-out files; or set hold_out")
    hold_out: int = Field(
        0, ge=0, description="number of lines at the end of the last file that are held out"
    )
    case: Literal["as_is", "upper", "lower"] = Field("as_is", description="case of the letters in training")
    characters_of: Path | None = Field(
        None,
        description="a model folder whose characters are used; sentences with other characters are left out",
    )
    max_characters: Positive = Field(400, description="longer sentences are left out")
    batch_characters: Positive = Field(16384, description="most characters in a batch, with padding")

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> TextConfig:
        if self.dev and self.hold_out:
            raise ValueError("dev and hold_out are two ways to hold text out; keep one")
        if self.max_characters >= self.batch_characters:
            raise ValueError(
                f"a sentence of max_characters {self.max_characters} and its EOS do not fit into "
                f"batch_characters {self.batch_characters}; raise batch_characters"
            )
        return self
