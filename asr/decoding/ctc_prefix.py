"""CTC scores of growing prefixes, for many rows and candidates at once.

The prefix score of a text is the probability that CTC's output begins with it: the sum over all alignments
(Watanabe et al. 2017, "Hybrid CTC/Attention Architecture", algorithm 2). The recursion over time there,

    r_n(t) = (r_n(t - 1) + phi(t - 1)) x_c(t)        paths that end in the last character
    r_b(t) = (r_b(t - 1) + r_n(t - 1)) x_blank(t)    paths that end in a blank

is linear, so it is solved by cumulative sums: with X(t) the product of x_c up to t, r_n(t) / X(t) is the
running sum of phi(t - 1) / X(t - 1). In logarithms that is one `logcumsumexp`, without a loop over time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.tokenizer import END, PAD

_NONE = -1e30  # log of zero that survives subtraction: infinity minus infinity is not a number


class CTCPrefixScorer:
    """Scores the candidates for the next token of every row against CTC; then moves on by the one chosen.

    `log_probs` (B, S, V) with the blank at PAD's place, `lengths` (B,). Sums run over hundreds of states and
    are kept in float64, except on Apple's GPUs, which have none.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor) -> None:
        valid = torch.arange(log_probs.size(1), device=lengths.device) < lengths.unsqueeze(1)  # (B, S)
        dtype = torch.float32 if log_probs.device.type == "mps" else torch.float64
        self._emit = log_probs.to(dtype).clamp_min(_NONE).masked_fill(~valid.unsqueeze(2), _NONE)  # (B, S, V)
        self._emit[..., PAD].masked_fill_(~valid, 0.0)  # beyond its end a row has blanks, for sure
        self._blank = pad(self._emit[..., PAD].cumsum(1), (1, 0))  # (B, S + 1): sum up to t
        # Paths of the prefix so far that end at time t in its last character, and in a blank: (B, S + 1).
        self._last = torch.full_like(self._blank, _NONE)
        self._rest = self._blank.clone()
        self._score = torch.zeros_like(self._blank[:, 0])  # (B,) of the prefix so far
        self._token = torch.full_like(lengths, PAD)  # (B,) its last token

    def score(self, candidates: Tensor) -> Tensor:
        """Log-probabilities of candidates (B, K), each given the prefix: how much of its score they keep.

        For END it is the share of alignments that say the prefix and nothing more.
        """
        emit, before = self._paths(candidates)
        extended = (before + emit).logsumexp(2)  # (B, K)
        whole = torch.logaddexp(self._last[:, -1], self._rest[:, -1]).unsqueeze(1)  # (B, 1)
        return torch.where(candidates == END, whole, extended) - self._score.unsqueeze(1)

    def advance(self, tokens: Tensor) -> None:
        """Append a token (B,) to every prefix. What END or PAD is appended to is not scored any more."""
        emit, before = (paths.squeeze(1) for paths in self._paths(tokens.unsqueeze(1)))  # (B, S) each
        product = pad(emit.cumsum(1), (1, 0))  # (B, S + 1)
        self._score = (before + emit).logsumexp(1)
        self._last = pad(product[:, 1:] + (before - product[:, :-1]).logcumsumexp(1), (1, 0), value=_NONE)
        blank = self._blank
        rest = blank[:, 1:] + (self._last[:, :-1] - blank[:, :-1]).logcumsumexp(1)
        self._rest = pad(rest, (1, 0), value=_NONE)
        self._token = tokens

    def select(self, rows: Tensor) -> CTCPrefixScorer:
        """The scorer of the given rows (indices)."""
        chosen = object.__new__(CTCPrefixScorer)
        for name, value in vars(self).items():
            setattr(chosen, name, value.index_select(0, rows))
        return chosen

    def _paths(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """For candidates (B, K): their log-probabilities at t, and the prefix's paths up to t - 1: (B, K, S).

        A token that repeats the last one needs a blank between.
        """
        index = candidates.unsqueeze(1).expand(-1, self._emit.size(1), -1)
        emit = self._emit.gather(2, index).transpose(1, 2)  # (B, K, S)
        either = torch.logaddexp(self._last, self._rest)[:, None, :-1]
        repeats = (candidates == self._token.unsqueeze(1)).unsqueeze(2)
        return emit, torch.where(repeats, self._rest[:, None, :-1], either)
