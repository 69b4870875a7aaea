"""What a decoder is told, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asr.errors import AsrError

JOINT_CTC_WEIGHT = 0.3  # as in training, and as ESPnet and SpeechBrain decode


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode. The same for every decoder."""

    max_tokens: int | None = None  # characters per utterance at most; None: a bound from its length
    ctc_weight: float | None = None  # of CTC in the choice of a character; None: 0.3, or 0 without a CTC head
    ctc_candidates: int = 8  # how many of the decoder's best characters CTC scores, besides END

    def __post_init__(self) -> None:
        if self.ctc_weight is not None and not 0 <= self.ctc_weight <= 1:
            raise AsrError(f"ctc_weight {self.ctc_weight}: not a share; give 0 (attention alone) to 1")
        if self.ctc_candidates < 1:
            raise AsrError(f"ctc_candidates {self.ctc_candidates}: nothing to choose from; give 1 or more")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise AsrError(f"max_tokens {self.max_tokens}: nothing can be decoded; give 1 or more")

    def weight_of_ctc(self, has_head: bool) -> float:
        """The weight that holds for a model. Raises AsrError for one that it cannot have."""
        if self.ctc_weight and not has_head:
            raise AsrError(f"ctc_weight {self.ctc_weight}: this model has no CTC head; leave the option out")
        if self.ctc_weight is None:
            return JOINT_CTC_WEIGHT if has_head else 0.0
        return self.ctc_weight


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
