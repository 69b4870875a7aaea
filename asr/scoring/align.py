"""Alignment of one reference with one hypothesis: hits, substitutions, deletions and insertions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from rapidfuzz.distance import Levenshtein

from asr.errors import AsrError
from asr.scoring.lattice import DELETE, INSERT, Lattice, bare, best_path, is_optional, linear

Edit = tuple[Literal["equal", "substitute", "delete", "insert"], str | None, str | None]
"""One step of an alignment: (operation, reference token or None, hypothesis token or None)."""


class Costs(NamedTuple):
    """The costs of errors in the search for an alignment; a hit costs nothing."""

    substitution: int
    insertion: int
    deletion: int


UNIT = Costs(1, 1, 1)  # Levenshtein distance, as in jiwer and most papers
NIST = Costs(4, 3, 3)  # sclite's


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of an alignment, in words or in characters. They can be added."""

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
        """Errors / reference length; for an empty reference 0.0, or inf if there are insertions."""
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
    """Edits from left to right, and their counts."""

    edits: list[Edit]
    counts: Counts


def align(ref: Sequence[str] | Lattice, hyp: Sequence[str] | Lattice, costs: Costs = UNIT) -> Alignment:
    """The alignment of least cost of two lists of tokens (words or characters) or of two lattices.

    With unit costs it is that of jiwer (both use rapidfuzz). With `NIST` it is that of sclite: among
    alignments of equal cost, read from the end, it prefers a hit or a substitution, then an insertion, then a
    deletion. Tokens are compared as they are; braces, parentheses and `@` have a meaning in a `lattice` only.
    In a lattice an optional word without a partner is a hit: ("equal", "(uh)", None).

    With unit costs, rapidfuzz's bit-parallel search is used. With other costs, time and memory grow with the
    length times the number of errors, and for lattices with the product of the two lengths. Raises AsrError
    for costs that are not positive, and if more than 400 million cells would be needed (twenty thousand
    tokens in a lattice, or without common tokens).
    """
    if min(costs) <= 0:
        raise AsrError(f"alignment costs must be positive, not {tuple(costs)}; sclite's are 4, 3 and 3")
    if isinstance(ref, Lattice) or isinstance(hyp, Lattice):
        left, right = (side if isinstance(side, Lattice) else linear(side) for side in (ref, hyp))
        _check_size(len(left.words) * len(right.words))
        edits = [_edit(r, h) for r, h in best_path(left, right, *costs)]
    elif costs == UNIT:
        edits = _unit_edits(ref, hyp)
    else:
        edits = _weighted_edits(ref, hyp, costs)
    tally = Counter(operation for operation, _, _ in edits)
    return Alignment(edits, Counts(tally["equal"], tally["substitute"], tally["delete"], tally["insert"]))


def count(ref: Sequence[str] | Lattice, hyp: Sequence[str] | Lattice, costs: Costs = UNIT) -> Counts:
    """The counts of `align` without its edits. With unit costs, this is much faster than `align`."""
    if costs != UNIT or isinstance(ref, Lattice) or isinstance(hyp, Lattice):
        return align(ref, hyp, costs).counts
    if ref == hyp:
        return Counts(len(ref))
    tags = [operation.tag for operation in Levenshtein.editops(ref, hyp)]
    substitutions, deletions = tags.count("replace"), tags.count("delete")
    return Counts(len(ref) - substitutions - deletions, substitutions, deletions, tags.count("insert"))


def spelled(edits: Sequence[Edit]) -> tuple[str, str]:
    """Reference and hypothesis of an alignment, without optional words that have no partner."""
    ref = " ".join(bare(r) for _, r, h in edits if r and not (h is None and r != bare(r)))
    hyp = " ".join(bare(h) for _, r, h in edits if h and not (r is None and h != bare(h)))
    return ref, hyp


def _edit(ref: str | None, hyp: str | None) -> Edit:
    if ref is None or hyp is None:
        if is_optional(ref or hyp or ""):
            return "equal", ref, hyp
        return ("insert", None, hyp) if ref is None else ("delete", ref, None)
    return ("equal" if bare(ref) == bare(hyp) else "substitute"), ref, hyp


def _unit_edits(ref: Sequence[str], hyp: Sequence[str]) -> list[Edit]:
    edits: list[Edit] = []
    for run in Levenshtein.opcodes(ref, hyp):
        refs, hyps = ref[run.src_start : run.src_end], hyp[run.dest_start : run.dest_end]
        if run.tag == "delete":
            edits += [("delete", token, None) for token in refs]
        elif run.tag == "insert":
            edits += [("insert", None, token) for token in hyps]
        elif run.tag == "equal":
            edits += [("equal", r, h) for r, h in zip(refs, hyps, strict=True)]
        else:
            edits += [("substitute", r, h) for r, h in zip(refs, hyps, strict=True)]
    return edits


def _weighted_edits(ref: Sequence[str], hyp: Sequence[str], costs: Costs) -> list[Edit]:
    """A dynamic program over the diagonals that an alignment of least cost can reach.

    The alignment with unit costs is found quickly; its cost with these costs is an upper bound. Only
    insertions and deletions lead from the first diagonal to the diagonal `hyp - ref = k`, and from there to
    the last diagonal. Their cost limits k, so with few errors the band is narrow.
    """
    sub, ins, dele = costs
    rough = count(ref, hyp)
    bound = rough.substitutions * sub + rough.insertions * ins + rough.deletions * dele
    final = len(hyp) - len(ref)
    # A detour of one diagonal beyond 0 and `final` costs one insertion and one deletion.
    slack = max(0, bound - (final * ins if final > 0 else -final * dele)) // (ins + dele)
    low, high = min(0, final) - slack, max(0, final) + slack
    width = high - low + 1
    _check_size((len(ref) + 1) * width)
    infinite = (len(ref) + len(hyp) + 1) * sum(costs)  # more than any path
    # row[d] is the cost of cell (i, i + low + d - 1); the first and last cells are always infinite.
    row = [infinite] * (width + 2)
    back: list[bytearray] = []
    for i in range(len(ref) + 1):
        word = ref[i - 1] if i else None
        new = [infinite] * (width + 2)
        choice = bytearray(width + 2)
        left = infinite
        for d in range(max(1, 1 - i - low), min(width, len(hyp) - i - low + 1) + 1):
            j = i + low + d - 1
            best = row[d] + (0 if j and hyp[j - 1] == word else sub) if i and j else infinite
            if i == j == 0:
                best = 0
            deleted, inserted = row[d + 1] + dele, left + ins
            if inserted <= deleted:
                if inserted < best:
                    best, choice[d] = inserted, INSERT
            elif deleted < best:
                best, choice[d] = deleted, DELETE
            new[d] = left = best
        row = new
        back.append(choice)
    edits: list[Edit] = []
    i, j = len(ref), len(hyp)
    while i or j:
        choice_here = back[i][j - i - low + 1]
        if choice_here == INSERT:
            j -= 1
            edits.append(("insert", None, hyp[j]))
        elif choice_here == DELETE:
            i -= 1
            edits.append(("delete", ref[i], None))
        else:
            i, j = i - 1, j - 1
            edits.append(("equal" if ref[i] == hyp[j] else "substitute", ref[i], hyp[j]))
    return edits[::-1]


def _check_size(cells: int) -> None:
    if cells > 400_000_000:
        raise AsrError(
            "the utterance is too long, with too many errors, to be aligned with these costs; "
            "divide it into shorter ones, or use unit costs without alternatives"
        )
