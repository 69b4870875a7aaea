"""Estimation of a word n-gram model from text: interpolated modified Kneser-Ney, then pruning.

Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling"; Stolcke 1998,
"Entropy-based pruning of backoff language models".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from asr.decoding.ngram.model import BOS, EOS, MAX_ORDER, UNKNOWN, ZERO, Floats, Ints, NgramModel
from asr.errors import AsrError


@dataclass
class _Level:
    """The distinct n-grams of one length: as nodes, sorted by parent and last word."""

    parent: Ints  # index in the level before
    word: Ints
    suffix: Ints  # index in the level before of the n-gram without its first word
    raw: Ints  # how often it occurs
    count: Ints  # how many different words precede it; `raw` if it is longest or begins a sentence
    kept: NDArray[np.bool_]


def estimate_ngram(
    sentences: Iterable[str],
    order: int = 3,
    vocabulary_size: int = 30_000,
    minimum_counts: Sequence[int] = (1, 1, 2, 2),
    prune: float = 0.0,
) -> NgramModel:
    """The n-gram model of sentences, words separated by spaces.

    The vocabulary is the most frequent words; all other words become the unknown word, and so do words that
    are equal to its name or to the names of the begin and the end of a sentence. n-grams of k words that
    occur less than minimum_counts[k - 1] times are left out. Then each n-gram is removed if its removal
    raises the perplexity by less than the share `prune` (such as 1e-8). Raises AsrError for an order that is
    not 1 to 4, for missing minimum counts and for too little text.
    """
    if not 1 <= order <= MAX_ORDER:
        raise AsrError(f"order {order}: give 1 to {MAX_ORDER}")
    if len(minimum_counts) < order:
        raise AsrError(
            f"minimum_counts has {len(minimum_counts)} numbers, but the order is "
            f"{order}; give {order} numbers"
        )
    lines = [words for line in sentences if (words := line.split())]
    frequency = Counter(word for line in lines for word in line)
    if len(frequency) < 2:
        raise AsrError("n-gram model: the text has fewer than two different words; give more text")
    ranked = sorted(frequency.items(), key=lambda item: (-item[1], item[0]))[:vocabulary_size]
    words = sorted(w for w, count in ranked if count >= minimum_counts[0] and not _is_special(w))
    if not words:
        raise AsrError(
            f"n-gram model: no word of the text occurs {minimum_counts[0]} times; give more text or lower "
            "minimum_counts"
        )
    levels = _count(lines, words, order)
    for k in range(order, 1, -1):  # an n-gram that a longer one continues is kept
        level = levels[k - 1]
        level.kept = level.raw >= minimum_counts[k - 1]
        if k < order:
            level.kept[levels[k].parent[levels[k].kept]] = True
    probabilities = _smooth(levels, len(words))
    if prune > 0:
        _prune(levels, probabilities, prune)
    return _assemble(words, levels, probabilities)


def _is_special(word: str) -> bool:
    return word in (BOS, EOS) or word.lower() == UNKNOWN


def _count(lines: list[list[str]], words: list[str], order: int) -> list[_Level]:
    """The n-grams of all lengths up to the order, and how often they occur."""
    eos, unknown, bos = (len(words) + i for i in range(3))
    size = len(words) + 3
    ids = {word: i for i, word in enumerate(words)}
    stream: list[int] = []
    for line in lines:
        stream += [bos, *(ids.get(word, unknown) for word in line), eos]
    word = np.array(stream)
    begins = np.flatnonzero(word == bos)
    place = np.arange(len(word)) - np.repeat(begins, np.diff([*begins, len(word)]))  # in its sentence
    raw = np.bincount(word, minlength=size)
    everything = np.arange(size)
    levels = [_Level(0 * everything, everything, 0 * everything, raw, raw, raw >= 0)]
    node = word.copy()  # of the n-gram that ends at each position
    for k in range(2, order + 1):
        ends = np.flatnonzero(place >= k - 1)
        keys, first, inverse, raw = np.unique(
            node[ends - 1] * size + word[ends], return_index=True, return_inverse=True, return_counts=True
        )
        suffix = node[ends[first]]
        levels.append(_Level(keys // size, keys % size, suffix, raw, raw, raw > 0))
        node[ends] = inverse
    starts = everything == bos  # n-grams with the begin of a sentence, which no word precedes
    for lower, higher in pairwise(levels):
        preceding = np.bincount(higher.suffix, minlength=len(lower.word))
        lower.count = np.where(starts, lower.raw, preceding)
        starts = starts[higher.parent]
    levels[0].count = np.where(everything == bos, 0, levels[0].count)
    return levels


def _smooth(levels: list[_Level], words: int) -> list[Floats]:
    """Interpolated probabilities of all n-grams, also of those that are not kept."""
    bos = words + 2
    probabilities: list[Floats] = []
    for k, level in enumerate(levels):
        total = np.bincount(level.parent, level.count)[level.parent]
        own = (level.count - _discounts(level.count)) / total
        own = np.where(level.kept, own, 0.0)
        rest = 1 - np.bincount(level.parent, own)[level.parent]
        lower = probabilities[-1][level.suffix] if k else np.where(level.word == bos, 0.0, 1 / (words + 2))
        probabilities.append(own + rest * lower)
    return probabilities


def _discounts(counts: Ints) -> Floats:
    """The discount of each count. Where there is too little text to estimate it: 0.5, 1 and 1.5."""
    once, twice, thrice, four = (int((counts == i).sum()) for i in range(1, 5))
    discounts = np.array([0.0, 0.5, 1.0, 1.5])
    if once and twice and thrice and four:
        share = once / (once + 2 * twice)
        found = [1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * four / thrice]
        if all(0 < d <= i for i, d in enumerate(found, 1)):
            discounts[1:] = found
    taken: Floats = discounts[np.minimum(counts, 3)]
    return taken


def _prune(levels: list[_Level], probabilities: list[Floats], threshold: float) -> None:
    """Drop the n-grams that back-off replaces nearly as well, the longest first (Stolcke 1998).

    The probability of a history is estimated from its count. Kneser-Ney's lower orders do not estimate it.
    """
    total = levels[0].raw.sum()
    for k in range(len(levels) - 1, 0, -1):
        level, parent = levels[k], levels[k].parent
        p, lower = probabilities[k], probabilities[k - 1][level.suffix]
        explicit = np.bincount(parent, p * level.kept)[parent]
        explicit_lower = np.bincount(parent, lower * level.kept)[parent]
        left = np.maximum(1 - explicit, 1e-12)
        backoff = np.log(left / np.maximum(1 - explicit_lower, 1e-12))
        without = np.log(np.maximum(left + p, 1e-12) / np.maximum(1 - explicit_lower + lower, 1e-12))
        change = p * (np.log(lower) + without - np.log(p)) + left * (without - backoff)
        history = levels[k - 1].raw[parent] / total
        needed = np.zeros(len(p), bool)
        if k + 1 < len(levels):
            needed[levels[k + 1].parent[levels[k + 1].kept]] = True
        level.kept &= needed | (np.expm1(-history * change) >= threshold)


def _assemble(words: list[str], levels: list[_Level], probabilities: list[Floats]) -> NgramModel:
    """The model of the n-grams that are kept; back-off weights make its probabilities sum to one."""
    orders: list[tuple[Ints, Floats, Floats]] = []
    grams = levels[0].word[:, None]
    actual = probabilities[0]  # of all n-grams, by the model as it is kept so far
    spelled = [grams]
    backoffs: list[Floats] = []
    for k in range(1, len(levels)):
        level, size = levels[k], len(levels[k - 1].word)
        grams = np.concatenate([grams[level.parent], level.word[:, None]], 1)
        spelled.append(grams)
        lower = actual[level.suffix]
        explicit = np.bincount(level.parent, probabilities[k] * level.kept, size)
        explicit_lower = np.bincount(level.parent, lower * level.kept, size)
        backoff = np.maximum(1 - explicit, 1e-12) / np.maximum(1 - explicit_lower, 1e-12)
        backoffs.append(np.log(backoff))
        actual = np.where(level.kept, probabilities[k], backoff[level.parent] * lower)
    backoffs.append(np.zeros(len(levels[-1].word)))
    for level, grams, p, backoff in zip(levels, spelled, probabilities, backoffs, strict=True):
        log_prob = np.where(p > 0, np.log(np.maximum(p, 1e-300)), ZERO)
        orders.append((grams[level.kept], log_prob[level.kept], backoff[level.kept]))
    return NgramModel.from_ngrams(words, orders)
