"""NIST's formats with times: stm (segments with their text) and ctm (words); times are in seconds.

Both are described in the manual of sclite, `doc/infmts.htm` of NIST's SCTK.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from asr.errors import AsrError
from asr.scoring.tables import numbered

IGNORED = "IGNORE_TIME_SEGMENT_IN_SCORING"
"""The text that marks segments which are not scored."""


class Word(NamedTuple):
    """One word of a ctm."""

    recording: tuple[str, str]  # file and channel
    start: float
    middle: float
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

    Segments whose text is IGNORED are included; the caller excludes them. Raises AsrError with the line for
    too few fields, invalid times, and an end before the start.
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

    Alternatives (lines with <ALT_BEGIN>, <ALT> and <ALT_END>) become one word, `{ a / b c / @ }`, with the
    latest midpoint of its words, as in sclite; `@` is no word.

    Raises AsrError with the line for too few fields, invalid times, starts of a file and channel that are not
    in order, and alternatives that are not begun or ended.
    """
    words: list[Word] = []
    latest: dict[tuple[str, str], Word] = {}
    alternatives: list[list[Word]] | None = None
    for number, line in numbered(content):
        if line.startswith(";;") or not line.strip():
            continue
        fields = line.split()
        if len(fields) < 5:
            raise AsrError(
                f"{path}, line {number}: {len(fields)} fields; ctm is `file channel start duration word`"
            )
        recording, mark = (fields[0], fields[1]), fields[4].upper()
        if mark in ("<ALT_BEGIN>", "<ALT>", "<ALT_END>"):
            if (mark == "<ALT_BEGIN>") != (alternatives is None):
                raise AsrError(f"{path}, line {number}: {mark} out of order; {_ALTERNATIVES}")
            if alternatives is not None and mark == "<ALT_END>":
                word = _choice(alternatives, recording, path, number)
                alternatives = None
            else:
                alternatives = [*(alternatives or []), []]
                continue
        else:
            start, duration = (_seconds(value, path, number) for value in fields[2:4])
            # Times are decimal fractions: without rounding, 1.9 + 0.2 / 2 is not exactly 2.
            word = Word(recording, start, round(start + duration / 2, 6), fields[4], number)
            if alternatives is not None:
                alternatives[-1].append(word)
                continue
        before = latest.get(recording)
        if before and before.start > word.start:
            raise AsrError(
                f"{path}, line {word.line}: out of order: {word.start:g} s comes after {before.start:g} s "
                f"(line {before.line}) in {' '.join(recording)}; sort it by file, channel and start"
            )
        latest[recording] = word
        words.append(word)
    if alternatives is not None:
        raise AsrError(f"{path}: <ALT_BEGIN> without <ALT_END>; {_ALTERNATIVES}")
    return words


_ALTERNATIVES = "alternatives are <ALT_BEGIN>, words, <ALT>, words, <ALT_END>"


def _choice(alternatives: list[list[Word]], recording: tuple[str, str], path: Path, line: int) -> Word:
    """One word for all alternatives. Raises AsrError for an empty one and for words of another recording."""
    words = [word for alternative in alternatives for word in alternative]
    if not all(alternatives) or any(word.recording != recording for word in words):
        raise AsrError(
            f"{path}, line {line}: an alternative is empty (write the word @) or of another recording; "
            f"{_ALTERNATIVES}"
        )
    start = min(word.start for word in words)
    middle = max(word.middle for word in words)
    text = " / ".join(" ".join(word.text for word in alternative) for alternative in alternatives)
    return Word(recording, start, middle, f"{{ {text} }}", words[0].line)


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
    """Text by segment id: as in sclite, each word goes to the first segment that ends after its midpoint.

    Words after the last segment of their recording go to that segment. Files and channels match without
    regard to case. Words of a recording without segments are one text, with the id `file-channel`.
    """
    by_recording: dict[tuple[str, str], list[Segment]] = {}
    for segment in sorted(segments, key=lambda segment: segment.start):
        by_recording.setdefault(_folded(segment.recording), []).append(segment)
    # Segments may overlap: with the latest end so far, bisection finds the first to end after a time.
    ends = {key: list(accumulate((s.end for s in found), max)) for key, found in by_recording.items()}
    texts: dict[str, list[str]] = {segment.id: [] for segment in segments}
    for word in words:
        key = _folded(word.recording)
        if key not in ends:
            texts.setdefault("-".join(word.recording), []).append(word.text)
            continue
        index = min(bisect_right(ends[key], word.middle), len(ends[key]) - 1)
        texts[by_recording[key][index].id].append(word.text)
    return {id: " ".join(found) for id, found in texts.items()}


def _folded(recording: tuple[str, str]) -> tuple[str, str]:
    return recording[0].casefold(), recording[1].casefold()


def _seconds(value: str, path: Path, number: int) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise AsrError(f"{path}, line {number}: {value!r} is not a time in seconds; check the fields")
    return seconds
