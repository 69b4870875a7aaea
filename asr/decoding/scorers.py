"""The interface of scorers: CTC prefix scores, language models, hot words."""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

from torch import Tensor


class Scorer(Protocol):
    """Scores of the growing prefixes of R rows, one token at a time."""

    def score(self, candidates: Tensor) -> Tensor:
        """The change of a row's score by each candidate that is appended: tokens (R, K) -> (R, K).

        EOS can be a candidate.
        """
        ...

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix. A row is not scored after EOS or PAD."""
        ...

    def select(self, rows: Tensor) -> Self:
        """The scorer of the given rows (indices): reordered, repeated or dropped. This one must not be used
        after this call."""
        ...


class ScorerFactory(Protocol):
    """Makes scorers. It is built once for a model and its options, on the model's device."""

    @property
    def weight(self) -> float:
        """The factor of its scores in the joint score; 0 or more."""
        ...

    @property
    def gain(self) -> float:
        """The most that one token, EOS included, can add before weighting; 0 for log-probabilities.

        Beam search uses it to stop when no unfinished hypothesis can become one of the best.
        """
        ...

    def start(self, rows: int, capacity: int) -> Scorer:
        """A scorer of `rows` empty prefixes, which can grow to `capacity` tokens."""
        ...

    def score_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scores of whole hypotheses, EOS included: tokens (R, U) padded, lengths (R,) -> (R,)."""
        ...


@runtime_checkable
class LimitsTokens(Protocol):
    """A factory of scorers that have a fixed number of positions, such as a model with learned positions."""

    @property
    def max_tokens(self) -> int:
        """The most tokens that a hypothesis can have."""
        ...
