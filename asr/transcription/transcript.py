"""Transcripts: text with segments, words, times and confidence."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Alternative:
    """Another text of a segment, with a lower rank."""

    text: str
    score: float | None  # the score for ranking; a natural logarithm, higher is better
    confidence: float  # geometric mean of the token probabilities, 0 to 1


@dataclass(frozen=True)
class Character:
    """A character with its time in the recording, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Word:
    """A word with its time in the recording, in seconds. In a script without spaces, one character."""

    text: str
    start: float
    end: float
    confidence: float  # 0 to 1; calibrated if the model folder has a calibration
    characters: tuple[Character, ...] = ()


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
    words: tuple[Word, ...] = ()  # of a model with a CTC head or alignment heads
    channel: int | None = None  # from 1, if channels were decoded separately
    no_speech: float | None = None  # probability that nobody speaks, with `fallback` or its threshold


def word_spans(segment: Segment) -> list[tuple[int, int]]:
    """Where each word of a segment begins and ends in its text. A word that is not in it has no width."""
    spans, end = [], 0
    for word in segment.words:
        place = segment.text.find(word.text, end)
        start = max(place, end)
        end = start + (len(word.text) if place >= 0 else 0)
        spans.append((start, end))
    return spans


@dataclass(frozen=True)
class StreamResult:
    """A segment of audio that is coming in. Times are in seconds from the start of the stream."""

    segment: Segment
    final: bool  # whether it has ended; else its text can change

    @property
    def text(self) -> str:
        return self.segment.text


@dataclass(frozen=True)
class Transcript:
    """The text of one recording."""

    id: str  # the id in the manifest, or the path as it was given
    audio: str  # the path, or "" for data in memory
    text: str
    duration: float  # seconds of audio that were read
    segments: tuple[Segment, ...]
    model: str = field(default="", compare=False)  # the model folder, or "" for a model in memory
    options: dict[str, Any] = field(default_factory=dict, compare=False)  # of decoding, those that were set

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments."""
        return tuple(word for segment in self.segments for word in segment.words)

    def by_channel(self) -> dict[int | None, tuple[Segment, ...]]:
        """The segments of each channel. With `channels` "separate" those of two channels can overlap."""
        channels = dict.fromkeys(segment.channel for segment in self.segments)
        return {
            c: tuple(s for s in self.segments if s.channel == c)
            for c in sorted(channels, key=lambda c: c or 0)
        }

    @property
    def separator(self) -> str:
        """What stands between segments: a space, or nothing in a script without spaces."""
        return "" if len(self.text) == sum(len(segment.text) for segment in self.segments) else " "

    def to_json(self, indent: int | None = None) -> str:
        """As a JSON object. `asr score` reads a file of such lines."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=indent)
        # The bytes of a path that is not UTF-8 are lone surrogates here; JSON has an escape for them.
        return text.encode("utf-8", "backslashreplace").decode()
