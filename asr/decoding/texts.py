"""What the two ways of greedy decoding share: the choice of the next token, and the texts that grow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asr.decoding.ctc_prefix import CTCPrefixScorer, PrefixesAlong
from asr.decoding.options import Ending, Hypothesis
from asr.tokenizer import BEGIN, END, PAD

# Two ways to compute a score in float32 differ by up to 6e-6 (digits, speechocean762). Between choices that
# are nearer to each other than this, only the way that counts can decide.
NEAR = 5e-5


@dataclass(frozen=True)
class Choice:
    """The next token of every row (R,), the decoder's log-probability of it (R,), and whether rounding could
    have made it another one (R,)."""

    tokens: Tensor
    log_probs: Tensor
    doubtful: Tensor


def choose(
    log_probs: Tensor, scorer: CTCPrefixScorer | PrefixesAlong | None, weight: float, count: int
) -> Choice:
    """The best token by the decoder's log-probabilities (R, V) and, with its weight, by the scorer.

    The scorer is asked about the decoder's `count` best, and END. PAD and BEGIN are never chosen.
    """
    log_probs[:, [PAD, BEGIN]] = -torch.inf
    if scorer is None:
        said, candidates = log_probs.topk(2, dim=1)
        joint, excluded = said, None
    else:
        best = log_probs.topk(min(count + 1, log_probs.size(1) - 2), dim=1)  # (R, K) or one more
        likely = best.indices[:, :count]
        candidates = torch.cat([likely, torch.full_like(likely[:, :1], END)], dim=1)  # (R, K + 1)
        said = log_probs.gather(1, candidates)
        joint = (1 - weight) * said + weight * scorer.score(candidates)
        joint[:, :-1].masked_fill_(likely == END, -torch.inf)  # it is the last one already
        excluded = best.values[:, count - 1 :] if best.values.size(1) > count else None
    (first, second), chosen = joint.topk(2, dim=1).values.unbind(1), joint.argmax(1, keepdim=True)
    doubtful = first - second < NEAR
    if excluded is not None:  # the best that was not asked about could take the place of the last that was
        last, next = excluded.unbind(1)
        # CTC's score is at most 0.
        doubtful |= (last - next < NEAR) & ((1 - weight) * next > first - NEAR)
    return Choice(candidates.gather(1, chosen).squeeze(1), said.gather(1, chosen).squeeze(1), doubtful)


class Texts:
    """The texts of B rows, each of which may have so many tokens: bounds (B,)."""

    def __init__(self, bounds: Tensor) -> None:
        self.capacity = int(bounds.max()) + 1  # the last decision may still be END
        self.tokens = torch.full((len(bounds), self.capacity), END, device=bounds.device)
        self._bounds = bounds
        self._log_probs = torch.zeros(len(bounds), device=bounds.device)
        self._finished = torch.zeros_like(bounds, dtype=torch.bool)

    def add(self, rows: Tensor, starts: Tensor, tokens: Tensor, log_probs: Tensor, counts: Tensor) -> Tensor:
        """Append the first counts (R,) of tokens (R, U) to the texts `rows` (R,), of lengths starts (R,).

        A text ends with END, or where its bound forbids one more. Returns which go on, (R,).
        """
        order = torch.arange(tokens.size(1), device=rows.device)
        places = starts.unsqueeze(1) + order  # (R, U)
        ends = tokens == END
        cut = ~ends & (places >= self._bounds[rows].unsqueeze(1))
        stops = ends | cut
        given = (order < counts.unsqueeze(1)) & (stops.cumsum(1) - stops.long() == 0)  # up to the first stop
        said = given & ~cut
        self._log_probs[rows] += torch.where(said, log_probs, 0.0).sum(1)
        self._finished[rows] |= (said & ends).any(1)
        said &= ~ends
        self.tokens[rows.unsqueeze(1).expand_as(said)[said], places[said]] = tokens[said]
        return ~(given & stops).any(1)

    def hypotheses(self) -> list[Hypothesis]:
        """One for every row."""
        lengths = (self.tokens != END).sum(1).tolist()
        found = zip(
            self.tokens.tolist(), lengths, self._log_probs.tolist(), self._finished.tolist(), strict=True
        )
        return [
            Hypothesis(tuple(text[:length]), log_prob, Ending.end if finished else Ending.length)
            for text, length, log_prob, finished in found
        ]
