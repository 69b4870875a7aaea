"""The base of all configuration sections. Sections of several kinds resolve their kind here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from asr.files import atomic_write

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A part of a configuration. Unknown keys, infinity and NaN are refused. An instance never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        """Name the keys that exist; pydantic's own message does not."""
        if isinstance(values, Mapping):
            known = cls.known_keys()
            unknown = {str(key): value for key, value in values.items() if key not in known}
            cls.refuse(unknown, f"unknown key; this section has {', '.join(known)}")
        return values

    @classmethod
    def refuse(cls, keys: Mapping[str, Any], message: str) -> None:
        """Raises ValidationError that names each of the keys, if there are any."""
        if keys:
            error = PydanticCustomError("refused_key", message)
            raise ValidationError.from_exception_data(
                cls.__name__,
                [InitErrorDetails(type=error, loc=(key,), input=value) for key, value in keys.items()],
            )

    @classmethod
    def known_keys(cls) -> tuple[str, ...]:
        """The keys that this section accepts."""
        return tuple(cls.model_fields)

    def save(self, path: Path) -> None:
        """Write as JSON, atomically. `load_config` reads it back, because JSON is YAML."""
        with atomic_write(path) as out:
            out.write(self.model_dump_json(indent=2) + "\n")


def load_kind(kinds: Mapping[str, str], kind: str) -> Any:
    """The class of a kind: `kinds` gives "module:Class" for each. The module is imported now.

    Raises ValueError for an unknown kind.
    """
    if kind not in kinds:
        raise ValueError(f"unknown kind {kind!r}; choose one of {', '.join(kinds)}")
    module, _, name = kinds[kind].partition(":")
    return getattr(import_module(module), name)


def kind_of(value: Any, default: str) -> str:
    """The kind of a section, from its values or its instance."""
    kind = value.get("kind", default) if isinstance(value, Mapping) else getattr(value, "kind", default)
    return str(kind)


def of_kind(kinds: Mapping[str, str], default: str) -> BeforeValidator:
    """A validator for a section of several kinds: its key `kind` chooses the class, `default` without one.

    The section is an instance of `Config` inside that class.
    """

    def read(value: Any) -> Any:
        if isinstance(value, Section):
            return value
        if not isinstance(value, Mapping):
            raise ValueError("a section of settings is needed, such as {kind: ...}")
        return load_kind(kinds, kind_of(value, default)).Config.model_validate(value)

    return BeforeValidator(read)


class FeaturesSection(Section):
    """Settings that every kind of features has."""

    kind: str
    sample_rate: Positive = Field(16000, le=10**6, description="samples in a second, in Hz")

    @property
    def level_matters(self) -> bool:
        """Whether features change with the level of the audio. Recordings are then brought to one level."""
        return True


class TokenizerSection(Section):
    """Settings that every kind of tokenizer has."""

    kind: str


class ModelSection(Section):
    """Settings that every kind of model has."""

    kind: str

    @property
    def width(self) -> int:
        """The size of the states that most of the computing time goes to."""
        raise NotImplementedError


class PartSection(Section):
    """Settings that every front end, encoder and decoder has."""

    kind: str
    d_model: Positive = Field(256, description="size of the states")
