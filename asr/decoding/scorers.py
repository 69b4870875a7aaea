"""What scores texts beside the decoder: CTC prefix scores, a language model, hot words."""

from __future__ import annotations

from typing import Protocol, Self

from torch import Tensor


class Scorer(Protocol):
    """Scores that grow with the prefixes of R rows, one token at a time."""

    def score(self, candidates: Tensor) -> Tensor:
        """What appending each candidate adds to its row's score: tokens (R, K) -> (R, K). EOS is one too."""
        ...

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix. A row that is given EOS or PAD is not scored any more."""
        ...

    def select(self, rows: Tensor) -> Self:
        """The scorer of the given rows (indices): reordered, repeated or dropped."""
        ...


class ScorerFactory(Protocol):
    """Where scorers come from: built once for a model and its options, on the model's device."""

    @property
    def weight(self) -> float:
        """What its scores are multiplied by before they are added to the others; 0 or more."""
        ...

    @property
    def gain(self) -> float:
        """The most that one token, EOS included, can add before weighting; 0 for log-probabilities.

        Beam search ends when what is still live cannot win any more, and counts on this.
        """
        ...

    def start(self, rows: int, capacity: int) -> Scorer:
        """A scorer of `rows` empty prefixes that will grow to `capacity` tokens at most."""
        ...

    def score_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scores of whole texts, EOS included: tokens (R, U) padded, lengths (R,) -> (R,)."""
        ...
