"""What the two ways of greedy decoding share: the choice of the next token, and the texts that grow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asr.decoding.ctc_prefix import CTCPrefixScorer, PrefixesAlong
from asr.decoding.options import FinishReason, Hypothesis
from asr.tokenizers import BOS, EOS, PAD

# Two ways to compute a score in float32 differ by up to 6e-6 (digits, speechocean762). Between choices that
# are nearer to each other than this, only the way that counts can decide.
NEAR = 5e-5


@dataclass(frozen=True)
class Choice:
    """The next token of every row (R,), the decoder's log-probability of it (R,), and whether rounding could
    have made it another one (R,)."""

    tokens: Tensor
    log_probs: Tensor
    near_tie: Tensor


def choose(
    log_probs: Tensor, scorer: CTCPrefixScorer | PrefixesAlong | None, weight: float, count: int
) -> Choice:
    """The best token by the decoder's log-probabilities (R, V) and, with its weight, by the scorer.

    The scorer is asked about the decoder's `count` best, and EOS. PAD and BOS are never chosen.
    """
    log_probs[:, [PAD, BOS]] = -torch.inf
    if scorer is None:
        token_log_probs, candidates = log_probs.topk(2, dim=1)
        joint, excluded = token_log_probs, None
    else:
        best = log_probs.topk(min(count + 1, log_probs.size(1) - 2), dim=1)  # (R, K) or one more
        likely = best.indices[:, :count]
        candidates = torch.cat([likely, torch.full_like(likely[:, :1], EOS)], dim=1)  # (R, K + 1)
        token_log_probs = log_probs.gather(1, candidates)
        joint = (1 - weight) * token_log_probs + weight * scorer.score(candidates)
        joint[:, :-1].masked_fill_(likely == EOS, -torch.inf)  # it is the last one already
        excluded = best.values[:, count - 1 :] if best.values.size(1) > count else None
    (first, second), chosen = joint.topk(2, dim=1).values.unbind(1), joint.argmax(1, keepdim=True)
    near_tie = first - second < NEAR
    if excluded is not None:  # the best that was not asked about could take the place of the last that was
        last, next = excluded.unbind(1)
        # CTC's score is at most 0.
        near_tie |= (last - next < NEAR) & ((1 - weight) * next > first - NEAR)
    return Choice(
        candidates.gather(1, chosen).squeeze(1), token_log_probs.gather(1, chosen).squeeze(1), near_tie
    )


class Hypotheses:
    """The texts of B rows, each of which may have so many tokens: max_lengths (B,)."""

    def __init__(self, max_lengths: Tensor) -> None:
        self.capacity = int(max_lengths.max()) + 1  # the last decision may still be EOS
        self.tokens = torch.full((len(max_lengths), self.capacity), EOS, device=max_lengths.device)
        self._bounds = max_lengths
        self._log_probs = torch.zeros(len(max_lengths), device=max_lengths.device)
        self._finished = torch.zeros_like(max_lengths, dtype=torch.bool)

    def add(self, rows: Tensor, starts: Tensor, tokens: Tensor, log_probs: Tensor, counts: Tensor) -> Tensor:
        """Append the first counts (R,) of tokens (R, U) to the texts `rows` (R,), of lengths starts (R,).

        A text ends with EOS, or where its bound forbids one more. Returns which go on, (R,).
        """
        order = torch.arange(tokens.size(1), device=rows.device)
        places = starts.unsqueeze(1) + order  # (R, U)
        ends = tokens == EOS
        cut = ~ends & (places >= self._bounds[rows].unsqueeze(1))
        stops = ends | cut
        given = (order < counts.unsqueeze(1)) & (stops.cumsum(1) - stops.long() == 0)  # up to the first stop
        token_log_probs = given & ~cut
        self._log_probs[rows] += torch.where(token_log_probs, log_probs, 0.0).sum(1)
        self._finished[rows] |= (token_log_probs & ends).any(1)
        token_log_probs &= ~ends
        self.tokens[
            rows.unsqueeze(1).expand_as(token_log_probs)[token_log_probs], places[token_log_probs]
        ] = tokens[token_log_probs]
        return ~(given & stops).any(1)

    def hypotheses(self) -> list[Hypothesis]:
        """One for every row."""
        lengths = (self.tokens != EOS).sum(1).tolist()
        found = zip(
            self.tokens.tolist(), lengths, self._log_probs.tolist(), self._finished.tolist(), strict=True
        )
        return [
            Hypothesis(tuple(text[:length]), log_prob, FinishReason.end if finished else FinishReason.length)
            for text, length, log_prob, finished in found
        ]
