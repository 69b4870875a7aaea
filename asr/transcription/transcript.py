"""Transcripts: text with segments and times, and the formats they are written in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Alternative:
    """Another text of a segment, with a lower rank."""

    text: str
    score: float | None  # the score for ranking; a natural logarithm, higher is better
    confidence: float  # geometric mean of the token probabilities, 0 to 1


@dataclass(frozen=True)
class Segment:
    """A part of a recording that was decoded at once.

    Times are in seconds from the start of the file, also when a manifest names only a part of the file.
    """

    start: float
    end: float
    text: str
    confidence: float  # geometric mean of the token probabilities, 0 to 1
    finish_reason: str = "end"  # end: by itself; length or repetition: cut off for this reason
    score: float | None = None  # the score by which it was ranked among its alternatives
    alternatives: tuple[Alternative, ...] = ()  # best first, when `n_best` asks for more than one text


@dataclass(frozen=True)
class Transcript:
    """The text of one recording."""

    id: str  # the id in the manifest, or the path as it was given
    audio: str  # the path, or "" for data in memory
    text: str
    duration: float  # seconds of audio that were read
    segments: tuple[Segment, ...]

    def to_json(self, indent: int | None = None) -> str:
        """As a JSON object. `asr score` reads a file of such lines."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=indent)
        # The bytes of a path that is not UTF-8 are lone surrogates here; JSON has an escape for them.
        return text.encode("utf-8", "backslashreplace").decode()


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": lambda transcript: transcript.text + "\n",
    "json": lambda transcript: transcript.to_json(indent=2) + "\n",
}
"""Suffix of an output file -> its content."""
