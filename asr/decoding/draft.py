"""The draft of speculative decoding: CTC's output, revised by the decoder's choices."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.decoding.ctc import collapse_paths
from asr.masks import length_mask
from asr.tokenizers.special import SpecialTokens

MAX_LENGTH = 512  # positions of a row in one pass
MIN_REVISION_PROB = 0.5  # a choice after a mismatch revises the draft only if it is as probable as this
CONFIDENT = 0.7  # a token with at least this CTC probability stays, and the new one is inserted before it


class Draft:
    """CTC's best path as a token sequence, and the position in it that a hypothesis has reached."""

    def __init__(self, ctc: Tensor, lengths: Tensor, special: SpecialTokens) -> None:
        self._special = special
        states = torch.arange(ctc.size(1), device=ctc.device)
        valid = length_mask(lengths, ctc.size(1))
        best, paths = ctc.max(2)  # (B, S) each
        paths = torch.where(valid, paths, special.blank)
        self.tokens, begun = collapse_paths(paths, lengths, special)  # (B, L) with EOS as padding, (B, S + 1)
        self.lengths = begun[:, -1]
        begins = begun.diff(dim=1) > 0
        row, state = begins.nonzero(as_tuple=True)
        # The state in which each token begins, and CTC's probability of it there: (B, L).
        self._begins = torch.full_like(self.tokens, ctc.size(1))
        self._begins[row, begun[row, state]] = state
        self._probabilities = torch.zeros_like(self.tokens, dtype=best.dtype)
        self._probabilities[row, begun[row, state]] = best[row, state].exp()
        self.confidence = float(self._probabilities.sum() / self.lengths.sum()) if len(row) else 1.0
        # If a token of the path continues across time t, the state in which it began, otherwise -1.
        continues = (paths[:, 1:] == paths[:, :-1]) & (paths[:, 1:] != special.blank)
        began = torch.where(begins, states, -1).cummax(1).values
        self._token_at = pad(torch.where(continues, began[:, :-1], -1), (1, 1), value=-1)  # (B, S + 1)
        exact = torch.float32 if best.device.type == "mps" else torch.float64  # MPS has no float64
        passed = pad(torch.where(valid, best, 0.0).to(exact).cumsum(1), (1, 0))
        self._rest_of_path = passed[:, -1:] - passed  # (B, S + 1), log-probability of the path from time t on

    def next_tokens(self, rows: Tensor, positions: Tensor, count: int) -> Tensor:
        """The next tokens of the given rows from their positions on, with EOS after the last: (R, count)."""
        indices = positions.unsqueeze(1) + torch.arange(count, device=rows.device)
        tokens = pad(self.tokens, (0, 1), value=self._special.eos)
        return tokens[rows.unsqueeze(1), indices.clamp_max(self.tokens.size(1))]

    def align(self, rows: Tensor, exact_paths: Tensor, last_tokens: Tensor) -> Tensor:
        """The position in the draft that each hypothesis has reached, (R,).

        `exact_paths` (R, S + 1) are the log-probabilities of all CTC paths that produce exactly the
        hypothesis until time t, `last_tokens` (R,) its last tokens. The hypothesis ends, and the rest of the
        draft begins, at the time at which the two together are most likely.
        """
        if not self.tokens.size(1):
            return torch.zeros_like(rows)
        time = (exact_paths + self._rest_of_path[rows]).argmax(1, keepdim=True)  # (R, 1)
        begins = self._begins[rows]
        positions = (begins < time).sum(1, keepdim=True)
        # A token of the path that continues across this time begins again after a different token.
        last = (positions - 1).clamp_min(0)
        again = (begins.gather(1, last) == self._token_at[rows].gather(1, time)) & (positions > 0)
        again &= self.tokens[rows].gather(1, last) != last_tokens.unsqueeze(1)
        return (positions - again.long()).squeeze(1)

    def revise(
        self,
        rows: Tensor,
        positions: Tensor,
        mismatch: Tensor,
        proposed: Tensor,
        chosen: Tensor,
        log_probs: Tensor,
    ) -> None:
        """Change the draft after the first mismatch (R, 1), wherever the decoder chose another token.

        proposed (R, U) is the draft from `positions` (R,) on; chosen and log_probs (R, U) are the decoder's
        choices with their log-probabilities. These choices follow a wrong token, so they can be wrong. The
        next pass checks them. A choice that is the next token of the draft deletes a token; a choice at a
        token of which CTC is confident is inserted before it; any other choice replaces the token.
        """
        eos = self._special.eos
        order = torch.arange(proposed.size(1), device=rows.device)
        different = (order > mismatch) & (chosen != proposed) & (chosen != eos) & (proposed != eos)
        different &= log_probs > math.log(MIN_REVISION_PROB)
        if not different.any():
            return
        size = self.tokens.size(1)
        indices = positions.unsqueeze(1) + order  # (R, U) in the draft; can exceed its size

        def in_draft(values: Tensor) -> Tensor:
            """Values (R, U) of the proposed tokens, at their positions in the draft: (R, size)."""
            wide = values.new_zeros(len(rows), size + len(order))
            return wide.scatter(1, indices, values)[:, :size]

        next_proposed = pad(proposed[:, 1:], (0, 1), value=eos)
        deleted = in_draft(different & (chosen == next_proposed))
        different = in_draft(different) & ~deleted
        inserted = different & (self._probabilities[rows] > CONFIDENT)
        self._edit(rows, in_draft(chosen), deleted, inserted, different & ~inserted)

    def _edit(
        self, rows: Tensor, chosen: Tensor, deleted: Tensor, inserted: Tensor, replaced: Tensor
    ) -> None:
        """Delete tokens, insert chosen ones before tokens, or replace tokens; all (R, size)."""
        size = self.tokens.size(1)
        tokens = torch.where(replaced, chosen, self.tokens[rows])
        probabilities = self._probabilities[rows].masked_fill(replaced, 0.0)
        begins = self._begins[rows]
        kept = ~deleted & length_mask(self.lengths[rows], size)
        ends = (kept.long() + inserted).cumsum(1)  # (R, size) the new position after each token
        new_size = max(int(ends[:, -1].max()), size)

        def moved(values: Tensor, added: Tensor, empty: float) -> Tensor:
            # Values that are dropped go to an additional last column.
            new = values.new_full((len(rows), new_size + 1), empty)
            new.scatter_(1, torch.where(kept, ends - 1, new_size), values)
            new.scatter_(1, torch.where(inserted, ends - 2, new_size), added)
            return new[:, :-1]

        eos, last_time = self._special.eos, self._rest_of_path.size(1) - 1
        new_tokens = moved(tokens, chosen, eos)
        new_begins = moved(begins, begins, last_time)
        new_probabilities = moved(probabilities, torch.zeros_like(probabilities), 0.0)
        widen = (0, new_size - size)
        self.tokens = pad(self.tokens, widen, value=eos).index_copy(0, rows, new_tokens)
        self._begins = pad(self._begins, widen, value=last_time).index_copy(0, rows, new_begins)
        self._probabilities = pad(self._probabilities, widen).index_copy(0, rows, new_probabilities)
        self.lengths = self.lengths.index_copy(0, rows, ends[:, -1])


class DraftLength:
    """Chooses how many tokens of the draft to check in one pass.

    Tokens after the first mismatch are wasted work, and each pass has a fixed cost. `pass_cost` is the cost
    of a pass in positions, `confidence` the share of draft tokens that are expected to be right.
    """

    def __init__(self, pass_cost: int, confidence: float) -> None:
        self._pass_cost = pass_cost
        self._decided, self._wrong = 10.0, 10.0 * (1 - confidence)  # counts as ten observed tokens

    def best(self, rows: int) -> tuple[int, float]:
        """The number of positions with the lowest cost per decided token, for so many rows.

        Also returns the gain: the cost per token with one position in a pass, divided by this cost.
        """
        right = 1 - self._wrong / self._decided
        length, tokens, gain = 1, 1.0, 1.0  # expected tokens of a pass: 1 + right + right ** 2 ...
        while length < MAX_LENGTH:
            more_tokens = tokens + right**length
            more_gain = more_tokens * (self._pass_cost + rows) / (self._pass_cost + rows * (length + 1))
            if more_gain <= gain:
                break
            length, tokens, gain = length + 1, more_tokens, more_gain
        return length, gain

    def learn(self, decided: int, wrong: int) -> None:
        """Count tokens that were decided, and how many of them differed from the draft."""
        self._decided, self._wrong = self._decided + decided, self._wrong + wrong
