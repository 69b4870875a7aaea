"""References with alternatives, as NIST writes them: `the { colour / color / @ } (uh) was red`.

`{ a / b c }` is any one of its alternatives, `@` is nothing, `(uh)` is a word that may be left out. The
alignment is that of sclite (https://github.com/usnistgov/SCTK), whose costs and ties are followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from asr.errors import AsrError

NOTHING = "@"
_TOKEN = re.compile(r"[{}/]|[^\s{}/]+")
_MAX_NESTING = 50  # far beyond any transcript, well within Python's recursion


@dataclass(frozen=True)
class Lattice:
    """Words on arcs, in an order in which each stands after all that can come before it.

    words[0] stands for the beginning and is no word. before[i] are the arcs that can directly precede arc i,
    and
    ends those that can be last, both in the order of the text.
    """

    words: tuple[str, ...]
    before: tuple[tuple[int, ...], ...]
    ends: tuple[int, ...]


def is_marked(text: str) -> bool:
    """Whether a text has alternatives, optional words or a `@`, so that `lattice` gives more than its
    words."""
    return "{" in text or "(" in text or NOTHING in text.split()


def linear(words: Sequence[str]) -> Lattice:
    """The lattice of one sequence of words, without any alternative."""
    return Lattice(("", *words), ((), *((i,) for i in range(len(words)))), (len(words),))


def lattice(text: str) -> Lattice:
    """The lattice of a text with alternatives; braces may be nested.

    `/` separates only within braces, also without spaces, as in sclite. Raises AsrError for braces that do
    not
    pair, an alternative with nothing in it (that is written `@`) and nesting deeper than 50.
    """
    words: list[str] = [""]
    before: list[tuple[int, ...]] = [()]
    tokens = _tokens(text)

    def sequence(position: int, ends: tuple[int, ...], depth: int) -> tuple[int, tuple[int, ...]]:
        """Read up to the end of one alternative; where that is, and the arcs that can be last in it."""
        while position < len(tokens) and tokens[position] not in ("/", "}"):
            if tokens[position] != "{":
                words.append(tokens[position])
                before.append(ends)
                ends = (len(words) - 1,)
                position += 1
                continue
            if depth == _MAX_NESTING:
                raise _broken(text, f"braces nested deeper than {_MAX_NESTING}")
            branches: tuple[int, ...] = ()
            while tokens[position] != "}":  # here at "{" or "/"
                first = len(words)
                position, last = sequence(position + 1, ends, depth + 1)
                if position == len(tokens):
                    raise _broken(text, "a '{' without its '}'")
                if len(words) == first:
                    raise _broken(text, "an alternative with nothing in it (write @ for nothing)")
                branches += last
            position, ends = position + 1, branches
        return position, ends

    position, ends = sequence(0, (0,), 0)
    if position < len(tokens):
        raise _broken(text, "a '}' without its '{'")
    return Lattice(tuple(words), tuple(before), ends)


def _tokens(text: str) -> list[str]:
    """Words, braces and slashes; a slash outside of all braces stays in its word."""
    tokens: list[str] = []
    depth = 0
    for piece in text.split():
        for token in _TOKEN.findall(piece) if depth or "{" in piece or "}" in piece else [piece]:
            depth += (token == "{") - (token == "}")
            tokens.append(token)
    return tokens


def _broken(text: str, what: str) -> AsrError:
    shown = text if len(text) <= 60 else text[:60] + "..."
    return AsrError(f"{what} in {shown!r}; write alternatives as {{ a / b c / @ }}")


def best_path(
    ref: Lattice, hyp: Lattice, substitution: int, insertion: int, deletion: int
) -> list[tuple[str | None, str | None]]:
    """The pairs (reference word, hypothesis word) of least cost, from left to right; None for no word.

    As in sclite, and with its costs 4, 3, 3 exactly so: leaving out or adding an optional word costs two
    thirds of
    another's, passing a `@` next to nothing. Of equal paths the one that ends in a substitution or a hit is
    taken, then
    the one in an insertion, then the one in a deletion, and of equal alternatives the first. `@` is not part
    of
    the result. Time and memory grow with the product of the numbers of arcs.
    """
    scale = 3000  # whole numbers, so that equal costs are equal; `@` costs 3 of them, 0.001
    refs, hyps = [bare(word) for word in ref.words], [bare(word) for word in hyp.words]
    inserted = [_single(word, insertion * scale) for word in hyp.words]
    back: list[list[tuple[int, int]]] = []
    costs: list[list[int]] = []
    for i, word in enumerate(refs):
        deleted, pre = _single(ref.words[i], deletion * scale), ref.before[i]
        row: list[int] = []
        row_back: list[tuple[int, int]] = []
        for j, other in enumerate(hyps):
            best, where = (0, (0, 0)) if i == j == 0 else (-1, (0, 0))
            if i and j:
                kept = 0 if word == other else substitution * scale
                if word == other == NOTHING:
                    kept = scale
                for p in pre:
                    for q in hyp.before[j]:
                        if best < 0 or costs[p][q] + kept < best:
                            best, where = costs[p][q] + kept, (p, q)
            if j:
                q = min(hyp.before[j], key=row.__getitem__)
                if best < 0 or row[q] + inserted[j] < best:
                    best, where = row[q] + inserted[j], (i, q)
            if i:
                p = min(pre, key=lambda arc: costs[arc][j])
                if best < 0 or costs[p][j] + deleted < best:
                    best, where = costs[p][j] + deleted, (p, j)
            row.append(best)
            row_back.append(where)
        costs.append(row)
        back.append(row_back)
    _, i, j = min(((costs[i][j], i, j) for i in ref.ends for j in hyp.ends), key=lambda end: end[0])
    pairs: list[tuple[str | None, str | None]] = []
    while i or j:
        p, q = back[i][j]
        left, right = (ref.words[i] if p != i else None), (hyp.words[j] if q != j else None)
        if not {left, right} <= {None, NOTHING}:
            pairs.append((left, right))
        i, j = p, q
    return pairs[::-1]


def is_optional(word: str) -> bool:
    """Whether a word is written in brackets: `(uh)`."""
    return len(word) > 2 and word[0] == "(" and word[-1] == ")"


def bare(word: str) -> str:
    """The word without the brackets that make it optional."""
    return word[1:-1] if is_optional(word) else word


def _single(word: str, cost: int) -> int:
    """The cost of a word that has no partner."""
    if word == NOTHING:
        return 3
    return cost * 2 // 3 if is_optional(word) else cost
