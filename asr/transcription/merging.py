"""Merges segments that overlap. They overlap where a recording was cut without a pause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from asr.transcription.transcript import Segment, Word

SAME = 0.3  # seconds between the middles of a word that both segments have


def merge_overlaps(segments: Iterable[Segment], separator: str) -> list[Segment]:
    """Segments in the order of time, in which each word of an overlap is in one segment only.

    If both segments have the same word at the same time, the first segment ends with this word and the second
    continues after it. If there are several such words, the one nearest to the middle of the overlap is used.
    If there is none, each word belongs to the segment on its side of the middle.
    """
    merged: list[Segment] = []
    for segment in sorted(segments, key=lambda each: each.start):
        if merged and segment.start < merged[-1].end and merged[-1].words and segment.words:
            first, second = _divide(merged.pop(), segment, separator)
            merged += [each for each in (first, second) if each.text]
        else:
            merged.append(segment)
    return merged


def _divide(first: Segment, second: Segment, separator: str) -> tuple[Segment, Segment]:
    """Two overlapping segments without their common words."""
    cut = (second.start + first.end) / 2
    common = [
        (abs(_middle(one) - cut), abs(_middle(one) - _middle(other)), i, j)
        for i, one in enumerate(first.words)
        for j, other in enumerate(second.words)
        if one.text == other.text and abs(_middle(one) - _middle(other)) < SAME and one.end > second.start
    ]
    if common:
        *_, i, j = min(common)
        before, after = first.words[: i + 1], second.words[j + 1 :]
        cut = before[-1].end
    else:
        before = tuple(word for word in first.words if _middle(word) < cut)
        after = tuple(word for word in second.words if _middle(word) >= cut)
        cut = max([cut, *(word.end for word in before[-1:])])
    cut = min([cut, *(word.start for word in after[:1])])  # a segment has all of its own words
    return (
        _with_words(replace(first, end=round(max(cut, first.start), 3)), before, separator),
        _with_words(replace(second, start=round(cut, 3)), after, separator),
    )


def _with_words(segment: Segment, words: Sequence[Word], separator: str) -> Segment:
    """The segment with some of its words. Its alternatives are dropped, because they have no times."""
    if len(words) == len(segment.words):
        return segment
    text = separator.join(word.text for word in words)
    return replace(segment, text=text, words=tuple(words), alternatives=())


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2
