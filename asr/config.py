"""One typed, validated configuration; one YAML file is one experiment.

Every field has a default, so a YAML file says only what differs. Unknown keys and values that contradict
each other are refused with the file and the line. Paths in `data` are relative to the current directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from asr.errors import AsrError
from asr.files import atomic_write

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]

# `small` is ESPnet's LibriSpeech-100 Transformer; `base` is the base model of "Attention Is All You Need".
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": dict(d_model=144, n_heads=4, d_ffn=576, encoder_layers=4, decoder_layers=4, conv_channels=32),
    "small": dict(d_model=256, n_heads=4, d_ffn=2048, encoder_layers=12, decoder_layers=6, conv_channels=256),
    "base": dict(d_model=512, n_heads=8, d_ffn=2048, encoder_layers=6, decoder_layers=6, conv_channels=256),
}


class Section(BaseModel):
    """Part of a configuration: no unknown keys, and nothing is changed once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def save(self, path: Path) -> None:
        """Write as JSON, atomically; `load_config` reads it back, JSON being YAML."""
        with atomic_write(path) as out:
            out.write(self.model_dump_json(indent=2) + "\n")


C = TypeVar("C", bound=Section)


class FeatureConfig(Section):
    """Log-mel features. Lengths in milliseconds."""

    sample_rate: Positive = 16000
    n_mels: Positive = 80
    n_fft: Positive = 512
    window_ms: float = Field(25.0, gt=0)
    hop_ms: float = Field(10.0, gt=0)
    log_floor: float = Field(
        1e-8, gt=0, description="mel energies below this are raised to it before the log"
    )

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        return round(self.sample_rate * self.hop_ms / 1000)

    @property
    def win_length(self) -> int:
        """Samples under one window."""
        return round(self.sample_rate * self.window_ms / 1000)

    @model_validator(mode="after")
    def _window_fits(self) -> FeatureConfig:
        if self.win_length > self.n_fft:
            raise ValueError(
                f"window_ms gives {self.win_length} samples, more than n_fft {self.n_fft}; raise n_fft"
            )
        if self.hop_length < 1:
            raise ValueError(f"hop_ms {self.hop_ms} is less than a sample; 10 is usual")
        return self


class BlockConfig(Section):
    """Sizes of the blocks that every Transformer is made of."""

    d_model: Positive = 256
    n_heads: Positive = 4
    d_ffn: Positive = 1024
    dropout: Fraction = 0.1
    attention_dropout: Fraction = 0.0  # of attention weights; above 0 it forgoes the fused kernels on CPU
    norm: Literal["pre", "post"] = "pre"  # post: as in the 2017 paper; needs a longer warm-up

    @model_validator(mode="after")
    def _heads_divide(self) -> BlockConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads {self.n_heads} does not divide d_model {self.d_model}")
        if self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} is odd; sinusoidal positions need an even size")
        return self


class ModelConfig(BlockConfig):
    """Sizes of the Transformer. `preset` fills in whatever is not given beside it."""

    preset: Literal["tiny", "small", "base"] | None = None
    encoder_layers: Positive = 6
    decoder_layers: Positive = 3
    conv_channels: Positive = 64
    conv_kernel: int = Field(
        0, ge=0, description="frames under the convolution in each encoder block, odd; 0: none"
    )
    ctc: bool = True  # a CTC head on the encoder

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, values: Any) -> Any:
        preset = values.get("preset") if isinstance(values, dict) else None
        if isinstance(preset, str) and preset in PRESETS:
            return PRESETS[preset] | values
        return values

    @field_validator("conv_kernel")
    @classmethod
    def _has_a_middle(cls, kernel: int) -> int:
        if kernel and kernel % 2 == 0:
            raise ValueError(f"{kernel} frames have no middle one; take an odd number, such as {kernel + 1}")
        return kernel


class SpecAugmentConfig(Section):
    """SpecAugment (Park et al. 2019): masks on the normalized features."""

    frequency_masks: int = Field(2, ge=0)
    frequency_width: int = Field(27, ge=0, description="widest frequency mask, in mel bins")
    time_masks: int = Field(5, ge=0)
    time_width: Fraction = Field(0.05, description="widest time mask, as a share of the utterance")


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
    characters: str | None = None  # the model's; None: those of the training texts
    first: Positive | None = None  # only the first so many utterances of each set
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


# Settings that leave the weights as they are: a run may be resumed with others.
_WITHOUT_EFFECT = {
    "data": ("workers", "cache_mb", "max_bad"),
    "train": ("checkpoint_every", "max_skipped", "patience", "show"),
}


class Config(Section):
    """Everything that makes an experiment; its copy is stored with the model."""

    features: FeatureConfig = FeatureConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _ctc_has_a_head(self) -> Config:
        if self.train.ctc_weight > 0 and not self.model.ctc:
            raise ValueError("train.ctc_weight is above 0 but model.ctc is off; set one to match the other")
        return self

    def trains_as(self, other: Config) -> bool:
        """Whether both give the same weights: limits, threads and what is shown may differ."""

        def essence(config: Config) -> dict[str, Any]:
            values = config.model_dump()
            for section, keys in _WITHOUT_EFFECT.items():
                values[section] = {k: v for k, v in values[section].items() if k not in keys}
            return values

        return essence(self) == essence(other)

    def overfit(self, count: int) -> Config:
        """The same model on the first `count` training utterances alone, until their WER is 0.

        Whatever hinders learning by heart is off. A model that cannot do this will not learn anything.
        """
        return self.model_validate(
            self.model_dump()
            | {
                "model": self.model.model_dump() | {"dropout": 0.0, "attention_dropout": 0.0},
                "augment": AugmentConfig(specaugment=None).model_dump(),
                "data": self.data.model_dump() | {"dev": self.data.train, "first": count},
                "optim": OptimConfig(schedule="constant", warmup_steps=20, weight_decay=0.0).model_dump(),
                "train": self.train.model_dump()
                | {
                    "label_smoothing": 0.0,
                    "token_noise": 0.0,
                    "steps": 1000,
                    "validate_every": 20,
                    "checkpoint_every": 1000,
                }
                | {"stop_wer": 0.0, "average": 1},
            }
        )


@overload
def load_config(path: str | os.PathLike[str], overrides: tuple[str, ...] = ()) -> Config: ...
@overload
def load_config(path: str | os.PathLike[str], overrides: tuple[str, ...], kind: type[C]) -> C: ...
def load_config(
    path: str | os.PathLike[str], overrides: tuple[str, ...] = (), kind: type[Section] = Config
) -> Section:
    """Read a YAML file; `overrides` are `section.key=value` with the value in YAML.

    `kind` is the configuration it holds: a recognizer's, or a language model's.

    Raises AsrError naming the file and line of the first thing wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
        tree = yaml.compose(text)
    except OSError as error:
        raise AsrError(f"{path}: cannot read the configuration ({error.strerror}); check the path") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise AsrError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    _refuse_twice(tree, path)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise AsrError(
            f"{path}: the configuration must be a mapping of sections, such as `model:` and `data:`"
        )
    for override in overrides:
        _apply(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise AsrError(_explain(error, kind, path, tree, overrides)) from None


def _refuse_twice(node: yaml.Node | None, path: Path) -> None:
    """YAML itself takes the last of two values for one key without a word."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise AsrError(f"{path}, line {key.start_mark.line + 1}: {key.value} stands twice; keep one")
            seen.add(key.value)
            _refuse_twice(value, path)


def _apply(values: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise AsrError(f"{override!r}: an override is written section.key=value, such as train.steps=2000")
    *sections, key = name.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise AsrError(f"{override!r}: {section!r} is not a section")
    try:
        values[key] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise AsrError(f"{override!r}: the value is not YAML") from None


def _explain(
    error: ValidationError,
    kind: type[Section],
    path: Path,
    tree: yaml.Node | None,
    overrides: tuple[str, ...],
) -> str:
    """The first error as one line: file and line, or override; key; what is wrong, what would be right."""
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    where = str(path)
    if (line := _line_of(tree, keys)) is not None:
        where += f", line {line}"
    wrong = ".".join(keys) + "."
    for override in overrides:  # the last one of a key wins
        given = override.partition("=")[0].strip() + "."
        if wrong.startswith(given) or (line is None and given.startswith(wrong)):
            where = repr(override)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        section: Any = kind
        for key in keys[:-1]:
            section = section.model_fields[key].annotation
            section = getattr(section, "__args__", [section])[0]
        message = f"unknown key; this section knows {', '.join(section.model_fields)}"
    more = len(error.errors()) - 1
    return f"{where}: {'.'.join(keys) or 'configuration'}: {message}" + (
        f" (and {more} more)" if more else ""
    )


def _line_of(node: yaml.Node | None, keys: list[str]) -> int | None:
    line = None
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            break
        for name, value in node.value:
            if name.value == key:
                line, node = name.start_mark.line + 1, value
                break
        else:
            break
    return line
