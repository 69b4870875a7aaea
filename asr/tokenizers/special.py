"""The special tokens of a vocabulary. Decoders and losses get them from here and have no constants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SpecialTokens:
    """Ids with a meaning of their own, and the size of the vocabulary that they belong to."""

    prompt: tuple[int, ...]  # every text begins with these: BOS alone, or Whisper's four
    eos: int  # ends a text
    pad: int  # fills up shorter texts of a batch
    blank: int  # CTC's output where no token begins
    suppressed: tuple[int, ...]  # never decoded, such as PAD and BOS
    vocabulary_size: int

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SpecialTokens:
        """The tokens from what `dataclasses.asdict` returned, after it was JSON."""
        lists = {name: tuple(values[name]) for name in ("prompt", "suppressed")}
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class PromptTokens:
    """The tokens with which a prompt asks for a language, a task or times (Radford et al. 2022, section 2.3).

    A prompt is: [previous, earlier text], start, [language], [task], [no_timestamps].
    """

    start: int
    languages: dict[str, int] = field(default_factory=dict)  # by code, such as "de"
    tasks: dict[str, int] = field(default_factory=dict)  # "transcribe", "translate"
    no_timestamps: int | None = None
    first_timestamp: int | None = None  # the id of 0.00 s; those of later times follow, up to the last id
    timestamp_seconds: float = 0.02  # from one timestamp to the next
    last_initial_timestamp: int | None = None  # the latest time at which a text may begin, in timestamps
    previous: int | None = None  # comes before the text of the earlier audio
    no_speech: int | None = None  # its probability after `start`: how likely there is no speech
    suppressed_at_begin: tuple[int, ...] = ()  # never the first token of a text

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PromptTokens:
        """The tokens from what `dataclasses.asdict` returned, after it was JSON."""
        return cls(**{**values, "suppressed_at_begin": tuple(values.get("suppressed_at_begin", ()))})
