"""From aligned tokens to words with times and confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from asr.decoding.alignment import TokenSpan
from asr.tokenizers import Tokenizer
from asr.transcription.transcript import Character, Word

CONTEXT = 32  # tokens that are decoded with one: more than can share a character


def words_of(
    tokens: Sequence[int],
    spans: Sequence[TokenSpan],
    tokenizer: Tokenizer,
    seconds_per_state: float,
    start: float,
    end: float,
    spaced: bool,
) -> tuple[Word, ...]:
    """The words of a text of one segment, which goes from `start` to `end` (seconds).

    A word ends at a space, or after each character where the script is not `spaced`. Its confidence is the
    geometric mean of the probabilities of its characters.
    """
    words: list[Word] = []
    current: list[tuple[Character, float]] = []

    def close() -> None:
        if current:
            characters = tuple(character for character, _ in current)
            mean = sum(math.log(max(p, 1e-10)) for _, p in current) / len(current)
            text = "".join(character.text for character in characters)
            words.append(Word(text, characters[0].start, characters[-1].end, math.exp(mean), characters))
            current.clear()

    for text, span in _characters(tokens, spans, tokenizer):
        if text.isspace():
            close()
            continue
        if not spaced:
            close()
        first, last = (min(start + at * seconds_per_state, end) for at in (span.start, span.end))
        current.append((Character(text, round(first, 3), round(last, 3)), span.probability))
    close()
    return tuple(words)


def _characters(
    tokens: Sequence[int], spans: Sequence[TokenSpan], tokenizer: Tokenizer
) -> list[tuple[str, TokenSpan]]:
    """The characters that each token adds to the text. They share the states of the token evenly."""
    found: list[tuple[str, TokenSpan]] = []
    for last, span in enumerate(spans):
        first = max(0, last - CONTEXT)
        before, after = (tokenizer.decode(tokens[first:end]) for end in (last, last + 1))
        same = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
        # Characters of several tokens are complete only with the last one.
        del found[len(found) - len(before) + same :]
        added = after[same:]
        width = (span.end - span.start) / max(1, len(added))
        for i, character in enumerate(added):
            start = span.start + i * width
            found.append((character, TokenSpan(start, start + width, span.probability)))
    return found
