"""Alignment of one reference with one hypothesis: what was hit, substituted, deleted and inserted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from rapidfuzz.distance import Levenshtein

Edit = tuple[Literal["equal", "substitute", "delete", "insert"], str | None, str | None]
"""One step of an alignment: (operation, reference token or None, hypothesis token or None)."""


class Costs(NamedTuple):
    """What one error costs where an alignment is sought; a hit costs nothing."""

    substitution: int
    insertion: int
    deletion: int


UNIT = Costs(1, 1, 1)  # Levenshtein's: jiwer and most papers
NIST = Costs(4, 3, 3)  # sclite's


@dataclass(frozen=True, slots=True)
class Counts:
    """What an alignment counts, in words or in characters. Counts add up."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def reference_length(self) -> int:
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors by reference length: 0.0 for nothing against nothing, inf for insertions into nothing."""
        if self.reference_length:
            return self.errors / self.reference_length
        return math.inf if self.errors else 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    def to_dict(self) -> dict[str, int]:
        return asdict(self) | {"reference_length": self.reference_length}


@dataclass(frozen=True, slots=True)
class Alignment:
    """Edits from left to right, and what they count."""

    edits: list[Edit]
    counts: Counts


def align(ref: Sequence[str], hyp: Sequence[str], costs: Costs = UNIT) -> Alignment:
    """The alignment of least cost of two lists of tokens (words or characters)."""
    edits: list[Edit] = []
    found = Levenshtein.editops(ref, hyp)
    hits = 0
    for tag, start, end, hyp_start, hyp_end in found.as_opcodes():
        if tag == "equal":
            hits += end - start
            edits += [("equal", r, h) for r, h in zip(ref[start:end], hyp[hyp_start:hyp_end], strict=True)]
        elif tag == "replace":
            edits += [
                ("substitute", r, h) for r, h in zip(ref[start:end], hyp[hyp_start:hyp_end], strict=True)
            ]
        elif tag == "delete":
            edits += [("delete", r, None) for r in ref[start:end]]
        else:
            edits += [("insert", None, h) for h in hyp[hyp_start:hyp_end]]
    deletions = sum(op == "delete" for op, _, _ in edits)
    insertions = sum(op == "insert" for op, _, _ in edits)
    return Alignment(edits, Counts(hits, len(ref) - hits - deletions, deletions, insertions))


def count(ref: Sequence[str], hyp: Sequence[str], costs: Costs = UNIT) -> Counts:
    """The counts of `align` without its edits, which for unit costs takes a fraction of the time."""
    return align(ref, hyp, costs).counts
