"""Beam search: the best texts by the weighted sum of all scores, many utterances and hypotheses at once.

A text is scored by the decoder's and CTC's log-probabilities (Watanabe et al. 2017) and those of further
factories, summed over its characters and EOS, divided by (number of characters + 1) ** length_normalization.

At each step the best `beam` continuations of an utterance are kept. Those that end leave the beam for a pool
of results; the places they leave are taken at the next step. A character beyond the bound on the length is
not decoded: its text is cut off there, and ranked as it was with that character.

An utterance is done when no live text can still be among its n best. As all log-probabilities are below 0, a
live text of n characters and score s ends with m >= n characters and at most u = s + gain (bound + 1 - n),
`gain` being what one token of the factories can add at most. Divided by (m + 1) ** alpha that is most for
m = bound where u is below 0, and for m = n where it is above.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asr.decoding import repetition
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.max_lengths import compute_max_lengths
from asr.decoding.options import DecodingOptions, FinishReason, Hypothesis
from asr.decoding.scorers import Scorer, ScorerFactory
from asr.model.interfaces import HasCTC, Memory, Network
from asr.tokenizers import BOS, EOS, PAD

COMPACT_BELOW = 0.75  # share of utterances not done under which the done ones leave the batch
_ENDINGS = tuple(FinishReason)
_LENGTH, _REPETITION = _ENDINGS.index(FinishReason.length), _ENDINGS.index(FinishReason.repetition)
LAST_RESORT = 1e6  # by what a text that goes round in circles is ranked lower: it comes after all others


@torch.inference_mode()
def beam_search(
    network: Network, memory: Memory, options: DecodingOptions, factories: Sequence[ScorerFactory] = ()
) -> list[list[Hypothesis]]:
    """The `n_best` texts of every row of the memory, best first; fewer where there are no more.

    With a beam of 1 and no factories this is greedy decoding.
    """
    device, batch = memory.states.device, memory.states.size(0)
    if batch == 0:
        return []
    ctc = network.ctc(memory) if isinstance(network, HasCTC) else None  # (B, S, V)
    max_lengths = compute_max_lengths(memory, ctc, options)  # (B,)
    capacity = int(max_lengths.max()) + 1  # the last step may still say EOS
    scores = JointScores(ctc, memory, options, factories, capacity)
    alpha = options.length_normalization or 0.0
    state = network.start(memory, capacity)
    pool = _Pool(batch, options.n_best or 1, capacity, device)

    rows = torch.arange(batch, device=device)  # the utterance of each row of the beam
    totals = torch.zeros(batch, 1, device=device)  # (B, W) scores of live texts; -inf where there is none
    log_probs = torch.zeros(batch, 1, device=device)  # (B, W) the decoder's
    tokens = torch.full((batch, 1), BOS, device=device)
    texts = torch.full((batch, 1, capacity), EOS, device=device)  # (B, W, capacity)
    for position in range(capacity):
        candidates, token_log_probs, joint = (
            each.unflatten(0, (len(rows), -1))
            for each in scores.extend(network.step(tokens.flatten(), state))
        )  # (B, W, K)
        width, count = candidates.shape[1:]
        extended = (totals.unsqueeze(2) + joint).flatten(1)  # (B, W * K)
        totals, chosen = extended.topk(min(options.beam_size, width * count))  # (B, W), with a new W
        parents = chosen // count
        tokens = candidates.flatten(1).gather(1, chosen)
        before = log_probs.gather(1, parents)
        log_probs = before + token_log_probs.flatten(1).gather(1, chosen)
        texts = texts.gather(1, parents.unsqueeze(2).expand(-1, -1, capacity))

        normal = (position + 1) ** alpha
        ended = tokens == EOS
        cut = ~ended & (max_lengths[rows] <= position).unsqueeze(1)
        leaving = (ended | cut) & totals.isfinite()
        results = (totals / normal).masked_fill(~_first(leaving, parents), -torch.inf)
        pool.add(rows, results, texts, torch.where(cut, before, log_probs), position, _LENGTH * cut)
        totals = totals.masked_fill(ended | cut, -torch.inf)
        texts[:, :, position] = tokens
        if (position + 1) % repetition.LOOK_EVERY == 0:
            stuck = repetition.going_round(texts[:, :, : position + 1]) & totals.isfinite()
            results = (totals / normal).masked_fill(~stuck, -torch.inf)
            pool.add(rows, results, texts, log_probs, position + 1, _REPETITION * stuck)
            totals = totals.masked_fill(stuck, -torch.inf)

        room = max_lengths[rows] - position  # tokens that may still be scored, EOS included
        most = totals.amax(1) + scores.gain * room
        most = most / torch.where(most > 0, position + 2.0, max_lengths[rows] + 1.0) ** alpha
        live = most > pool.worst[rows]
        left = int(live.sum())
        if left == 0:
            break
        state = state.reorder(parents)
        continued = (parents + width * torch.arange(len(rows), device=device).unsqueeze(1)).flatten()
        scores.follow(continued, tokens.flatten())
        if left < COMPACT_BELOW * len(rows):
            keep = live.nonzero().squeeze(1)
            state = state.select(keep)
            scores.select(torch.arange(len(continued), device=device).view_as(parents)[keep].flatten())
            rows, totals, log_probs, tokens, texts = (
                each[keep] for each in (rows, totals, log_probs, tokens, texts)
            )
    return repetition.cut_repetitions(network, memory, pool.hypotheses())


class JointScores:
    """The weighted sum of all scores of the decoder's best candidates for every row."""

    def __init__(
        self,
        ctc: Tensor | None,
        memory: Memory,
        options: DecodingOptions,
        factories: Sequence[ScorerFactory],
        capacity: int,
    ) -> None:
        weight = options.weight_of_ctc(ctc is not None)
        rows = len(memory.lengths)
        self._own = 1 - weight
        self._others: list[tuple[float, Scorer]] = [
            (factory.weight, factory.start(rows, capacity)) for factory in factories
        ]
        if ctc is not None and weight:
            self._others.append((weight, CTCPrefixScorer(ctc, memory.lengths)))
        self._count = options.candidate_count if self._others else options.beam_size
        self.gain = sum(factory.weight * factory.gain for factory in factories)  # of one token at most

    def extend(self, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's (R, V) -> candidates, their log-probabilities and joint scores, each (R, K).

        EOS is always the last candidate. PAD and BOS are none.
        """
        log_probs[:, [PAD, BOS]] = -torch.inf
        likely = log_probs.topk(min(self._count, log_probs.size(1) - 2), dim=1).indices  # (R, K - 1)
        candidates = torch.cat([likely, torch.full_like(likely[:, :1], EOS)], dim=1)  # (R, K)
        token_log_probs = log_probs.gather(1, candidates)
        joint = self._own * token_log_probs if self._own else torch.zeros_like(token_log_probs)
        for weight, scorer in self._others:
            joint = joint + weight * scorer.score(candidates)
        joint[:, :-1].masked_fill_(likely == EOS, -torch.inf)  # it is the last one already
        return candidates, token_log_probs, joint

    def follow(self, rows: Tensor, tokens: Tensor) -> None:
        """Each row continues another one (indices) by a token: (R,), (R,)."""
        self.select(rows)
        for _, scorer in self._others:
            scorer.advance(tokens)

    def select(self, rows: Tensor) -> None:
        """Keep the given rows (indices)."""
        self._others = [(weight, scorer.select(rows)) for weight, scorer in self._others]


class _Pool:
    """The best results of every utterance so far."""

    def __init__(self, batch: int, size: int, capacity: int, device: torch.device) -> None:
        self._ranks = torch.full((batch, size), -torch.inf, device=device)  # best first
        self._texts = torch.full((batch, size, capacity), EOS, device=device)
        self._facts = torch.zeros(batch, size, 4, device=device)  # score, log-probability, length, ending

    @property
    def worst(self) -> Tensor:
        """What a text must be ranked above to get in: (B,)."""
        return self._ranks[:, -1]

    def add(
        self,
        rows: Tensor,
        scores: Tensor,
        texts: Tensor,
        log_probs: Tensor,
        length: int,
        finish_reasons: Tensor,
    ) -> None:
        """Hypotheses (B, W, capacity) of one length for the given utterances (B,); not those scored -inf."""
        if scores.device.type == "cpu" and not scores.isfinite().any():
            return  # most steps; elsewhere one would have to wait for the answer
        size = self._ranks.size(1)
        facts = torch.stack((scores, log_probs, torch.full_like(scores, length), finish_reasons), 2)
        ranks = scores - LAST_RESORT * (finish_reasons == _REPETITION)
        best, chosen = torch.cat((self._ranks[rows], ranks.float()), 1).topk(size)
        self._ranks[rows] = best
        for held, new in ((self._texts, texts), (self._facts, facts)):
            both = torch.cat((held[rows], new.to(held.dtype)), 1)
            held[rows] = both.gather(1, chosen.unsqueeze(2).expand(-1, -1, both.size(2)))

    def hypotheses(self) -> list[list[Hypothesis]]:
        """What has been found for every utterance, best first."""
        found = zip(self._ranks.tolist(), self._texts.tolist(), self._facts.tolist(), strict=True)
        return [
            [
                Hypothesis(tuple(text[: int(length)]), log_prob, _ENDINGS[int(finish_reason)], score)
                for rank, text, (score, log_prob, length, finish_reason) in zip(*each, strict=True)
                if rank > -torch.inf
            ]
            for each in found
        ]


def _first(leaving: Tensor, parents: Tensor) -> Tensor:
    """Of those that leave, the best of each parent: at the bound a text is finished or cut, not both."""
    same = parents.unsqueeze(2) == parents.unsqueeze(1)  # (B, W, W)
    earlier = (same & leaving.unsqueeze(1)).tril(-1).any(2)
    return leaving & ~earlier
