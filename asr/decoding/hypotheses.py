"""Code that the greedy decoders share, with drafts or without: the choice of tokens, and the hypotheses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from asr.decoding.options import FinishReason, Hypothesis
from asr.decoding.processors import LogitProcessors
from asr.decoding.prompts import with_prompt
from asr.decoding.sampling import Sampling
from asr.tokenizers.special import SpecialTokens

COMPACT_BELOW = 0.75  # finished rows leave the batch when the share of unfinished rows is below this
# Two computations of a score in float32 differ by up to 6e-6 (digits, speechocean762). If two choices differ
# by less than this, rounding could decide between them.
TIE_TOLERANCE = 5e-5


class CandidateScorer(Protocol):
    """A scorer of the next token, such as CTC's prefix scores."""

    def score(self, candidates: Tensor) -> Tensor:
        """Log-probabilities (R, K) of candidates (R, K), given each row's prefix."""
        ...


@dataclass(frozen=True)
class GreedyRules:
    """The rules for the next token and for the end of each hypothesis."""

    special: SpecialTokens
    max_lengths: Tensor  # (B,), most tokens of each utterance
    ctc_weight: float
    candidate_count: int  # how many of the decoder's best tokens CTC scores
    processors: LogitProcessors
    sampling: Sampling | None = None  # None: the best token


@dataclass(frozen=True)
class Choice:
    """The next token of every row (R,), the decoder's log-probability of it (R,), and whether the choice is
    so close that rounding could change it (R,)."""

    tokens: Tensor
    log_probs: Tensor
    near_tie: Tensor


def choose(log_probs: Tensor, scorer: CandidateScorer | None, rules: GreedyRules, prefixes: Tensor) -> Choice:
    """The token with the best joint score, or one that is drawn if the rules say so.

    `log_probs` (R, V) are the decoder's, after the logit processors. Without a scorer, only these decide. A
    scorer scores EOS and the decoder's best candidates, and has the weight `ctc_weight`. Sampling needs the
    `prefixes` (R, U), the tokens before.
    """
    sampling = rules.sampling
    eos, count, weight = rules.special.eos, rules.candidate_count, rules.ctc_weight
    if scorer is None:
        scores = log_probs if sampling is None else sampling.perturb(prefixes, log_probs)
        joint, candidates = scores.topk(2, dim=1)
        token_log_probs = log_probs.gather(1, candidates)
    else:
        best = log_probs.topk(min(count + 1, log_probs.size(1)), dim=1)
        likely = best.indices[:, :count]  # (R, K)
        candidates = torch.cat([likely, torch.full_like(likely[:, :1], eos)], dim=1)  # (R, K + 1)
        token_log_probs = log_probs.gather(1, candidates)
        joint = joint_scores(token_log_probs, scorer.score(candidates), weight)
        if sampling is not None:
            joint = sampling.perturb(prefixes, joint, candidates)
        joint[:, :-1].masked_fill_(likely == eos, -torch.inf)  # EOS is already the last candidate
    (first, second), chosen = joint.topk(2, dim=1).values.unbind(1), joint.argmax(1, keepdim=True)
    near_tie = first - second < TIE_TOLERANCE
    if scorer is not None and best.values.size(1) > count:
        # The best token that was not scored could also take the place of the last candidate.
        last, excluded = best.values[:, count - 1 :].unbind(1)
        # CTC's score of it is at most 0.
        near_tie |= (last - excluded < TIE_TOLERANCE) & ((1 - weight) * excluded > first - TIE_TOLERANCE)
    return Choice(
        candidates.gather(1, chosen).squeeze(1), token_log_probs.gather(1, chosen).squeeze(1), near_tie
    )


def joint_scores(token_log_probs: Tensor, ctc_scores: Tensor, ctc_weight: float) -> Tensor:
    """The weighted sum of two scores (R, K). A token that the logit processors forbid stays impossible."""
    joint = (1 - ctc_weight) * token_log_probs + ctc_weight * ctc_scores
    return joint.masked_fill(token_log_probs == -torch.inf, -torch.inf)  # 0 * inf is not a number


class Hypotheses:
    """The growing hypotheses of B utterances, one for each.

    `tokens` (B, capacity) has EOS after each hypothesis. It is a view of `with_prompt` (B, P + capacity),
    which begins with the P prompt tokens.
    """

    def __init__(self, rules: GreedyRules) -> None:
        self._max_lengths, self._eos = rules.max_lengths, rules.special.eos
        self.prompt_size = len(rules.special.prompt)
        self.capacity = int(rules.max_lengths.max()) + 1  # EOS can follow a hypothesis of maximum length
        rows = len(rules.max_lengths)
        empty = torch.full((rows, self.capacity), self._eos, device=rules.max_lengths.device)
        self.with_prompt = with_prompt(empty, rules.special)
        self.tokens = self.with_prompt[:, self.prompt_size :]
        self._log_probs = torch.zeros(rows, device=rules.max_lengths.device)
        self._finished = torch.zeros_like(rules.max_lengths, dtype=torch.bool)

    def add(self, rows: Tensor, starts: Tensor, tokens: Tensor, log_probs: Tensor, counts: Tensor) -> Tensor:
        """Append tokens to the hypotheses `rows` (R,), which have the lengths `starts` (R,).

        Of tokens and log_probs (R, U), the first counts (R,) of each row are appended. A hypothesis ends with
        EOS, or where its maximum length forbids another token. Returns which hypotheses continue, (R,).
        """
        order = torch.arange(tokens.size(1), device=rows.device)
        positions = starts.unsqueeze(1) + order  # (R, U)
        ends = tokens == self._eos
        cut = ~ends & (positions >= self._max_lengths[rows].unsqueeze(1))
        stops = ends | cut
        used = (order < counts.unsqueeze(1)) & (stops.cumsum(1) - stops.long() == 0)  # until the first stop
        scored = used & ~cut
        self._log_probs[rows] += torch.where(scored, log_probs, 0.0).sum(1)
        self._finished[rows] |= (scored & ends).any(1)
        appended = scored & ~ends
        self.tokens[rows.unsqueeze(1).expand_as(tokens)[appended], positions[appended]] = tokens[appended]
        return ~(used & stops).any(1)

    def continued(self, rows: Tensor, starts: Tensor, tokens: Tensor) -> Tensor:
        """The hypotheses `rows` (R,) of lengths starts (R,), followed by tokens (R, U), with the prompt.

        Returns (R, P + capacity + U); only the first P + starts + U tokens of a row are meaningful.
        """
        positions = self.prompt_size + starts.unsqueeze(1) + torch.arange(tokens.size(1), device=rows.device)
        sequences = torch.nn.functional.pad(self.with_prompt[rows], (0, tokens.size(1)), value=self._eos)
        return sequences.scatter(1, positions, tokens)

    def finished(self, temperature: float = 0.0) -> list[Hypothesis]:
        """The hypothesis of every utterance, drawn at this temperature."""
        lengths = (self.tokens != self._eos).sum(1).tolist()
        rows = zip(
            self.tokens.tolist(), lengths, self._log_probs.tolist(), self._finished.tolist(), strict=True
        )
        return [
            Hypothesis(
                tuple(tokens[:length]),
                log_prob,
                FinishReason.end if ended else FinishReason.length,
                temperature=temperature,
            )
            for tokens, length, log_prob, ended in rows
        ]
