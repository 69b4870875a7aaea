"""Scores that are added to CTC's in prefix beam search: shallow fusion (Hannun et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from asr.decoding.scorers import ScorerFactory
from asr.tokenizers.special import SpecialTokens


@runtime_checkable
class RowScorer(Protocol):
    """A scorer whose rows grow independently. In CTC beam search a prefix stays as it is in most states."""

    def score(self, candidates: Tensor) -> Tensor:
        """As in `Scorer`."""
        ...

    def advance_some(self, tokens: Tensor, grows: Tensor) -> None:
        """Append a token (R,) to those prefixes where `grows` (R,) is true."""
        ...

    def select(self, rows: Tensor) -> Self:
        """As in `Scorer`."""
        ...


class FusedScores:
    """The weighted sum of the scores of all prefixes of the beam: W of each of B utterances.

    The scorers of the factories must be `RowScorer`s.
    """

    def __init__(
        self, factories: Sequence[ScorerFactory], special: SpecialTokens, batch: int, capacity: int
    ) -> None:
        self._special, self._batch = special, batch
        self._scorers: list[tuple[float, RowScorer]] = []
        for factory in factories:
            scorer = factory.start(batch, capacity)
            assert isinstance(scorer, RowScorer), "build_decoder refuses networks as language models"
            self._scorers.append((factory.weight, scorer))
        self._totals = torch.zeros(batch, 1)  # (B, W)
        self._extended = self._totals

    def extend(self, candidates: Tensor) -> Tensor:
        """Scores of the prefixes, then of each with each candidate (B, K): (B, W + W * K)."""
        width = self._totals.size(1)
        rows = candidates.repeat_interleave(width, 0)  # (B * W, K)
        longer = self._totals.to(candidates.device).unsqueeze(2) + self._sum(rows).view(
            self._batch, width, -1
        )
        self._extended = torch.cat([self._totals.to(longer), longer.flatten(1)], 1)
        return self._extended

    def follow(self, chosen: Tensor, origin: Tensor, grown: Tensor, added: Tensor) -> None:
        """The next beam, (B, W) each: indices in what `extend` returned, the indices of the prefixes that are
        continued, which of them grow, and by what token."""
        width = self._totals.size(1)
        self._totals = self._extended.gather(1, chosen)
        first = width * torch.arange(self._batch, device=origin.device).unsqueeze(1)
        rows = (first + origin).flatten()
        self._scorers = [(weight, scorer.select(rows)) for weight, scorer in self._scorers]
        for _, scorer in self._scorers:
            scorer.advance_some(added.flatten(), grown.flatten())

    def final(self) -> Tensor:
        """Scores of the prefixes as whole texts, their end included: (B, W)."""
        ends = torch.full((self._totals.numel(), 1), self._special.eos, device=self._totals.device)
        return self._totals + self._sum(ends).view_as(self._totals)

    def _sum(self, candidates: Tensor) -> Tensor:
        total = torch.zeros(candidates.shape, device=candidates.device)
        for weight, scorer in self._scorers:
            total += weight * scorer.score(candidates)
        return total
