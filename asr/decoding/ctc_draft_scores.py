"""CTC scores of all prefixes of a known token sequence, in one pass over time.

Speculative decoding needs the scores after every prefix of its draft. As the tokens are known, the recursion
of CTC's forward variables (Graves et al. 2006, section 4.1) serves all prefixes together.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from asr.decoding.ctc_prefix import LOG_ZERO, MIN_SCORE, CTCPrefixScorer, sum_over_time

_WHOLE_VOCABULARY = 8  # a vocabulary up to this many times the candidates is scored whole, which is faster


class CTCDraftScorer:
    """Scores candidates after each of the U + 1 prefixes of a draft, which continues each row's prefix.

    `tokens` (R, U) are the draft. The recursion uses probabilities relative to those of the most likely path
    until each time. They are near 1 if the draft is near CTC's output.
    """

    def __init__(self, scorer: CTCPrefixScorer, tokens: Tensor) -> None:
        self._scorer = scorer
        self._tokens = torch.cat([scorer.last_tokens.unsqueeze(1), tokens], 1)  # (R, U + 1)
        self._lines = scorer.first_line.unsqueeze(1) + self._tokens
        self._utterances = scorer.first_line // scorer.vocabulary_size  # (R,)
        self._best_path = scorer.best_path[self._utterances]  # (R, S + 1)
        start = torch.stack([scorer.ends_in_token, scorer.ends_in_blank], 2) - self._best_path.unsqueeze(2)
        self._start_peak = start.amax((1, 2))  # (R,)
        # Relative probabilities of the paths that end at time t in each prefix's last token, and in a blank
        # after it: (R, S + 1, U + 1, 2).
        self._paths = self._forward((start - self._start_peak[:, None, None]).exp())
        in_blank = self._paths[..., 1].transpose(1, 2)  # (R, U + 1, S + 1)
        exact = in_blank + self._paths[..., 0].transpose(1, 2)
        peak, peak_time = exact.max(2, keepdim=True)  # (R, U + 1, 1)
        # (R, U + 1): true for a prefix that is so unlikely that terms of its sums could be lost.
        self.underflow = peak.squeeze(2) < torch.finfo(peak.dtype).tiny ** 0.5
        scale, self._log_factor = self._rescale(exact, peak_time)
        # Probabilities divided by exp(_log_factor): (R, U + 1, S + 1).
        self._exact, self._in_blank = exact * scale, in_blank * scale
        self._prefix_scores = self._score_prefixes()  # (R, U + 1)

    def score(self, candidates: Tensor) -> Tensor:
        """As `CTCPrefixScorer.score`: candidates (R * (U + 1), K) -> the same shape.

        The U + 1 prefixes of a row follow each other.
        """
        totals = self._totals(candidates.view(*self._tokens.shape, -1))
        return (totals - self._prefix_scores.unsqueeze(2)).clamp_min(MIN_SCORE).flatten(0, 1)

    def advanced(self, counts: Tensor) -> CTCPrefixScorer:
        """The prefix scorer after the first counts (R,) tokens of each row's draft."""
        rows = torch.arange(len(counts), device=counts.device)
        offset = self._best_path + self._start_peak.unsqueeze(1)  # (R, S + 1)
        paths = self._paths[rows, :, counts].log() + offset.unsqueeze(2)
        in_token, in_blank = paths.clamp_min(LOG_ZERO).unbind(2)  # (R, S + 1) each
        return self._scorer.with_prefixes(
            self._scorer.first_line,
            in_token,
            in_blank,
            self._prefix_scores[rows, counts],
            self._tokens[rows, counts],
        )

    def _forward(self, start: Tensor) -> Tensor:
        """The recursion, from the paths of the first prefix (R, S + 1, 2) -> (R, S + 1, U + 1, 2)."""
        emissions, lines = self._scorer.emissions, self._lines
        blank_lines = self._scorer.first_line + self._scorer.blank
        best = self._best_path.diff(dim=1).exp().unsqueeze(1)  # (R, 1, S)
        tokens = emissions[lines[:, 1:]] / best  # (R, U, S)
        blank = emissions[blank_lines].unsqueeze(1) / best  # (R, 1, S)
        emitted = torch.stack([tokens, blank.expand_as(tokens)], 2).flatten(1, 2)  # (R, 2 * U, S)
        differs = lines[:, 1:] != lines[:, :-1]  # between different tokens there need not be a blank
        can_skip = torch.stack([differs, torch.zeros_like(differs)], 2).flatten(1).to(emissions.dtype)
        paths = emissions.new_zeros(emitted.size(2) + 1, *lines.shape, 2)  # (S + 1, R, U + 1, 2)
        paths[:, :, 0] = start.transpose(0, 1)
        # (S + 1, R, 2 * (U + 1)), (S, R, 2 * U), (R, 2 * U)
        arrays: Any = (paths.flatten(2), emitted.permute(2, 0, 1).contiguous(), can_skip)
        if paths.device.type == "cpu":  # numpy is faster than torch for small arrays
            arrays = (each.numpy() for each in arrays)
        flat, emitted, can_skip = arrays
        stay, move, skip = flat[:, :, 2:], flat[:, :, 1:-1], flat[:, :, :-2]
        for new, *old, emission in zip(stay[1:], stay, move, skip, emitted, strict=False):
            new[...] = (old[0] + old[1] + can_skip * old[2]) * emission
        return paths.transpose(0, 1)

    def _rescale(self, exact: Tensor, peak_time: Tensor) -> tuple[Tensor, Tensor]:
        """Factors that turn relative probabilities into probabilities with each prefix's peak near 1.

        exact (R, U + 1, S + 1), peak_time (R, U + 1, 1) -> factors (R, U + 1, S + 1), and the logarithm
        (R, U + 1) of the constant by which they divide.
        """
        level = self._best_path.unsqueeze(1).expand_as(exact)
        peak_level = level.gather(2, peak_time)
        limit = -0.85 * math.log(torch.finfo(exact.dtype).tiny)  # beyond this the products are negligible
        scale = (level - peak_level).clamp_(-limit, limit).exp_()
        return scale, peak_level.squeeze(2) + self._start_peak.unsqueeze(1)

    def _score_prefixes(self) -> Tensor:
        """The prefix scores of all prefixes: (R, U + 1)."""
        lines, repeats = self._lines[:, 1:], (self._lines[:, 1:] == self._lines[:, :-1]).unsqueeze(2)
        before = torch.where(repeats, self._in_blank[:, :-1], self._exact[:, :-1])[:, :, :-1]  # (R, U, S)
        sums = (before * self._scorer.emissions[lines]).sum(2)
        scores = sums.clamp_min(torch.finfo(sums.dtype).tiny).log() + self._log_factor[:, :-1]
        return torch.cat([self._scorer.prefix_scores.unsqueeze(1), scores], 1)

    def _totals(self, candidates: Tensor) -> Tensor:
        """Prefix scores of the prefixes with one of candidates (R, U + 1, K) appended."""
        emissions, vocabulary_size = self._scorer.emissions, self._scorer.vocabulary_size
        before = self._exact[:, :, :-1]  # (R, U + 1, S)
        if vocabulary_size <= _WHOLE_VOCABULARY * candidates.size(2):
            table = emissions.view(-1, vocabulary_size, emissions.size(1))[self._utterances]  # (R, V, S)
            sums = (before @ table.transpose(1, 2)).gather(2, candidates)
        else:
            lines = (self._scorer.first_line[:, None, None] + candidates).flatten(0, 1)
            sums = sum_over_time(emissions, lines, before.flatten(0, 1)).view_as(candidates)
        # A token that repeats the last one needs a blank between the two.
        repeated = (self._in_blank[:, :, :-1] * emissions[self._lines]).sum(2, keepdim=True)
        sums = torch.where(candidates == self._tokens.unsqueeze(2), repeated, sums)
        sums = torch.where(candidates == self._scorer.eos, self._exact[:, :, -1:], sums)
        return sums.clamp_min(torch.finfo(sums.dtype).tiny).log() + self._log_factor.unsqueeze(2)
