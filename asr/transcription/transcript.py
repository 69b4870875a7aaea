"""What was said: text with segments and times, and the formats it is written in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Alternative:
    """Another text of a segment, that was ranked lower."""

    text: str
    score: float | None  # by which texts are ranked; a natural logarithm, higher is better
    confidence: float  # geometric mean of the token probabilities, 0 to 1


@dataclass(frozen=True)
class Segment:
    """A stretch of audio that was decoded at once. Times in seconds from the start of the recording."""

    start: float
    end: float
    text: str
    confidence: float  # geometric mean of the token probabilities, 0 to 1
    finish_reason: str = "end"  # end: by itself; length, repetition: a bound, or going in circles, cut it off
    score: float | None = None  # by which it was ranked among its alternatives
    alternatives: tuple[Alternative, ...] = ()  # best first, when `n_best` asks for more than one text


@dataclass(frozen=True)
class Transcript:
    """The text of one recording."""

    id: str  # of the manifest, or the path as it was given
    audio: str  # the path, or "" for an array
    text: str
    duration: float  # seconds
    segments: tuple[Segment, ...]

    def to_json(self, indent: int | None = None) -> str:
        """As a JSON object; `asr score` reads a file of such lines."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=indent)
        # The bytes of a path that is not UTF-8 are lone surrogates here: JSON has an escape for them.
        return text.encode("utf-8", "backslashreplace").decode()


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": lambda transcript: transcript.text + "\n",
    "json": lambda transcript: transcript.to_json(indent=2) + "\n",
}
"""FinishReason of an output file -> what is written into it."""
