"""What a decoder is told, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode. The same for every decoder."""

    max_tokens: int | None = None  # characters per utterance at most; None: a bound from its length


@dataclass(frozen=True)
class Hypothesis:
    """One decoded token sequence, without BEGIN and END."""

    tokens: tuple[int, ...]
    log_prob: float  # natural log of the probability of the tokens and, when finished, of END
    finished: bool  # False: a bound on the length cut it off

    @property
    def confidence(self) -> float:
        """Geometric mean of the token probabilities, END included: 0 to 1."""
        return math.exp(self.log_prob / (len(self.tokens) + self.finished or 1))
