"""NIST's formats with times: stm (segments with their text) and ctm (words); times are in seconds.

Both are described in the manual of sclite, `doc/infmts.htm` of NIST's SCTK.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from asr.errors import AsrError
from asr.scoring.tables import numbered

IGNORED = "IGNORE_TIME_SEGMENT_IN_SCORING"
"""The text of segments that are not to be scored, whatever a recogniser heard there."""


class Word(NamedTuple):
    """One word of a ctm."""

    recording: tuple[str, str]  # file and channel
    start: float
    duration: float
    text: str
    line: int


@dataclass(frozen=True)
class Segment:
    """One segment of an stm. `id` is file, channel, speaker and times, joined by hyphens."""

    recording: tuple[str, str]  # file and channel
    start: float
    end: float
    text: str
    id: str
    attributes: dict[str, Any]
    line: int


def stm(content: str, path: Path) -> list[Segment]:
    """Segments of an stm: `file channel speaker start end [<labels>] text`.

    Those whose text is IGNORED are left in: whoever scores decides. Raises AsrError with the line for too
    few fields and times that are none or run backwards.
    """
    segments = []
    for number, line in numbered(content):
        if line.startswith(";;") or not line.strip():
            continue
        fields = line.split(None, 5)
        if len(fields) < 5:
            raise AsrError(
                f"{path}, line {number}: {len(fields)} fields; stm is `file channel speaker start end text`"
            )
        file, channel, speaker, start, end = fields[:5]
        begin, finish = _seconds(start, path, number), _seconds(end, path, number)
        if finish < begin:
            raise AsrError(f"{path}, line {number}: the segment ends ({end}) before it starts ({start})")
        text, attributes = (fields[5].strip() if len(fields) > 5 else ""), {"speaker": speaker}
        if text.startswith("<") and ">" in text:
            labels, _, text = text[1:].partition(">")
            attributes["label"], text = labels.strip(), text.strip()
        id = "-".join((file, channel, speaker, start, end))
        segments.append(Segment((file, channel), begin, finish, text, id, attributes, number))
    return segments


def ctm(content: str, path: Path) -> list[Word]:
    """Words of a ctm: `file channel start duration word [confidence]`.

    Raises AsrError with the line for too few fields, times that are none, words of one file and channel
    whose starts run backwards, and alternatives (<ALT>), which are not supported.
    """
    words: list[Word] = []
    latest: dict[tuple[str, str], Word] = {}
    for number, line in numbered(content):
        if line.startswith(";;") or not line.strip():
            continue
        fields = line.split()
        if len(fields) < 5:
            raise AsrError(
                f"{path}, line {number}: {len(fields)} fields; ctm is `file channel start duration word`"
            )
        if fields[4].startswith("<ALT"):
            raise AsrError(f"{path}, line {number}: {fields[4]}: alternatives are not supported; choose one")
        start, duration = (_seconds(value, path, number) for value in fields[2:4])
        word = Word((fields[0], fields[1]), start, duration, fields[4], number)
        before = latest.get(word.recording)
        if before and before.start > start:
            raise AsrError(
                f"{path}, line {number}: out of order: {start:g} s comes after {before.start:g} s (line "
                f"{before.line}) in {' '.join(word.recording)}; sort it by file, channel and start"
            )
        latest[word.recording] = word
        words.append(word)
    return words


def by_recording(content: str, path: Path) -> Iterator[tuple[int, str, str, dict[str, Any]]]:
    """Rows of one text per file, of all its words. Raises AsrError for a file with several channels."""
    texts: dict[str, list[Word]] = {}
    for word in ctm(content, path):
        others = texts.setdefault(word.recording[0], [])
        if others and others[0].recording != word.recording:
            raise AsrError(
                f"{path}, line {word.line}: {word.recording[0]} has channels {others[0].recording[1]} and "
                f"{word.recording[1]}; give the references as stm, which tells channels apart"
            )
        others.append(word)
    for file, words in texts.items():
        yield words[0].line, file, " ".join(word.text for word in words), {}


def assign(words: Sequence[Word], segments: Sequence[Segment]) -> dict[str, str]:
    """Text by segment id: each word in the segment of its recording that holds its midpoint, or the nearest.

    A word beside all segments is an insertion into the nearest one. Words of a recording without segments
    make one text by themselves, with the id `file-channel`.
    """
    places: dict[tuple[str, str], list[Segment]] = {}
    for segment in sorted(segments, key=lambda segment: segment.start):
        places.setdefault(segment.recording, []).append(segment)
    starts = {recording: [s.start for s in found] for recording, found in places.items()}
    heard: dict[str, list[str]] = {segment.id: [] for segment in segments}
    for word in words:
        middle = word.start + word.duration / 2
        if not (found := places.get(word.recording)):
            heard.setdefault("-".join(word.recording), []).append(word.text)
            continue
        after = bisect_right(starts[word.recording], middle)
        # Segments of a channel hardly overlap: the last to start before the word, and its neighbours.
        near = found[max(0, after - 2) : after + 1]
        best = min(near, key=lambda s: max(s.start - middle, middle - s.end, 0.0))
        heard[best.id].append(word.text)
    return {id: " ".join(texts) for id, texts in heard.items()}


def _seconds(value: str, path: Path, number: int) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise AsrError(f"{path}, line {number}: {value!r} is no time in seconds; check the fields")
    return seconds
