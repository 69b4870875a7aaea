"""Texts with alternatives, as NIST writes them: `the { colour / color / @ } (uh) was red`.

`{ a / b c }` is any one of its alternatives, `@` is no word, `(uh)` is an optional word. The alignment is
that of sclite (https://github.com/usnistgov/SCTK): it uses the same costs and decides ties in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asr.errors import AsrError

if TYPE_CHECKING:
    import numpy as np

_AT = "@"  # as it is written; in a word it is a character
NOTHING = ""  # on an arc
_TOKEN = re.compile(r"[{}/]|[^\s{}/]+")
_MAX_NESTING = 50  # no transcript is nested as deeply; Python's recursion limit is far higher


@dataclass(frozen=True)
class Lattice:
    """Words on arcs. Every arc comes after all arcs that can precede it.

    words[0] is the start. The start and all arcs with NOTHING are not words. before[i] are the arcs that can
    directly precede arc i, and ends are the arcs that can be last. Both are in the order of the text.
    """

    words: tuple[str, ...]
    before: tuple[tuple[int, ...], ...]
    ends: tuple[int, ...]


def is_marked(text: str) -> bool:
    """Whether a text may have alternatives, optional words or a `@`."""
    return "{" in text or "(" in text or _AT in text.split()


def linear(words: Sequence[str]) -> Lattice:
    """The lattice of one sequence of words, without any alternative."""
    return Lattice(("", *words), ((), *((i,) for i in range(len(words)))), (len(words),))


class _Builder:
    """Adds words to a lattice, whole or split into smaller tokens."""

    def __init__(self, split: Callable[[str], Sequence[str]] | None, spaces: bool) -> None:
        self.words: list[str] = [""]
        self.before: list[tuple[int, ...]] = [()]
        self.split, self.spaces = split, spaces
        self.omissible = {0}  # arcs up to which every word can be left out, and with it the space after it

    def arc(self, word: str, before: tuple[int, ...]) -> tuple[int, ...]:
        self.words.append(word)
        self.before.append(before)
        return (len(self.words) - 1,)

    def word(self, word: str, ends: tuple[int, ...]) -> tuple[int, ...]:
        """Append one word after the arcs `ends`; return the arcs that are then last."""
        if self.split is None:
            return self.arc(NOTHING if word == _AT else word, ends)
        if word == _AT:  # it is between words, so it must not be followed by a second space
            return ends
        form = "({})" if is_optional(word) else "{}"
        omissible = is_optional(word) and self.omissible.issuperset(ends)
        if self.spaces:
            # A space separates two words, so there is none after the start. Because of an alternative `@`,
            # the start can be directly before this word. If the words before the space are optional, the
            # space is optional too.
            needed = tuple(arc for arc in ends if arc not in self.omissible)
            others = tuple(arc for arc in ends if arc in self.omissible and arc)
            ends = tuple(arc for arc in ends if not arc)
            ends = self.arc("( )", others) + ends if others else ends
            ends = self.arc(form.format(" "), needed) + ends if needed else ends
        for token in self.split(bare(word)):
            ends = self.arc(form.format(token), ends)
        if omissible:
            self.omissible.update(ends)
        return ends


def lattice(text: str, split: Callable[[str], Sequence[str]] | None = None, spaces: bool = False) -> Lattice:
    """The lattice of a text with alternatives; braces may be nested.

    `/` separates only within braces, also without spaces, as in sclite. With `split`, the lattice has the
    tokens of each word (for example its characters), each of them optional if the word is; with `spaces` also
    a space between words. Raises AsrError for unbalanced braces, an empty alternative (write `@`) and nesting
    deeper than 50.
    """
    built = _Builder(split, spaces)
    tokens = _tokens(text)

    def sequence(position: int, ends: tuple[int, ...], depth: int) -> tuple[int, tuple[int, ...]]:
        """Read up to the end of one alternative; return its position and the arcs that can be last in it."""
        ends_here = ("/", "}") if depth else ("}",)
        while position < len(tokens) and tokens[position] not in ends_here:
            if tokens[position] != "{":
                ends = built.word(tokens[position], ends)
                position += 1
                continue
            if depth == _MAX_NESTING:
                raise _broken(text, f"braces nested deeper than {_MAX_NESTING}")
            last: tuple[int, ...] = ()
            while tokens[position] != "}":  # here at "{" or "/"
                first = position + 1
                position, new = sequence(first, ends, depth + 1)
                if position == len(tokens):
                    raise _broken(text, "'{' without '}'")
                if position == first:
                    raise _broken(text, "an empty alternative (write @ for no word)")
                last += new
            position, ends = position + 1, tuple(dict.fromkeys(last))
        return position, ends

    position, ends = sequence(0, (0,), 0)
    if position < len(tokens):
        raise _broken(text, "'}' without '{'")
    return Lattice(tuple(built.words), tuple(built.before), ends)


def _tokens(text: str) -> list[str]:
    """Words, braces and slashes; a slash outside all braces is part of its word."""
    tokens: list[str] = []
    depth = 0
    for piece in text.split():
        for token in _TOKEN.findall(piece) if depth or "{" in piece or "}" in piece else [piece]:
            depth += (token == "{") - (token == "}")
            tokens.append(token)
    return tokens


def _broken(text: str, problem: str) -> AsrError:
    shown = text if len(text) <= 60 else text[:60] + "..."
    return AsrError(f"{problem} in {shown!r}; write alternatives as {{ a / b c / @ }}")


_SCALE = 3000  # integer costs, so that equal costs are exactly equal; `@` costs 3 of them, 0.001
_NEVER = 1 << 60  # more than any path costs
DIAGONAL, INSERT, DELETE = 0, 1, 2


def best_path(
    ref: Lattice, hyp: Lattice, substitution: int, insertion: int, deletion: int
) -> list[tuple[str | None, str | None]]:
    """The pairs (reference word, hypothesis word) of least cost, from left to right; None for no word.

    With sclite's costs 4, 3, 3 the result is identical to sclite's. An optional word without a partner costs
    two thirds of another word, and an `@` without a partner almost nothing. Among paths of equal cost it
    prefers one that ends in a substitution or a hit, then in an insertion, then in a deletion; among equal
    alternatives it prefers the first. `@` is not part of the result.

    Numpy computes a row of the dynamic program at a time. Time grows with the product of the numbers of arcs,
    memory too: one byte for each pair of arcs.
    """
    import numpy as np  # scores without alternatives do not wait for it

    number: dict[str, int] = {}
    refs, hyps = (
        np.array([number.setdefault(bare(word), len(number)) for word in side.words]) for side in (ref, hyp)
    )
    nothing = number[NOTHING]  # the start has it on both sides
    added = np.array([0, *(_single(word, insertion * _SCALE) for word in hyp.words[1:])], dtype=np.int64)
    sums = added.cumsum()
    # A stretch is a range of hypothesis arcs. Only the first arc can have other predecessors than its
    # neighbor.
    joints = [j for j in range(1, len(hyps)) if hyp.before[j] != (j - 1,)]
    stretches = list(zip([0, *joints], [*joints, len(hyps)], strict=True))
    last_use = {arc: i for i, arcs in enumerate(ref.before) for arc in arcs} | dict.fromkeys(ref.ends, -1)

    rows: dict[int, np.ndarray] = {}  # costs by reference arc, kept as long as a later arc needs them
    choices = np.empty((len(refs), len(hyps)), dtype=np.uint8)
    picked: dict[int, np.ndarray] = {}  # for arcs with several predecessors: the best one for each j
    jumps: dict[tuple[int, int], tuple[int, int]] = {}  # predecessors of (i, j) at the joints
    for i, before in enumerate(ref.before):
        diagonal = np.full(len(hyps), _NEVER, dtype=np.int64)
        if i == 0:
            row = diagonal.copy()
            row[0] = 0
        else:
            above = np.stack([rows[arc] for arc in before]) if len(before) > 1 else rows[before[0]][None]
            lowest = above.min(axis=0)
            if len(before) > 1:
                picked[i] = np.array(before)[above.argmin(axis=0)]
            match = np.where(hyps == refs[i], _SCALE if refs[i] == nothing else 0, substitution * _SCALE)
            match[(hyps == nothing) != (refs[i] == nothing)] = _NEVER  # NOTHING is never aligned with a word
            diagonal[1:] = lowest[:-1] + match[1:]
            for j in joints:
                cost = min(int(lowest[q]) for q in hyp.before[j])
                diagonal[j] = cost + match[j]
                jumps[i, j] = next((p, q) for p in before for q in hyp.before[j] if rows[p][q] == cost)
            row = np.minimum(diagonal, lowest + _single(ref.words[i], deletion * _SCALE))
        entries: dict[int, int] = {}
        for first, end in stretches:
            if first:
                entries[first] = q = min(hyp.before[first], key=row.__getitem__)
                row[first] = min(row[first], row[q] + added[first])
            # The best cell to insert from, for all j at once: min over k of row[k] + added[k + 1 .. j].
            part = slice(first, end)
            row[part] = np.minimum.accumulate(row[part] - sums[part]) + sums[part]
        choice = choices[i]
        choice[:] = DELETE
        choice[1:][row[1:] == row[:-1] + added[1:]] = INSERT
        for j, q in entries.items():
            choice[j] = INSERT if row[j] == row[q] + added[j] else DELETE
        choice[row == diagonal] = DIAGONAL
        for j, q in entries.items():
            if choice[j] == INSERT:
                jumps[i, j] = i, q
            elif choice[j] == DELETE:
                jumps.pop((i, j), None)
        rows[i] = row
        for arc in before:
            if last_use[arc] == i:
                del rows[arc]
    _, i, j = min(((rows[i][j], i, j) for i in ref.ends for j in hyp.ends), key=lambda end: end[0])
    pairs: list[tuple[str | None, str | None]] = []
    while i or j:
        p, q = i, j
        if (i, j) in jumps:
            p, q = jumps[i, j]
        else:
            if choices[i, j] != DELETE:
                q = j - 1
            if choices[i, j] != INSERT:
                p = int(picked[i][q]) if i in picked else ref.before[i][0]
        left, right = (ref.words[i] if p != i else None), (hyp.words[j] if q != j else None)
        if not {left, right} <= {None, NOTHING}:
            pairs.append((left, right))
        i, j = p, q
    return pairs[::-1]


def is_optional(word: str) -> bool:
    """Whether a word is written in parentheses: `(uh)`."""
    return len(word) > 2 and word[0] == "(" and word[-1] == ")"


def bare(word: str) -> str:
    """The word without the parentheses that make it optional."""
    return word[1:-1] if is_optional(word) else word


def _single(word: str, cost: int) -> int:
    """The cost of a word that has no partner."""
    if word == NOTHING:
        return 3
    return cost * 2 // 3 if is_optional(word) else cost
