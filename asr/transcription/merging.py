"""Merges segments that overlap. They overlap where a recording was cut without a pause."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from asr.transcription.transcript import Segment, Word, word_spans

SAME = 0.3  # seconds between the middles of a word that both segments have


def merge_overlaps(segments: Iterable[Segment]) -> list[Segment]:
    """Segments in the order of time, in which each word of an overlap is in one segment only.

    If both segments have the same word at the same time, the first segment ends with this word and the second
    continues after it. If there are several such words, the one nearest to the middle of the overlap is used.
    If there is none, each word belongs to the segment on its side of the middle.
    """
    merged: list[Segment] = []
    for segment in sorted(segments, key=lambda each: each.start):
        if merged and segment.start < merged[-1].end and merged[-1].words and segment.words:
            first, second = _divide(merged.pop(), segment)
            merged += [each for each in (first, second) if each.text]
        else:
            merged.append(segment)
    return merged


def _divide(first: Segment, second: Segment) -> tuple[Segment, Segment]:
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
        kept, dropped = i + 1, j + 1
        cut = first.words[i].end
    else:
        kept = sum(_middle(word) < cut for word in first.words)
        dropped = sum(_middle(word) < cut for word in second.words)
        cut = max([cut, *(word.end for word in first.words[:kept][-1:])])
    cut = min([cut, *(word.start for word in second.words[dropped:][:1])])  # a segment has all of its words
    return (
        _with_words(replace(first, end=round(max(cut, first.start), 3)), 0, kept),
        _with_words(replace(second, start=round(cut, 3)), dropped, len(second.words)),
    )


def _with_words(segment: Segment, begin: int, end: int) -> Segment:
    """The segment with its words from `begin` to, not including, `end`.

    Its alternatives are dropped, because they have no times.
    """
    if end - begin == len(segment.words):
        return segment
    spans = word_spans(segment)[begin:end]
    text = segment.text[spans[0][0] : spans[-1][1]] if spans else ""
    return replace(segment, text=text, words=segment.words[begin:end], alternatives=())


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2
