"""What a decoder is told, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asr.errors import AsrError


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode. The same for every decoder."""

    max_tokens: int | None = None  # characters per utterance at most; None: a bound from its length

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise AsrError(f"max_tokens {self.max_tokens}: nothing can be decoded; give 1 or more")


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
