"""One typed, validated configuration. One YAML file is one experiment.

Every field has a default, so a YAML file contains only what differs. Unknown keys and values that contradict
each other are refused with the file and the line. Paths in `data` are relative to the current directory.

A section belongs to the part it configures and is defined beside it. Here they are assembled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import SerializeAsAny, ValidationError, model_validator

from asr.datasets.settings import (
    AugmentConfig,
    DataConfig,
    JoinConfig,
    NoiseConfig,
    RoomConfig,
    TextConfig,
)
from asr.errors import AsrError
from asr.features.settings import SpecAugmentConfig
from asr.kinds import FEATURES, MODELS, TOKENIZERS
from asr.section import FeaturesSection, ModelSection, Section, TokenizerSection, load_kind, of_kind
from asr.training.settings import LanguageTrainConfig, OptimConfig, TrainConfig, refuse_average_of_adapters

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "Experiment",
    "JoinConfig",
    "LanguageConfig",
    "LanguageTrainConfig",
    "NoiseConfig",
    "OptimConfig",
    "RoomConfig",
    "Section",
    "SpecAugmentConfig",
    "TextConfig",
    "TrainConfig",
    "load_config",
    "load_experiment",
    "load_language_config",
]

INIT = "init"  # the kind of a section that is taken from the model of `train.init`

FeaturesField = Annotated[SerializeAsAny[FeaturesSection], of_kind(FEATURES, "log_mel")]
TokenizerField = Annotated[SerializeAsAny[TokenizerSection], of_kind(TOKENIZERS, "characters")]
ModelField = Annotated[SerializeAsAny[ModelSection], of_kind(MODELS, "encoder_decoder")]


class Experiment(Section):
    """The sections that every kind of experiment has."""

    tokenizer: TokenizerField
    model: ModelField
    optim: OptimConfig = OptimConfig()

    @model_validator(mode="before")
    @classmethod
    def _default_sections(cls, values: Any) -> Any:
        """A missing section that has several kinds becomes the default kind with default values."""
        if isinstance(values, Mapping):
            missing = [name for name in ("features", "tokenizer", "model") if name in cls.model_fields]
            return {**{name: {} for name in missing}, **values}
        return values


class Config(Experiment):
    """A recognizer. A copy of its configuration is stored with the model."""

    kind: Literal["recognizer"] = "recognizer"
    features: FeaturesField
    augment: AugmentConfig = AugmentConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="before")
    @classmethod
    def _leave_out_untrained_parts(cls, values: Any) -> Any:
        """With a CTC weight of 0 no CTC head is trained, and with 1 no decoder.

        An untrained part is neither stored nor used.
        """
        if not isinstance(values, Mapping):
            return values
        train, model = values.get("train", {}), values.get("model", {})
        weight = train.get("ctc_weight") if isinstance(train, Mapping) else getattr(train, "ctc_weight", None)
        if isinstance(model, Mapping) and model.get("kind", "encoder_decoder") == "encoder_decoder":
            without = {"ctc": False} if weight == 0 else {"decoder": None} if weight == 1 else {}
            return {**values, "model": {**model, **without}}
        return values

    @model_validator(mode="after")
    def _losses_have_heads(self) -> Config:
        has_ctc, has_decoder = (getattr(self.model, name, None) for name in ("ctc", "decoder"))
        if self.train.ctc_weight > 0 and not has_ctc:
            raise ValueError(
                "train.ctc_weight is above 0, but model.ctc is false; set ctc_weight to 0, or ctc to true"
            )
        if self.train.ctc_weight == 1 and self.train.scheduled_sampling is not None:
            raise ValueError(
                "train.scheduled_sampling needs a decoder, but train.ctc_weight 1 "
                "trains only CTC; lower the weight, or leave out scheduled_sampling"
            )
        if self.train.ctc_weight < 1 and has_decoder is None:
            raise ValueError("the model has no decoder; set train.ctc_weight to 1, or name a decoder")
        if self.train.scheduled_sampling is not None and getattr(has_decoder, "kind", "") == "mask_predict":
            raise ValueError(
                "train.scheduled_sampling: a mask_predict decoder never reads its predictions; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _average_has_no_adapters(self) -> Config:
        refuse_average_of_adapters(self.optim, self.train)
        return self

    @model_validator(mode="after")
    def _phonemes_have_a_head(self) -> Config:
        outputs = getattr(getattr(self.model, "encoder", None), "phonemes", 0)
        phonemes = self.train.phonemes
        reads = getattr(getattr(self.model, "encoder", None), "reads_phonemes", False)
        if self.train.text_injection is not None and (phonemes is None or not reads):
            raise ValueError(
                "train.text_injection needs an encoder that reads phonemes; set train.phonemes and "
                "model.encoder.reads_phonemes, or leave text_injection out"
            )
        if reads and self.train.text_injection is None:
            raise ValueError(
                "model.encoder.reads_phonemes has no effect without train.text_injection; set it to false"
            )
        if phonemes is not None and outputs != len(phonemes.symbols) + 1:
            raise ValueError(
                f"train.phonemes has {len(phonemes.symbols)} symbols, but model.encoder.phonemes is "
                f"{outputs}; set it to {len(phonemes.symbols) + 1}, one more for the blank"
            )
        return self

    def overfit(self, count: int) -> Config:
        """The same model, trained on only `count` training utterances until their WER is 0.

        All regularization is off. A model that cannot memorize a few utterances will not learn from a corpus
        either.
        """
        values = _without_dropout(self.model_dump())
        values["augment"] = AugmentConfig(specaugment=None).model_dump()
        if "reads_phonemes" in (values["model"].get("encoder") or {}):
            values["model"]["encoder"]["reads_phonemes"] = False
        values["data"] |= {"dev": self.data.train, "weights": (), "first": count, "distinct_texts": True}
        values["optim"] = OptimConfig(schedule="constant", warmup_steps=20, weight_decay=0.0).model_dump()
        values["train"] |= {
            "label_smoothing": 0.0,
            "token_noise": 0.0,
            "consistency": 0.0,
            "scheduled_sampling": None,
            "text_injection": None,
            "steps": 1000,
            "validate_every": 20,
            "patience": None,
            "max_minutes": None,
        }
        values["train"] |= {"checkpoint_every": 1000, "stop_wer": 0.0, "average": 1}
        return self.model_validate(values)


class LanguageConfig(Experiment):
    """A language model. A copy of its configuration is stored with the model."""

    kind: Literal["language model"] = "language model"  # tells its folder from a recognizer's
    data: TextConfig = TextConfig()
    train: LanguageTrainConfig = LanguageTrainConfig()

    @model_validator(mode="after")
    def _average_has_no_adapters(self) -> LanguageConfig:
        refuse_average_of_adapters(self.optim, self.train)
        return self

    @model_validator(mode="after")
    def _one_tokenizer(self) -> LanguageConfig:
        if (
            self.data.characters_of is not None
            and self.tokenizer != load_kind(TOKENIZERS, "characters").Config()
        ):
            raise ValueError(
                "tokenizer: data.characters_of already chooses the tokenizer; leave out one of the two"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _is_language_model(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("model", {}), Mapping):
            return {**values, "model": {"kind": "language_model", **values.get("model", {})}}
        return values


EXPERIMENTS: dict[str, type[Experiment]] = {"recognizer": Config, "language model": LanguageConfig}


def load_config(path: str | os.PathLike[str], overrides: tuple[str, ...] = ()) -> Config:
    """Read a recognizer's configuration from a YAML file.

    `overrides` are `section.key=value` with the value in YAML. Raises AsrError naming the file and line of
    the first thing that is wrong, and for the configuration of a language model.
    """
    config = load_experiment(path, overrides)
    if not isinstance(config, Config):
        raise AsrError(f"{path}: this is the configuration of a language model; give the one of a recognizer")
    return config


def load_language_config(path: str | os.PathLike[str], overrides: tuple[str, ...] = ()) -> LanguageConfig:
    """Read a language model's configuration, as `load_config` reads a recognizer's."""
    config = load_experiment(path, overrides, default="language model")
    if not isinstance(config, LanguageConfig):
        raise AsrError(f"{path}: this is the configuration of a recognizer; give the one of a language model")
    return config


def load_experiment(
    path: str | os.PathLike[str], overrides: tuple[str, ...] = (), default: str = "recognizer"
) -> Experiment:
    """Read a configuration of the kind that its key `kind` names, or of the default kind.

    Raises AsrError as `load_config` does.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
        tree = yaml.compose(text)
    except OSError as error:
        raise AsrError(f"{path}: cannot read the configuration ({error.strerror}); check the path") from None
    except (ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise AsrError(f"{path}: not valid YAML ({' '.join(str(error).split())}); correct the file") from None
    _refuse_duplicates(tree, path)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise AsrError(
            f"{path}: the configuration must be a mapping of sections, such as `model:` and `data:`"
        )
    apply_overrides(values, overrides)
    return validate(_with_sections_of_init(values, path), path, tree, overrides, default)


def _with_sections_of_init(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values. Sections of the kind `init` come from the model `train.init`, with changes.

    A tokenizer that was learned elsewhere is taken from the folder of that model. Raises AsrError without
    `train.init`, and when there is no such model.
    """
    taken = [
        name
        for name in ("features", "tokenizer", "model")
        if isinstance(values.get(name), dict) and values[name].get("kind") == INIT
    ]
    if not taken:
        return values
    train: Any = values.get("train")
    init = train.get("init") if isinstance(train, dict) else None
    if not init:
        raise AsrError(f"{path}: {taken[0]}.kind is init, but train.init is not set; name a model folder")
    if not isinstance(init, str):
        raise AsrError(f"{path}: train.init: {init!r} is not a path; name a model folder")
    from asr.model_folder import check_model_folder, read_config  # they use this module

    folder = check_model_folder(init)
    stored = read_config(folder).model_dump(mode="json")
    values = values | {"train": {**train, "init": str(folder)}}
    for name in taken:
        base: dict[str, Any] = stored.get(name) or {}
        if "folder" in base:
            base["folder"] = str(folder)
        values[name] = _merged(base, {k: v for k, v in values[name].items() if k != "kind"})
    return values


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with changes, section by section."""
    return base | {
        key: _merged(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in changes.items()
    }


def validate(
    values: dict[str, Any],
    path: Path,
    tree: yaml.Node | None = None,
    overrides: tuple[str, ...] = (),
    default: str = "recognizer",
) -> Experiment:
    """The configuration that values read from `path` describe. Raises AsrError as `load_config` does."""
    kind = values.get("kind", default)
    if not isinstance(kind, str) or kind not in EXPERIMENTS:
        raise AsrError(f"{path}: kind {kind!r} is unknown; choose one of {', '.join(map(repr, EXPERIMENTS))}")
    try:
        return EXPERIMENTS[kind].model_validate(values)
    except ValidationError as error:
        raise AsrError(_explain(error, path, tree, overrides)) from None


def _refuse_duplicates(node: yaml.Node | None, path: Path) -> None:
    """YAML itself silently takes the last of two values for one key."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise AsrError(
                    f"{path}, line {key.start_mark.line + 1}: {key.value} is a duplicate key; keep one"
                )
            seen.add(key.value)
            _refuse_duplicates(value, path)


def apply_overrides(values: dict[str, Any], overrides: tuple[str, ...]) -> None:
    """Change values by `section.key=value` each, the value in YAML. Raises AsrError for anything else."""
    for override in overrides:
        _apply(values, override)


def _apply(values: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise AsrError(f"{override!r}: an override is written section.key=value, such as train.steps=2000")
    *sections, key = name.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise AsrError(
                f"{override!r}: {section!r} is not a section; docs/configuration.md lists all sections"
            )
    try:
        values[key] = yaml.safe_load(value)
    except (ValueError, yaml.YAMLError):
        raise AsrError(
            f"{override!r}: the value is not valid YAML; correct it, or put it in quotes"
        ) from None


def _explain(
    error: ValidationError,
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


def _without_dropout(values: dict[str, Any]) -> dict[str, Any]:
    """The values, with every dropout rate in every section set to 0."""
    return {
        key: 0.0
        if key in ("dropout", "attention_dropout")
        else _without_dropout(value)
        if isinstance(value, dict)
        else value
        for key, value in values.items()
    }
