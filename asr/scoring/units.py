"""What is counted: words, characters, or both mixed for texts that switch between scripts."""

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

# Thai, Japanese syllables, Chinese characters: scripts that are written without spaces between words.
_UNSPACED = "\u0e00-\u0e7f\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
_UNSPACED += "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_SINGLE = re.compile(f"[{_UNSPACED}]")
_MIXED = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


@dataclass(frozen=True)
class Measure:
    """How texts are compared: `unit` is "words", "chars" or "mixed", `costs` a name of COSTS.

    `normalisation` names what was done to the texts before. `spaces` says whether a space counts as a
    character: it does (as in jiwer) unless the texts are mostly Chinese, Japanese or Thai.
    """

    unit: str = "words"
    costs: str = "unit"
    normalisation: str = "none"
    spaces: bool = True

    def parse(self, text: str) -> Sequence[str] | Lattice:
        """Tokens of the unit, or, with NIST's costs, the lattice of a text with alternatives."""
        if self.costs == "nist" and self.unit == "words" and is_marked(text):
            return lattice(text)
        return self.split(text)

    def split(self, text: str) -> Sequence[str]:
        if self.unit == "words":
            return text.split()
        return _MIXED.findall(text) if self.unit == "mixed" else self.chars(text)

    def chars(self, text: str) -> str:
        """Code points, each run of white space made one space, or none where spaces do not count."""
        return (" " if self.spaces else "").join(text.split())

    def weights(self, unit: str) -> Costs:
        """The costs of an alignment: those that were asked for in the unit, unit costs in any other."""
        return COSTS[self.costs] if unit == self.unit else UNIT


def measure(unit: str, costs: str, normalisation: str, refs: Iterable[str]) -> Measure:
    """A Measure for references; "auto" is "chars" if most characters are Chinese, Japanese or Thai.

    The first thousand references decide. Raises AsrError for names that are none.
    """
    if unit not in UNITS:
        raise AsrError(f"{unit!r} is no unit; choose one of {', '.join(UNITS)}")
    if costs not in COSTS:
        raise AsrError(f"{costs!r} are no costs; choose one of {', '.join(COSTS)}")
    sample = "".join("".join(islice(refs, 1000)).split())
    unspaced = 2 * len(_SINGLE.findall(sample)) > len(sample)
    if unit == "auto":
        unit = "chars" if unspaced else "words"
    return Measure(unit, costs, normalisation, spaces=unit == "words" or not unspaced)
