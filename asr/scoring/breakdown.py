"""Errors by speaker, by length, by any other value of a manifest, and by word."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from asr.errors import AsrError
from asr.scoring.align import Counts
from asr.scoring.wer import Score, UtteranceScore

_LENGTHS = (0, 5, 10, 20, 40, 80)  # the largest length of each bucket, in tokens of the reference
_NONE = "-"


@dataclass(frozen=True)
class Group:
    """The utterances with one value of a key; `counts` are in the unit of the score."""

    name: str
    utterances: int
    sentence_errors: int
    counts: Counts

    @property
    def rate(self) -> float:
        return self.counts.rate

    def to_dict(self) -> dict[str, Any]:
        rate = self.rate if math.isfinite(self.rate) else None
        return asdict(self) | {"counts": self.counts.to_dict(), "error_rate": rate}


@dataclass(frozen=True)
class Confusions:
    """The most frequent errors with their counts, in decreasing order."""

    substitutions: tuple[tuple[str, str, int], ...]  # reference word, hypothesis word, count
    deletions: tuple[tuple[str, int], ...]
    insertions: tuple[tuple[str, int], ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def groups(score: Score, key: str) -> tuple[Group, ...]:
    """The score by "length" (of the reference, in tokens of the unit, shortest first) or by an attribute.

    Groups of an attribute are in the order of their names; utterances without it make the group "-".
    Raises AsrError if no utterance has it.
    """
    if key != "length" and not any(key in score.attributes.get(u.id, ()) for u in score.utterances):
        known = sorted({name for values in score.attributes.values() for name in values})
        raise AsrError(
            f"no utterance has {key!r}; choose one of {', '.join(['length', *known])} "
            "(columns or keys of the references)"
        )
    members: dict[str, list[UtteranceScore]] = {}
    for utterance in score.utterances:
        if key == "length":
            name = _bucket(utterance.tokens.reference_length)
        else:
            name = str(score.attributes.get(utterance.id, {}).get(key, _NONE))
        members.setdefault(name, []).append(utterance)
    names = sorted(members)
    if key == "length":
        names.sort(key=lambda name: int(name.split("-")[0].rstrip("+")))
    return tuple(_group(name, members[name]) for name in names)


def confusions(score: Score, most: int = 20) -> Confusions:
    """The `most` frequent substitutions, deletions and insertions; ties in order of first occurrence."""
    substituted: Counter[tuple[str, str]] = Counter()
    deleted: Counter[str] = Counter()
    inserted: Counter[str] = Counter()
    for utterance in score.utterances:
        if not utterance.tokens.errors:
            continue
        for operation, ref, hyp in utterance.alignment:
            if operation == "substitute":
                substituted[ref or "", hyp or ""] += 1
            elif operation == "delete":
                deleted[ref or ""] += 1
            elif operation == "insert":
                inserted[hyp or ""] += 1
    return Confusions(
        tuple((*pair, n) for pair, n in substituted.most_common(most)),
        tuple(deleted.most_common(most)),
        tuple(inserted.most_common(most)),
    )


def _group(name: str, utterances: list[UtteranceScore]) -> Group:
    wrong = sum(utterance.tokens.errors > 0 for utterance in utterances)
    return Group(name, len(utterances), wrong, sum((u.tokens for u in utterances), Counts()))


def _bucket(length: int) -> str:
    first = 0
    for last in _LENGTHS:
        if length <= last:
            return f"{first}-{last}" if last > first else str(last)
        first = last + 1
    return f"{first}+"
