"""Beam search: the hypotheses with the best weighted sum of all scores, for many utterances at once.

A hypothesis is scored by the log-probabilities of the decoder and of CTC (Watanabe et al. 2017) and by
further scorers, summed over its tokens and EOS. The sum is divided by
(number of tokens + 1) ** length_normalization.

At each step the best `beam` continuations of an utterance are kept. Finished hypotheses move from the beam to
a pool of results, which leaves room for others at the next step. A hypothesis of maximum length is cut: the
token after it is not part of the result, but the score of this token is.

The search for an utterance stops when no live hypothesis can become one of the n best. All log-probabilities
are at most 0, so a live hypothesis of n tokens and score s finishes with m >= n tokens and a score of at most
u = s + gain * (max_length + 1 - n), where `gain` is the most that the further scorers can add for one token.
Divided by (m + 1) ** alpha, this is largest for m = max_length if u is negative, and for m = n if it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.finished_pool import FinishedPool
from asr.decoding.hypotheses import COMPACT_BELOW
from asr.decoding.max_lengths import compute_max_lengths
from asr.decoding.options import DecodingOptions, FinishReason, Hypothesis
from asr.decoding.processors import LogitProcessor, LogitProcessors
from asr.decoding.prompts import start_with_prompt, with_prompt
from asr.decoding.repetition import CHECK_INTERVAL, cut_repetitions, is_repeating
from asr.decoding.scorers import Scorer, ScorerFactory
from asr.model.interfaces import HasCTC, HasDecoder, Memory
from asr.tokenizers.special import SpecialTokens


@torch.inference_mode()
def beam_search(
    network: HasDecoder,
    memory: Memory,
    special: SpecialTokens,
    options: DecodingOptions,
    factories: Sequence[ScorerFactory] = (),
    processors: Sequence[LogitProcessor] = (),
) -> list[list[Hypothesis]]:
    """The `n_best` hypotheses of every row of the memory, best first. Fewer if the search finds fewer.

    With a beam of 1 and without factories this is greedy decoding.
    """
    batch = memory.states.size(0)
    if batch == 0:
        return []
    ctc = network.ctc(memory) if isinstance(network, HasCTC) else None  # (B, S, V)
    weight = options.weight_of_ctc(ctc is not None)
    max_lengths = compute_max_lengths(
        memory, ctc if weight else None, special, options, network, factories
    )  # (B,)
    capacity = int(max_lengths.max()) + 1  # EOS can follow a hypothesis of maximum length
    logit_processors = LogitProcessors(special, processors, memory.lengths.device)
    prefix_scorer = CTCPrefixScorer(ctc, memory.lengths, special) if ctc is not None and weight else None
    scores = JointScores(prefix_scorer, weight, special, options, factories, batch, capacity)
    state, first = start_with_prompt(network, memory, special, capacity)
    beam = _Beam.start(first, max_lengths, capacity, special)
    pool = FinishedPool(batch, options.n_best or 1, capacity, special.eos, memory.lengths.device)

    for position in range(capacity):
        log_probs = network.step(beam.tokens.flatten(), state)  # (B * W, V)
        log_probs = logit_processors(beam.prefixes(position), log_probs)
        parents = beam.keep_best(scores.of_candidates(log_probs), options.beam_size, position)  # (B, W)
        _move_finished(beam, parents, pool, special, options, position)
        live = beam.best_possible(scores.gain, options, position) > pool.worst[beam.rows]  # (B,)
        live_count = int(live.sum())
        if live_count == 0:
            break
        state = state.reorder(parents)
        scores.advance(beam.parent_rows, beam.tokens.flatten())
        if live_count < COMPACT_BELOW * len(live):
            keep = live.nonzero().squeeze(1)
            state = state.select(keep)
            scores.select(beam.row_numbers()[keep].flatten())
            beam = beam.select(keep)
    return cut_repetitions(network, memory, special, logit_processors, pool.hypotheses())


@dataclass
class _Beam:
    """W live hypotheses for each of B utterances."""

    rows: Tensor  # (B,) indices of the utterances in the memory
    max_lengths: Tensor  # (B,)
    scores: Tensor  # (B, W) sums of the joint scores; minus infinity for a hypothesis that is not live
    log_probs: Tensor  # (B, W) sums of the decoder's log-probabilities
    previous_log_probs: Tensor  # (B, W) without the last token
    tokens: Tensor  # (B, W) the last token
    sequences: Tensor  # (B, W, P + capacity) prompt and tokens, padded with EOS
    parent_rows: Tensor  # (B * W,) index of the hypothesis of the step before that each one continues
    prompt_size: int

    @classmethod
    def start(cls, first: Tensor, max_lengths: Tensor, capacity: int, special: SpecialTokens) -> _Beam:
        """One empty hypothesis for each utterance. `first` (B,) is the last token of the prompt."""
        rows = torch.arange(len(first), device=first.device)
        zeros = torch.zeros(len(first), 1, device=first.device)
        empty = torch.full((len(first), capacity), special.eos, device=first.device)
        sequences = with_prompt(empty, special).unsqueeze(1)
        return cls(
            rows, max_lengths, zeros, zeros, zeros, first.unsqueeze(1), sequences, rows, len(special.prompt)
        )

    def prefixes(self, position: int) -> Tensor:
        """The sequences of `position` tokens with their prompt: (B * W, P + position)."""
        return self.sequences[:, :, : self.prompt_size + position].flatten(0, 1)

    def row_numbers(self) -> Tensor:
        """The numbers 0 to B * W - 1, as (B, W)."""
        return torch.arange(self.tokens.numel(), device=self.tokens.device).view_as(self.tokens)

    def keep_best(self, candidates: tuple[Tensor, Tensor, Tensor], beam_size: int, position: int) -> Tensor:
        """Keep the `beam_size` best continuations of each utterance; `position` is that of the new token.

        `candidates` are tokens, the decoder's log-probabilities and the joint scores, each (B * W, K).
        Returns which hypothesis each one continues, (B, W) with the new W.
        """
        batch, width = self.tokens.shape
        tokens, token_log_probs, joint = (each.view(batch, width, -1) for each in candidates)
        count = tokens.size(2)
        totals = (self.scores.unsqueeze(2) + joint).flatten(1)  # (B, W * K)
        self.scores, chosen = totals.topk(min(beam_size, width * count))  # (B, W), with the new W
        parents = chosen // count
        self.parent_rows = self.row_numbers()[:, :1].add(parents).flatten()
        self.tokens = tokens.flatten(1).gather(1, chosen)
        self.previous_log_probs = self.log_probs.gather(1, parents)
        self.log_probs = self.previous_log_probs + token_log_probs.flatten(1).gather(1, chosen)
        index = parents.unsqueeze(2).expand(-1, -1, self.sequences.size(2))
        self.sequences = self.sequences.gather(1, index)
        self.sequences[:, :, self.prompt_size + position] = self.tokens
        return parents

    def drop(self, hypotheses: Tensor) -> None:
        """The given hypotheses (B, W) are not live any more."""
        self.scores = self.scores.masked_fill(hypotheses, -torch.inf)

    def best_possible(self, gain: float, options: DecodingOptions, position: int) -> Tensor:
        """The best normalized score that any live hypothesis of each utterance can reach, (B,)."""
        remaining = self.max_lengths - position  # tokens that can still be scored, EOS included
        best = self.scores.amax(1) + gain * remaining
        sizes = torch.where(best > 0, position + 2.0, self.max_lengths + 1.0)
        return best / sizes ** (options.length_normalization or 0.0)

    def select(self, keep: Tensor) -> _Beam:
        """The beams of the given utterances (indices)."""
        return replace(
            self,
            rows=self.rows[keep],
            max_lengths=self.max_lengths[keep],
            scores=self.scores[keep],
            log_probs=self.log_probs[keep],
            previous_log_probs=self.previous_log_probs[keep],
            tokens=self.tokens[keep],
            sequences=self.sequences[keep],
        )


def _move_finished(
    beam: _Beam,
    parents: Tensor,
    pool: FinishedPool,
    special: SpecialTokens,
    options: DecodingOptions,
    position: int,
) -> None:
    """Move the hypotheses that end with EOS, are cut, or repeat themselves from the beam to the pool."""
    sequences = beam.sequences[:, :, beam.prompt_size :]
    normalized = beam.scores / (position + 1) ** (options.length_normalization or 0.0)
    ended = beam.tokens == special.eos
    cut = ~ended & (beam.max_lengths[:, None] <= position)
    finished = _first_of_each_parent((ended | cut) & beam.scores.isfinite(), parents)
    log_probs = torch.where(cut, beam.previous_log_probs, beam.log_probs)
    results = normalized.masked_fill(~finished, -torch.inf)
    pool.add(beam.rows, results, sequences, log_probs, position, cut, FinishReason.length)
    beam.drop(ended | cut)
    if (position + 1) % CHECK_INTERVAL == 0:
        repeating = is_repeating(sequences[:, :, : position + 1]) & beam.scores.isfinite()
        results = normalized.masked_fill(~repeating, -torch.inf)
        pool.add(
            beam.rows, results, sequences, beam.log_probs, position + 1, repeating, FinishReason.repetition
        )
        beam.drop(repeating)


def _first_of_each_parent(finished: Tensor, parents: Tensor) -> Tensor:
    """Of the finished hypotheses (B, W), the best of each parent.

    At the maximum length, a hypothesis is either finished by EOS or cut, not both.
    """
    same_parent = parents.unsqueeze(2) == parents.unsqueeze(1)  # (B, W, W)
    better = (same_parent & finished.unsqueeze(1)).tril(-1).any(2)
    return finished & ~better


class JointScores:
    """The weighted sum of all scores of the decoder's best candidates for every row."""

    def __init__(
        self,
        ctc: CTCPrefixScorer | None,
        ctc_weight: float,
        special: SpecialTokens,
        options: DecodingOptions,
        factories: Sequence[ScorerFactory],
        rows: int,
        capacity: int,
    ) -> None:
        self._eos, self._decoder_weight = special.eos, 1 - ctc_weight
        self._scorers: list[tuple[float, Scorer]] = [(f.weight, f.start(rows, capacity)) for f in factories]
        if ctc is not None:
            self._scorers.append((ctc_weight, ctc))
        self._count = options.candidate_count if self._scorers else options.beam_size
        self.gain = sum(f.weight * f.gain for f in factories)  # the most that one token can add

    def of_candidates(self, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log_probs (R, V) -> candidates, their log-probabilities and joint scores, each (R, K).

        EOS is always the last candidate. A token that the logit processors forbid stays impossible.
        """
        likely = log_probs.topk(min(self._count, log_probs.size(1)), dim=1).indices  # (R, K - 1)
        candidates = torch.cat([likely, torch.full_like(likely[:, :1], self._eos)], dim=1)  # (R, K)
        token_log_probs = log_probs.gather(1, candidates)
        joint = self._decoder_weight * token_log_probs
        for weight, scorer in self._scorers:
            joint = joint + weight * scorer.score(candidates)
        joint = joint.masked_fill(token_log_probs == -torch.inf, -torch.inf)  # 0 * inf is not a number
        joint[:, :-1].masked_fill_(likely == self._eos, -torch.inf)  # EOS is already the last candidate
        return candidates, token_log_probs, joint

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Each row continues another row (indices) by a token: (R,), (R,)."""
        self.select(rows)
        for _, scorer in self._scorers:
            scorer.advance(tokens)

    def select(self, rows: Tensor) -> None:
        """Keep the given rows (indices)."""
        self._scorers = [(weight, scorer.select(rows)) for weight, scorer in self._scorers]
