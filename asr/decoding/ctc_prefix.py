"""CTC scores of growing prefixes, for many rows and candidates at once.

The prefix score is the probability that CTC's output begins with the prefix: the sum over all alignments
(Watanabe et al. 2017, "Hybrid CTC/Attention Architecture", algorithm 2). The recursion over time there,

    r_n(t) = (r_n(t - 1) + phi(t - 1)) x_c(t)        paths that end in the last token c
    r_b(t) = (r_b(t - 1) + r_n(t - 1)) x_blank(t)    paths that end in a blank

is linear, so cumulative sums solve it: with X(t), the product of x_c up to t, r_n(t) / X(t) is the running
sum of phi(t - 1) / X(t - 1). In logarithms this is one `logcumsumexp` instead of a loop over time.

The score of one more token, the sum of phi(t - 1) x_c(t) over t, needs no recursion. All its terms are
positive, so it is computed from probabilities instead of logarithms: phi divided by its maximum, times x_c.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.masks import length_mask
from asr.tokenizers.special import SpecialTokens

MIN_SCORE = -300.0  # lower scores are raised to this: the two ways to compute them differ in rounding
LOG_ZERO = -1e30  # finite, because the difference of two infinities is not a number
_CHUNK = 2**18  # numbers gathered at once: rows x candidates x states


class CTCPrefixScorer:
    """Scores the candidates for the next token of every row by CTC, and advances by the chosen token.

    `log_probs` (B, S, V) are CTC's, `lengths` (B,) in states.

    The sums over time reach thousands, and their small differences matter. So they are computed in float64,
    except on Apple's GPUs, which do not have it. For utterances of some seconds, float32 gives errors up to
    4e-4 and differences up to 5e-5 between an utterance alone and in a batch (float64: 1e-13), and is not
    faster.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor, special: SpecialTokens) -> None:
        self.eos, self.blank, self.vocabulary_size = special.eos, special.blank, log_probs.size(2)
        valid = length_mask(lengths, log_probs.size(1))  # (B, S)
        dtype = torch.float32 if log_probs.device.type == "mps" else torch.float64
        min_log_prob = math.log(torch.finfo(dtype).tiny)
        emissions = log_probs.to(dtype).transpose(1, 2).clamp_min(min_log_prob)  # (B, V, S)
        emissions = emissions.masked_fill(~valid.unsqueeze(1), LOG_ZERO)
        emissions[:, self.blank].masked_fill_(~valid, 0.0)  # after its end a row has only blanks
        sums = pad(emissions.cumsum(2), (1, 0))  # (B, V, S + 1): over the states before time t
        # Tables that the rows of an utterance share, with one line for every utterance and token.
        self.emissions = emissions.exp().flatten(0, 1)  # (B * V, S), probabilities
        self._sums = sums.flatten(0, 1)  # (B * V, S + 1)
        # Log-probability of the most likely path until time t.
        self.best_path = pad(emissions.amax(1).cumsum(1), (1, 0))  # (B, S + 1)
        # The table line of each row's utterance and token 0, (R,).
        self.first_line = torch.arange(len(lengths), device=lengths.device) * self.vocabulary_size
        # Log-probabilities of the paths that produce the prefix until time t and end in a blank, and in the
        # prefix's last token: (R, S + 1).
        self.ends_in_blank = sums[:, self.blank]
        self.ends_in_token = torch.full_like(self.ends_in_blank, LOG_ZERO)
        self.prefix_scores = torch.zeros_like(self.ends_in_blank[:, 0])  # (R,)
        self.last_tokens = torch.full_like(lengths, self.blank)  # (R,) the blank for an empty prefix

    def score(self, candidates: Tensor) -> Tensor:
        """Log-probabilities (R, K) of candidates (R, K), given each row's prefix.

        For EOS it is the probability that CTC's output is the prefix and nothing more.
        """
        return (self._totals(candidates) - self.prefix_scores.unsqueeze(1)).clamp_min(MIN_SCORE)

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix. A row is not scored after EOS or PAD."""
        self.prefix_scores = self._totals(tokens.unsqueeze(1)).squeeze(1)
        self._recur(tokens)

    def select(self, rows: Tensor) -> CTCPrefixScorer:
        """The scorer of the given rows (indices): reordered, repeated or dropped."""
        return self.with_prefixes(
            self.first_line[rows],
            self.ends_in_token[rows],
            self.ends_in_blank[rows],
            self.prefix_scores[rows],
            self.last_tokens[rows],
        )

    def with_prefixes(
        self,
        first_line: Tensor,
        ends_in_token: Tensor,
        ends_in_blank: Tensor,
        prefix_scores: Tensor,
        last_tokens: Tensor,
    ) -> CTCPrefixScorer:
        """A scorer with the same tables and other prefixes."""
        scorer = object.__new__(CTCPrefixScorer)
        scorer.__dict__.update(self.__dict__)
        scorer.first_line, scorer.last_tokens = first_line, last_tokens
        scorer.ends_in_token, scorer.ends_in_blank = ends_in_token, ends_in_blank
        scorer.prefix_scores = prefix_scores
        return scorer

    def exact_paths(self) -> Tensor:
        """Log-probability (R, S + 1) of all paths that produce exactly the prefix until time t."""
        return torch.logaddexp(self.ends_in_token, self.ends_in_blank)

    def _totals(self, candidates: Tensor) -> Tensor:
        """Prefix scores (R, K) of the prefixes with one of candidates (R, K) appended."""
        paths = self.exact_paths()
        totals = self._appended(candidates, paths[:, :-1])
        # A token that repeats the last one needs a blank between the two.
        repeated = self._appended(self.last_tokens.unsqueeze(1), self.ends_in_blank[:, :-1])  # (R, 1)
        totals = torch.where(candidates == self.last_tokens.unsqueeze(1), repeated, totals)
        return torch.where(candidates == self.eos, paths[:, -1:], totals)

    def _appended(self, candidates: Tensor, before: Tensor) -> Tensor:
        """Log of the sum of before(t - 1) x_c(t) over t: candidates (R, K), before (R, S) -> (R, K)."""
        peak = before.amax(1, keepdim=True)  # (R, 1)
        lines = self.first_line.unsqueeze(1) + candidates
        sums = sum_over_time(self.emissions, lines, (before - peak).exp())
        return sums.clamp_min(torch.finfo(peak.dtype).tiny).log() + peak

    def _recur(self, tokens: Tensor) -> None:
        """The recursion over time for one more token (R,)."""
        repeats = (tokens == self.last_tokens).unsqueeze(1)
        before = torch.where(repeats, self.ends_in_blank, self.exact_paths())[:, :-1]  # (R, S)
        token_sums = self._sums[self.first_line + tokens]  # (R, S + 1)
        blank_sums = self._sums[self.first_line + self.blank]
        in_token = token_sums[:, 1:] + (before - token_sums[:, :-1]).logcumsumexp(1)
        self.ends_in_token = pad(in_token, (1, 0), value=LOG_ZERO)
        in_blank = blank_sums[:, 1:] + (self.ends_in_token[:, :-1] - blank_sums[:, :-1]).logcumsumexp(1)
        self.ends_in_blank = pad(in_blank, (1, 0), value=LOG_ZERO)
        self.last_tokens = tokens


def sum_over_time(table: Tensor, lines: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums over time of table lines: lines (N, K), weights (N, S) -> (N, K)."""
    size = max(1, _CHUNK // (lines.size(1) * weights.size(1)))  # rows at once
    parts = zip(lines.split(size), weights.unsqueeze(2).split(size), strict=True)
    return torch.cat([table[line] @ weight for line, weight in parts]).squeeze(2)
