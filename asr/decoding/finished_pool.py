"""The best finished hypotheses of a beam search."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.decoding.options import FinishReason, Hypothesis

_REASONS = tuple(FinishReason)
REPETITION_PENALTY = 1e6  # ranks a hypothesis that repeats itself after all others


class FinishedPool:
    """The `size` best finished hypotheses of every utterance."""

    def __init__(self, batch: int, size: int, capacity: int, eos: int, device: torch.device) -> None:
        self._ranks = torch.full((batch, size), -torch.inf, device=device)  # best first
        self._tokens = torch.full((batch, size, capacity), eos, device=device)
        # Score, log-probability, number of tokens and index of the finish reason.
        self._facts = torch.zeros(batch, size, 4, device=device)

    @property
    def worst(self) -> Tensor:
        """The score that a hypothesis must exceed to enter the pool: (B,)."""
        return self._ranks[:, -1]

    def add(
        self,
        rows: Tensor,
        scores: Tensor,
        tokens: Tensor,
        log_probs: Tensor,
        length: int,
        not_ended: Tensor,
        reason: FinishReason,
    ) -> None:
        """Add hypotheses with finite scores.

        rows (B,) are utterances; scores and log_probs (B, W); the first `length` of tokens (B, W, capacity)
        count. The finish reason is `reason` for `not_ended` (B, W), and EOS for the others.
        """
        if scores.device.type == "cpu" and not scores.isfinite().any():
            return  # most steps end here; not on a GPU, where this check takes longer than the work
        reasons = _REASONS.index(reason) * not_ended  # FinishReason.end has the index 0
        facts = torch.stack((scores, log_probs, torch.full_like(scores, length), reasons.to(scores.dtype)), 2)
        ranks = scores - REPETITION_PENALTY * not_ended if reason is FinishReason.repetition else scores
        size = self._ranks.size(1)
        best, chosen = torch.cat((self._ranks[rows], ranks.float()), 1).topk(size)
        self._ranks[rows] = best
        for held, new in ((self._tokens, tokens), (self._facts, facts)):
            both = torch.cat((held[rows], new.to(held.dtype)), 1)
            held[rows] = both.gather(1, chosen.unsqueeze(2).expand(-1, -1, both.size(2)))

    def hypotheses(self) -> list[list[Hypothesis]]:
        """The hypotheses of every utterance, best first."""
        utterances = zip(self._ranks.tolist(), self._tokens.tolist(), self._facts.tolist(), strict=True)
        return [
            [
                Hypothesis(tuple(tokens[: int(length)]), log_prob, _REASONS[int(reason)], score)
                for rank, tokens, (score, log_prob, length, reason) in zip(*each, strict=True)
                if rank > -torch.inf
            ]
            for each in utterances
        ]
