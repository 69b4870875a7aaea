"""Bootstrap intervals of error rates, and NIST's significance tests of two systems."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from asr.errors import AsrError
from asr.scoring.align import Counts, Edit
from asr.scoring.wer import Score

_CELLS = 4_000_000  # numbers drawn at a time; limits the memory of a bootstrap to about 100 MB


@dataclass(frozen=True)
class Interval:
    """A rate with its bootstrap confidence interval, as fractions."""

    rate: float
    low: float
    high: float
    level: float
    blocks: int  # number of utterances, speakers or other blocks that were drawn from
    samples: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Test:
    """A two-sided test of the hypothesis that two systems make equally many errors."""

    __test__ = False  # not a test for pytest

    name: str
    statistic: (
        float  # MAPSSWE: Z; sign test: blocks where the first is better; Wilcoxon: the smaller rank sum
    )
    p: float
    n: int  # segments or blocks that entered the test

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same references. Differences are first minus second: negative means the first is
    better."""

    first: float
    second: float
    difference: Interval
    probability_first_better: float  # fraction of the bootstrap samples; ties count half
    mapsswe: Test
    sign: Test
    wilcoxon: Test

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def interval(
    counts: Sequence[Counts],
    blocks: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The error rate over all counts and its percentile bootstrap interval (Bisani and Ney, ICASSP 2004).

    `counts` has the counts of each utterance: counts of words for the WER, of characters for the CER. Whole
    utterances are drawn with replacement; with `blocks`, a name for each utterance, all utterances of one
    name are drawn together. Errors of one speaker are not independent, and an interval that ignores this is
    too narrow. Equal seeds give equal intervals.

    Raises AsrError for no reference words at all, fewer than two blocks, and a level not between 0 and 1.
    """
    errors, lengths = _per_block(counts, blocks)
    rate = _ratio(errors.sum(), lengths.sum())
    drawn = np.concatenate([e / n for e, n in _draw((errors, lengths), level, samples, seed)])
    low, high = _percentiles(drawn, level)
    return Interval(rate, low, high, level, len(errors), samples)


def compare(
    first: Score,
    second: Score,
    *,
    by: Mapping[str, str] | None = None,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare the word errors of two systems on the same references.

    `by` maps utterance ids to blocks, usually speakers; without it each utterance is a block of its own. The
    bootstrap draws the same blocks for both systems. MAPSSWE is the matched-pairs sentence-segment test of
    Gillick and Cox (ICASSP 1989); sign and Wilcoxon signed-rank tests compare error rates of blocks; equal
    ones are left out.

    Raises AsrError if the two have different utterances or `by` lacks one, and as `interval` does.
    """
    ids = [utterance.id for utterance in first.utterances]
    theirs = {utterance.id: utterance for utterance in second.utterances}
    if set(ids) != set(theirs):
        odd = next(iter(set(ids) ^ set(theirs)))
        raise AsrError(
            f"utterance {odd!r} is scored for one system only; score both with the same references"
        )
    pairs = [(utterance, theirs[utterance.id]) for utterance in first.utterances]
    if by is not None and (lacking := next((id for id in ids if id not in by), None)) is not None:
        raise AsrError(f"utterance {lacking!r} has no block (speaker); name one for every utterance")
    blocks = None if by is None else [by[id] for id in ids]
    a, lengths_a = _per_block([mine.words for mine, _ in pairs], blocks)
    b, lengths_b = _per_block([other.words for _, other in pairs], blocks)
    drawn = np.concatenate(
        [x / n - y / m for x, n, y, m in _draw((a, lengths_a, b, lengths_b), level, samples, seed)]
    )
    low, high = _percentiles(drawn, level)
    rates = _ratio(a.sum(), lengths_a.sum()), _ratio(b.sum(), lengths_b.sum())
    better = float((drawn < 0).mean() + 0.5 * (drawn == 0).mean())
    # Blocks without reference words have no rate; for them the numbers of errors are compared.
    apart = a / np.maximum(lengths_a, 1) - b / np.maximum(lengths_b, 1)
    segments = [pair for mine, other in pairs for pair in segment_errors(mine.alignment, other.alignment)]
    return Comparison(
        *rates,
        difference=Interval(rates[0] - rates[1], low, high, level, len(a), samples),
        probability_first_better=better,
        mapsswe=mapsswe(segments),
        sign=sign_test(apart),
        wilcoxon=wilcoxon_test(apart),
    )


def segment_errors(first: Sequence[Edit], second: Sequence[Edit], buffer: int = 2) -> list[tuple[int, int]]:
    """Errors of two systems in each segment of one utterance, for MAPSSWE.

    A segment ends where both systems have `buffer` reference words in a row correct, without an insertion
    between them; segments without any error are left out. If the systems match different alternatives of a
    reference, its words cannot be paired, and the utterance is one segment.
    """
    mine, other = _by_reference_word(first), _by_reference_word(second)
    if [word for word, *_ in mine] != [word for word, *_ in other]:
        total = tuple(sum(op != "equal" for op, *_ in edits) for edits in (first, second))
        return [(total[0], total[1])] if any(total) else []
    segments: list[tuple[int, int]] = []
    a = b = good = 0
    for (_, inserted_a, wrong_a), (_, inserted_b, wrong_b) in zip(mine, other, strict=True):
        if inserted_a or inserted_b:
            good = 0
        a, b = a + inserted_a + wrong_a, b + inserted_b + wrong_b
        good = 0 if wrong_a or wrong_b else good + 1
        if good == buffer and (a or b):
            segments.append((a, b))
            a = b = 0
    return [*segments, (a, b)] if a or b else segments


def mapsswe(segments: Sequence[tuple[int, int]]) -> Test:
    """Z of the mean difference of errors in segments; p from the normal distribution (Gillick and Cox
    1989)."""
    apart = np.array([a - b for a, b in segments], dtype=float)
    deviation = apart.std(ddof=1) if len(apart) > 1 else 0.0
    if not deviation:  # no segments, or all equal: the variance is unknown
        return Test("MAPSSWE", 0.0, 1.0, len(apart))
    z = float(apart.mean() / (deviation / math.sqrt(len(apart))))
    return Test("MAPSSWE", z, math.erfc(abs(z) / math.sqrt(2)), len(apart))


def sign_test(differences: Sequence[float] | np.ndarray) -> Test:
    """Exact two-sided binomial test of how often the first is better; equal blocks are left out."""
    from scipy.stats import binomtest

    apart = np.asarray(differences)
    apart = apart[apart != 0]
    wins = int((apart < 0).sum())
    p = float(binomtest(wins, len(apart)).pvalue) if len(apart) else 1.0
    return Test("sign", float(wins), p, len(apart))


def wilcoxon_test(differences: Sequence[float] | np.ndarray) -> Test:
    """Wilcoxon's signed-rank test; equal blocks are left out."""
    from scipy.stats import wilcoxon

    apart = np.asarray(differences)
    # Rates that are mathematically equal may differ in their last bit, which would break ties of ranks.
    apart = np.round(apart[apart != 0], 12)
    if not len(apart):
        return Test("Wilcoxon", 0.0, 1.0, 0)
    found = wilcoxon(apart)
    return Test("Wilcoxon", float(found.statistic), float(found.pvalue), len(apart))


def _by_reference_word(edits: Sequence[Edit]) -> list[tuple[str | None, int, bool]]:
    """(word, words inserted before it, whether it is wrong); insertions at the end precede a last None."""
    rows: list[tuple[str | None, int, bool]] = []
    inserted = 0
    for operation, ref, _ in edits:
        if operation == "insert":
            inserted += 1
        elif ref is not None:  # an optional word of a hypothesis without a partner is a hit
            rows.append((ref, inserted, operation != "equal"))
            inserted = 0
    return [*rows, (None, inserted, False)]


def _per_block(counts: Sequence[Counts], blocks: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Errors and reference lengths, (blocks,) each, in the order in which blocks first occur."""
    if blocks is not None and len(blocks) != len(counts):
        raise AsrError(f"{len(blocks)} blocks for {len(counts)} utterances; give one block for each")
    errors = np.array([c.errors for c in counts], dtype=float)
    lengths = np.array([c.reference_length for c in counts], dtype=float)
    if blocks is None:
        return errors, lengths
    index = {name: i for i, name in enumerate(dict.fromkeys(blocks))}
    where = [index[name] for name in blocks]
    return np.bincount(where, errors, len(index)), np.bincount(where, lengths, len(index))


def _draw(
    columns: tuple[np.ndarray, ...], level: float, samples: int, seed: int
) -> list[tuple[np.ndarray, ...]]:
    """Sums of each column over blocks drawn with replacement, in batches of samples; columns[1] are
    lengths."""
    if not 0 < level < 1 or samples < 1:
        raise AsrError(
            f"a confidence level of {level} from {samples} samples is impossible; give 0 < level < 1, "
            "samples >= 1"
        )
    n = len(columns[0])
    if n < 2:
        raise AsrError(
            f"{n} utterances or blocks are too few for a bootstrap interval; two or more are needed"
        )
    if not columns[1].sum():
        raise AsrError("no reference has a word, so there is no error rate to give an interval for")
    # Blocks with equal numbers are interchangeable, and even a million blocks have few different ones. The
    # number of draws of each kind is multinomial, so one random number for each kind is enough.
    kinds, repeats = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)  # (kinds, columns)
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // len(kinds))
    sums = []
    for start in range(0, samples, step):
        drawn = generator.multinomial(n, repeats / n, size=min(step, samples - start))  # (batch, kinds)
        batch = list((drawn @ kinds).T)
        # If a sample has empty references only, its errors are divided by one word.
        batch[1::2] = [np.maximum(lengths, 1) for lengths in batch[1::2]]
        sums.append(tuple(batch))
    return sums


def _percentiles(drawn: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ratio(errors: float, length: float) -> float:
    return float(errors / length) if length else math.inf if errors else 0.0
