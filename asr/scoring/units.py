"""Units of error rates: words, characters, or both mixed for texts that switch between scripts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from asr.errors import AsrError
from asr.scoring.align import NIST, UNIT, Costs
from asr.scoring.lattice import Lattice, is_marked, lattice

UNITS = ("auto", "words", "chars", "mixed")
COSTS = {"unit": UNIT, "nist": NIST}

# Thai, Japanese kana, Chinese characters: scripts that are written without spaces between words.
_UNSPACED = "\u0e00-\u0e7f\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
_UNSPACED += "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_MARKS = re.compile(r"[{}/()@]")
_SINGLE = re.compile(f"[{_UNSPACED}]")
_MIXED = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


@dataclass(frozen=True)
class Measure:
    """How texts are compared: `unit` is "words", "chars" or "mixed", `costs` a name of COSTS.

    `normalization` describes what was done to the texts before. `spaces` says whether a space counts as a
    character: it does (as in jiwer) unless the texts are mostly Chinese, Japanese or Thai.
    """

    unit: str = "words"
    costs: str = "unit"
    normalization: str = "none"
    spaces: bool = True

    def parse(self, text: str, unit: str | None = None) -> Sequence[str] | Lattice:
        """Tokens of `unit`, or, with NIST's costs, the lattice of a text with alternatives."""
        unit = unit or self.unit
        if not (self.costs == "nist" and is_marked(text)):
            return self.split(text, unit)
        if unit == "words":
            return lattice(text)
        return lattice(text, _MIXED.findall if unit == "mixed" else tuple, self.spaces and unit == "chars")

    def split(self, text: str, unit: str | None = None) -> Sequence[str]:
        """Tokens of `unit`; braces and parentheses have no meaning."""
        unit = unit or self.unit
        if unit == "words":
            return text.split()
        return _MIXED.findall(text) if unit == "mixed" else self.chars(text)

    def chars(self, text: str) -> str:
        """Code points; each run of white space becomes one space, or none where spaces do not count."""
        return (" " if self.spaces else "").join(text.split())

    def weights(self, unit: str) -> Costs:
        """The costs of an alignment: `costs` for the unit of the score, unit costs for every other unit."""
        return COSTS[self.costs] if unit == self.unit else UNIT


def measure(unit: str, costs: str, normalization: str, refs: Iterable[str]) -> Measure:
    """A Measure for references; "auto" is "chars" if most characters are Chinese, Japanese or Thai.

    The first thousand references decide. Raises AsrError for unknown names.
    """
    if unit not in UNITS:
        raise AsrError(f"unknown unit {unit!r}; choose one of {', '.join(UNITS)}")
    if costs not in COSTS:
        raise AsrError(f"unknown costs {costs!r}; choose one of {', '.join(COSTS)}")
    sample = "".join("".join(islice(refs, 1000)).split())
    if costs == "nist":
        sample = _MARKS.sub("", sample)
    unspaced = 2 * len(_SINGLE.findall(sample)) > len(sample)
    if unit == "auto":
        unit = "chars" if unspaced else "words"
    return Measure(unit, costs, normalization, spaces=unit == "words" or not unspaced)
