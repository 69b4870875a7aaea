"""CTC scores of growing prefixes, for many rows and candidates at once.

The prefix score of a text is the probability that CTC's output begins with it: the sum over all alignments
(Watanabe et al. 2017, "Hybrid CTC/Attention Architecture", algorithm 2). The recursion over time there,

    r_n(t) = (r_n(t - 1) + phi(t - 1)) x_c(t)        paths that end in the last character
    r_b(t) = (r_b(t - 1) + r_n(t - 1)) x_blank(t)    paths that end in a blank

is linear, so it is solved by cumulative sums: with X(t) the product of x_c up to t, r_n(t) / X(t) is the
running sum of phi(t - 1) / X(t - 1). In logarithms that is one `logcumsumexp`, without a loop over time.

The score of one more character, the sum of phi(t - 1) x_c(t) over t, needs no recursion. Its terms are
positive, so it is taken of probabilities and not of logarithms: phi over its largest value, times the
emissions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.tokenizer import END, PAD

_NONE = -1e30  # log of zero that survives subtraction: infinity minus infinity is not a number
_CHUNK = 2**18  # numbers gathered at once: rows x candidates x states


class CTCPrefixScorer:
    """Scores the candidates for the next token of every row against CTC; then moves on by the one chosen.

    `log_probs` (B, S, V) with the blank at PAD's place, `lengths` (B,). Sums over time run to thousands while
    their differences count, so they are kept in float64, except on Apple's GPUs, which have none. On
    utterances of some seconds float32 is wrong by up to 4e-4, an utterance alone and in a batch differ by up
    to 5e-5 (in float64 by 1e-13), and it takes as long.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor) -> None:
        valid = torch.arange(log_probs.size(1), device=lengths.device) < lengths.unsqueeze(1)  # (R, S)
        dtype = torch.float32 if log_probs.device.type == "mps" else torch.float64
        floor = math.log(torch.finfo(dtype).tiny)
        emit = log_probs.to(dtype).transpose(1, 2).clamp_min(floor).masked_fill(~valid.unsqueeze(1), _NONE)
        emit[:, PAD].masked_fill_(~valid, 0.0)  # beyond its end a row has blanks, for sure
        sums = pad(emit.cumsum(2), (1, 0))  # (B, V, S + 1): up to t
        # Tables of all utterances, which their rows share: one line for every utterance and token.
        self._emit = emit.exp().flatten(0, 1)  # (B * V, S), probabilities
        self._sums = sums.flatten(0, 1)  # (B * V, S + 1)
        self._first = torch.arange(len(lengths), device=lengths.device) * log_probs.size(2)  # (R,) row's line
        # Paths of the prefix so far that end at time t in a blank, and in its last character: (R, S + 1).
        self._rest = sums[:, PAD]
        self._last = torch.full_like(self._rest, _NONE)
        self._score = torch.zeros_like(self._rest[:, 0])  # (R,) of the prefix so far
        self._token = torch.full_like(lengths, PAD)  # (R,) its last token

    def score(self, candidates: Tensor) -> Tensor:
        """Log-probabilities of candidates (R, K), each given the prefix: how much of its score they keep.

        For END it is the share of alignments that say the prefix and nothing more. What is impossible gets
        the logarithm of the smallest number there is, about -700.
        """
        scores = self._totals(candidates) - self._score.unsqueeze(1)
        return scores.clamp_min(math.log(torch.finfo(scores.dtype).tiny) + 8)

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix. What END or PAD is appended to is not scored any more."""
        self._score = self._totals(tokens.unsqueeze(1)).squeeze(1)
        self._move(tokens)

    def along(self, tokens: Tensor) -> CTCPrefixScorer:
        """The scorer of all prefixes on the way along a text for each row, with nothing appended at first.

        tokens (R, U) -> R * (U + 1) rows, in the order of (R, U + 1). The present rows stay as they are.
        """
        here = self._of(self._first, self._rest, self._last, self._score, self._token)
        ways = [(here._rest, here._last)]
        for column in tokens.unbind(1):
            here._move(column)
            ways.append((here._rest, here._last))
        rest, last = (torch.stack(each, 1).flatten(0, 1) for each in zip(*ways, strict=True))
        first = self._first.unsqueeze(1).expand(-1, len(ways)).flatten()
        said = torch.cat([self._token.unsqueeze(1), tokens], 1)  # (R, U + 1)
        passed = self._of(first, rest, last, rest[:, 0], said.flatten())
        totals = passed._totals(pad(tokens, (0, 1)).view(-1, 1)).view_as(said)
        passed._score = torch.cat([self._score.unsqueeze(1), totals[:, :-1]], 1).flatten()
        return passed

    def select(self, rows: Tensor) -> CTCPrefixScorer:
        """The scorer of the given rows (indices): reordered, repeated or dropped."""
        kept = (self._first, self._rest, self._last, self._score, self._token)
        return self._of(*(each.index_select(0, rows) for each in kept))

    def spoken(self) -> Tensor:
        """Log-probability of all paths that say the prefix and nothing more until time t: (R, S + 1)."""
        return torch.logaddexp(self._last, self._rest)

    def _of(self, first: Tensor, rest: Tensor, last: Tensor, score: Tensor, token: Tensor) -> CTCPrefixScorer:
        made = object.__new__(CTCPrefixScorer)
        made._emit, made._sums, made._first = self._emit, self._sums, first
        made._rest, made._last, made._score, made._token = rest, last, score, token
        return made

    def _totals(self, candidates: Tensor) -> Tensor:
        """Scores of the prefixes that candidates (R, K) make: (R, K)."""
        paths = self.spoken()
        extended = self._extended(candidates, paths[:, :-1])
        # A token that repeats the last one needs a blank between.
        repeated = self._extended(self._token.unsqueeze(1), self._rest[:, :-1])  # (R, 1)
        extended = torch.where(candidates == self._token.unsqueeze(1), repeated, extended)
        return torch.where(candidates == END, paths[:, -1:], extended)

    def _extended(self, candidates: Tensor, before: Tensor) -> Tensor:
        """Log of the sum of before(t - 1) x_c(t) over t: candidates (R, K), before (R, S) -> (R, K)."""
        peak = before.amax(1, keepdim=True)  # (R, 1)
        share = (before - peak).exp().unsqueeze(2)  # (R, S, 1)
        lines = self._first.unsqueeze(1) + candidates  # (R, K)
        size = max(1, _CHUNK // (lines.size(1) * before.size(1)))  # rows at once
        sums = [
            self._emit[line] @ part for line, part in zip(lines.split(size), share.split(size), strict=True)
        ]
        return torch.cat(sums).squeeze(2).clamp_min(torch.finfo(peak.dtype).tiny).log() + peak

    def _move(self, tokens: Tensor) -> None:
        """The recursion over time."""
        repeats = (tokens == self._token).unsqueeze(1)
        before = torch.where(repeats, self._rest, self.spoken())[:, :-1]  # (R, S)
        product, blank = self._sums[self._first + tokens], self._sums[self._first + PAD]  # (R, S + 1)
        last = product[:, 1:] + (before - product[:, :-1]).logcumsumexp(1)
        self._last = pad(last, (1, 0), value=_NONE)
        rest = blank[:, 1:] + (self._last[:, :-1] - blank[:, :-1]).logcumsumexp(1)
        self._rest = pad(rest, (1, 0), value=_NONE)
        self._token = tokens
