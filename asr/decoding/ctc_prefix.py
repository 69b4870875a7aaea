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
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.tokenizers import EOS, PAD

IMPOSSIBLE = -300.0  # no score is lower: beyond, what the two ways of computing it lose would count
_NONE = -1e30  # log of zero that survives subtraction: infinity minus infinity is not a number
_CHUNK = 2**18  # numbers gathered at once: rows x candidates x states
_FEW = 8  # a vocabulary of up to so many times the candidates is scored whole: gathering takes longer


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
        # How likely the likeliest path is up to t.
        self._level = pad(emit.amax(1).cumsum(1), (1, 0))  # (B, S + 1)
        # Tables of all utterances, which their rows share: one line for every utterance and token.
        self._emit = emit.exp().flatten(0, 1)  # (B * V, S), probabilities
        self._sums = sums.flatten(0, 1)  # (B * V, S + 1)
        self.vocabulary = log_probs.size(2)
        self._first = torch.arange(len(lengths), device=lengths.device) * log_probs.size(2)  # (R,) row's line
        # Paths of the prefix so far that end at time t in a blank, and in its last character: (R, S + 1).
        self._rest = sums[:, PAD]
        self._last = torch.full_like(self._rest, _NONE)
        self._score = torch.zeros_like(self._rest[:, 0])  # (R,) of the prefix so far
        self._token = torch.full_like(lengths, PAD)  # (R,) its last token

    def score(self, candidates: Tensor) -> Tensor:
        """Log-probabilities of candidates (R, K), each given the prefix: how much of its score they keep.

        For EOS it is the share of alignments that say the prefix and nothing more.
        """
        return (self._totals(candidates) - self._score.unsqueeze(1)).clamp_min(IMPOSSIBLE)

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix. What EOS or PAD is appended to is not scored any more."""
        self._score = self._totals(tokens.unsqueeze(1)).squeeze(1)
        self._move(tokens)

    def along(self, tokens: Tensor) -> PrefixesAlong:
        """The scores of all prefixes on the way along a text for each row: tokens (R, U) -> U + 1 each."""
        return PrefixesAlong(self, tokens)

    def select(self, rows: Tensor) -> CTCPrefixScorer:
        """The scorer of the given rows (indices): reordered, repeated or dropped."""
        kept = (self._first, self._rest, self._last, self._score, self._token)
        return self._of(*(each.index_select(0, rows) for each in kept))

    def spoken(self) -> Tensor:
        """Log-probability of all paths that say the prefix and nothing more until time t: (R, S + 1)."""
        return torch.logaddexp(self._last, self._rest)

    def _of(self, first: Tensor, rest: Tensor, last: Tensor, score: Tensor, token: Tensor) -> CTCPrefixScorer:
        made = object.__new__(CTCPrefixScorer)
        made._emit, made._sums, made._level, made._first = self._emit, self._sums, self._level, first
        made.vocabulary = self.vocabulary
        made._rest, made._last, made._score, made._token = rest, last, score, token
        return made

    def _totals(self, candidates: Tensor) -> Tensor:
        """Scores of the prefixes that candidates (R, K) make: (R, K)."""
        paths = self.spoken()
        extended = self._extended(candidates, paths[:, :-1])
        # A token that repeats the last one needs a blank between.
        repeated = self._extended(self._token.unsqueeze(1), self._rest[:, :-1])  # (R, 1)
        extended = torch.where(candidates == self._token.unsqueeze(1), repeated, extended)
        return torch.where(candidates == EOS, paths[:, -1:], extended)

    def _extended(self, candidates: Tensor, before: Tensor) -> Tensor:
        """Log of the sum of before(t - 1) x_c(t) over t: candidates (R, K), before (R, S) -> (R, K)."""
        peak = before.amax(1, keepdim=True)  # (R, 1)
        sums = _products(self._emit, self._first.unsqueeze(1) + candidates, (before - peak).exp())
        return sums.clamp_min(torch.finfo(peak.dtype).tiny).log() + peak

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


class PrefixesAlong:
    """The scores of all prefixes on the way along a text for each row: R * (U + 1) rows, in that order.

    Where the text is known, the recursion goes through time once for all its prefixes together: it is that of
    CTC's forward variables (Graves et al. 2006, section 4.1), from the prefix that the scorer has. It goes in
    probabilities, over those of the likeliest path up to each time: near 1 where the text is near what was
    heard.
    """

    def __init__(self, scorer: CTCPrefixScorer, tokens: Tensor) -> None:
        self._scorer = scorer
        self._tokens = torch.cat([scorer._token.unsqueeze(1), tokens], 1)  # (R, U + 1), the last of each
        self._lines = scorer._first.unsqueeze(1) + self._tokens
        self._utterances = scorer._first // scorer.vocabulary  # (R,)
        self._level = scorer._level[self._utterances]  # (R, S + 1)
        given = torch.stack([scorer._last, scorer._rest], 2) - self._level.unsqueeze(2)  # (R, S + 1, 2)
        self._peak = given.amax((1, 2))  # (R,)
        # Paths that end at time t in each prefix's last token, and in a blank after it: (R, S + 1, U + 1, 2).
        self._paths = self._sweep((given - self._peak[:, None, None]).exp())
        rest = self._paths[..., 1].transpose(1, 2)  # (R, U + 1, S + 1)
        spoken = rest + self._paths[..., 0].transpose(1, 2)
        most, when = spoken.max(2, keepdim=True)  # (R, U + 1, 1)
        # Where a prefix is so unlikely, terms of its sums could be lost: (R, U + 1).
        tiny = torch.finfo(most.dtype).tiny
        self.underflow = most.squeeze(2) < tiny**0.5
        # Times this they are probabilities, but for a factor that brings a prefix's own peak near 1.
        level = self._level.unsqueeze(1).expand_as(spoken)
        factor = level.gather(2, when)
        far = -0.85 * math.log(tiny)  # beyond, what it would scale is nothing
        scale = (level - factor).clamp_(-far, far).exp_()
        self._spoken, self._rest = spoken * scale, rest * scale  # (R, U + 1, S + 1)
        self._factor = factor.squeeze(2) + self._peak.unsqueeze(1)  # (R, U + 1), its logarithm
        lines, repeats = self._lines[:, 1:], (self._lines[:, 1:] == self._lines[:, :-1]).unsqueeze(2)
        before = torch.where(repeats, self._rest[:, :-1], self._spoken[:, :-1])[:, :, :-1]  # (R, U, S)
        sums = (before * scorer._emit[lines]).sum(2).clamp_min(tiny)
        passed = sums.log() + self._factor[:, :-1]  # what each prefix but the first scores
        self._scores = torch.cat([scorer._score.unsqueeze(1), passed], 1)  # (R, U + 1)

    def score(self, candidates: Tensor) -> Tensor:
        """As `CTCPrefixScorer.score`: candidates (R * (U + 1), K) -> the same shape."""
        totals = self._totals(candidates.view(*self._tokens.shape, -1))
        return (totals - self._scores.unsqueeze(2)).clamp_min(IMPOSSIBLE).flatten(0, 1)

    def at(self, places: Tensor) -> CTCPrefixScorer:
        """The scorer advanced by so many tokens of each row's text: places (R,)."""
        rows = torch.arange(len(places), device=places.device)
        paths = self._paths[rows, :, places].log() + (self._level + self._peak.unsqueeze(1)).unsqueeze(2)
        last, rest = paths.clamp_min(_NONE).unbind(2)  # (R, S + 1) each
        scorer = self._scorer
        return scorer._of(scorer._first, rest, last, self._scores[rows, places], self._tokens[rows, places])

    def _sweep(self, given: Tensor) -> Tensor:
        """The recursion, from what is given for the first prefix (R, S + 1, 2) -> (R, S + 1, U + 1, 2)."""
        emit, lines = self._scorer._emit, self._lines
        best = self._level.diff(dim=1).exp().unsqueeze(1)  # (R, 1, S)
        tokens = emit[lines[:, 1:]] / best  # (R, U, S)
        blank = emit[self._scorer._first + PAD].unsqueeze(1) / best  # (R, 1, S)
        heard = torch.stack([tokens, blank.expand_as(tokens)], 2).flatten(1, 2)  # (R, 2 * U, S)
        differs = lines[:, 1:] != lines[:, :-1]  # from one token to another the blank can be left out
        over = torch.stack([differs, torch.zeros_like(differs)], 2).flatten(1).to(emit.dtype)  # (R, 2 * U)
        paths = emit.new_zeros(heard.size(2) + 1, *lines.shape, 2)  # (S + 1, R, U + 1, 2)
        paths[:, :, 0] = given.transpose(0, 1)
        # (S + 1, R, 2 * (U + 1)), (S, R, 2 * U), (R, 2 * U)
        arrays: Any = (paths.flatten(2), heard.permute(2, 0, 1).contiguous(), over)
        if paths.device.type == "cpu":  # numpy's operations on small arrays take less time than torch's
            arrays = (each.numpy() for each in arrays)
        flat, heard, over = arrays
        stay, move, leap = flat[:, :, 2:], flat[:, :, 1:-1], flat[:, :, :-2]
        for after, *before, share in zip(stay[1:], stay, move, leap, heard, strict=False):
            after[...] = (before[0] + before[1] + over * before[2]) * share
        return paths.transpose(0, 1)

    def _totals(self, candidates: Tensor) -> Tensor:
        """Scores of the prefixes that candidates (R, U + 1, K) make."""
        emit, vocabulary = self._scorer._emit, self._scorer.vocabulary
        before = self._spoken[:, :, :-1]  # (R, U + 1, S)
        if vocabulary <= _FEW * candidates.size(2):  # then all tokens cost less than a choice of them
            table = emit.view(-1, vocabulary, emit.size(1))[self._utterances]  # (R, V, S)
            sums = (before @ table.transpose(1, 2)).gather(2, candidates)
        else:
            lines = (self._scorer._first[:, None, None] + candidates).flatten(0, 1)
            sums = _products(emit, lines, before.flatten(0, 1)).view_as(candidates)
        # A token that repeats the last one needs a blank between.
        repeated = (self._rest[:, :, :-1] * emit[self._lines]).sum(2, keepdim=True)
        sums = torch.where(candidates == self._tokens.unsqueeze(2), repeated, sums)
        sums = torch.where(candidates == EOS, self._spoken[:, :, -1:], sums)
        return sums.clamp_min(torch.finfo(sums.dtype).tiny).log() + self._factor.unsqueeze(2)


def _products(emit: Tensor, lines: Tensor, shares: Tensor) -> Tensor:
    """Sums over time of lines of the table (N, K) times shares (N, S): (N, K)."""
    size = max(1, _CHUNK // (lines.size(1) * shares.size(1)))  # rows at once
    parts = zip(lines.split(size), shares.unsqueeze(2).split(size), strict=True)
    return torch.cat([emit[line] @ share for line, share in parts]).squeeze(2)
