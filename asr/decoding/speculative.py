"""Greedy decoding by draft and check: as step by step, with a decoder pass for each correction.

What CTC hears is a draft. The decoder is given many of its characters at once and says what it would have
chosen after each. Up to the first choice that differs from the draft the choices are those of decoding step
by step, because all that was decoded before is the same; that choice is the correction. Then the rest of the
draft, changed where the decoder chose otherwise, is checked again after it (Stern et al. 2018, "Blockwise
Parallel Decoding", with a draft of CTC's).

CTC's prefix scores take part in the choice. One sweep over time finds those of all positions, whose
candidates are then scored together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.decoding.ctc import collapse
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.hypotheses import Hypotheses, choose
from asr.decoding.repetition import LOOK_EVERY, going_round
from asr.model.interfaces import Memory, Network
from asr.tokenizers import BOS, EOS, PAD

COMPACT_BELOW = 0.75  # share of unfinished rows under which the finished ones leave the batch
# A decoder pass takes as long as checking so many positions more in it, on a CPU and elsewhere.
PASS_ON_CPU, PASS = 128, 2**14
LIKELY = 0.5  # a choice after a text that is wrong already changes the draft if it is as probable as this
SURE = 0.7  # of its own token CTC is, where it is as probable as this
WIDEST = 512  # positions of a row in one pass
CHECK = 1.4  # what a pass with a check costs, of one step by step


def decode_speculatively(
    network: Network, memory: Memory, ctc: Tensor, max_lengths: Tensor, weight: float, candidates: int
) -> Hypotheses | None:
    """The texts that step by step gives; None where a choice is so near that rounding decides it, and where
    the draft is so bad that step by step is faster.

    `ctc` (B, S, V) are CTC's log-probabilities, max_lengths (B,) the most tokens each row may have.
    """
    device, batch = max_lengths.device, len(max_lengths)
    draft = _Draft(ctc, memory.lengths)
    trust = _Trust(PASS_ON_CPU if device.type == "cpu" else PASS, draft.confidence)
    if trust.width(batch)[1] < CHECK:
        return None
    scorer, texts = CTCPrefixScorer(ctc, memory.lengths), Hypotheses(max_lengths)
    room = min(WIDEST, draft.tokens.size(1)) + 1  # positions in a pass; an amended draft may be longer
    state = network.start(memory, texts.capacity + room - 1)

    rows = torch.arange(batch, device=device)  # the utterance of each row held, (R,)
    live = torch.ones_like(rows, dtype=torch.bool)  # (R,)
    tokens = torch.full_like(rows, BOS)  # (R,) the last one decided
    starts = torch.zeros_like(rows)  # (R,) how many have been decided
    heard = torch.zeros_like(rows)  # (R,) how much of the draft is used up
    while True:
        left = int((draft.lengths[rows] - heard)[live].max()) + 1  # EOS is one more
        width, gain = trust.width(int(live.sum()))
        if gain < CHECK:
            return None
        width = min(width, left, room)
        proposed = draft.ahead(rows, heard, width)  # (R, U)
        fed = torch.cat([tokens.unsqueeze(1), proposed[:, :-1]], 1)
        log_probs = network.forward_cached(fed, state, starts)  # (R, U, V)
        prefix_scores = scorer.along(proposed[:, :-1])  # of R * U rows
        choice = choose(log_probs.flatten(0, 1), prefix_scores if weight else None, weight, candidates)
        chosen, token_log_probs, near_tie = (
            each.view_as(proposed) for each in (choice.tokens, choice.log_probs, choice.near_tie)
        )
        if weight:
            near_tie = near_tie | prefix_scores.underflow

        agreed = ((chosen == proposed) & (chosen != EOS)).cumprod(1).sum(1)  # (R,)
        counts = (agreed + 1).clamp_max(width)
        last = (counts - 1).unsqueeze(1)  # (R, 1) place of the last decision
        if (near_tie.cumsum(1).gather(1, last).squeeze(1)[live] > 0).any():
            return None
        wrong = (chosen != proposed).gather(1, last).squeeze(1)
        trust.learn(int(counts[live].sum()), int(wrong[live].sum()))
        live &= texts.add(rows, starts, chosen, token_log_probs, counts * live)
        before, starts = starts, torch.where(live, starts + counts, starts)
        live &= ~_went_round(texts, rows, before, starts)
        if not live.any():
            return texts

        tokens = chosen.gather(1, last).squeeze(1)
        scorer = prefix_scores.at(last.squeeze(1))
        scorer.advance(tokens)
        draft.amend(rows, heard, last, proposed, chosen, token_log_probs)
        heard = torch.where(agreed == width, heard + width, draft.place(rows, scorer.spoken(), tokens))
        if int(live.sum()) < COMPACT_BELOW * len(rows):
            keep = live.nonzero().squeeze(1)
            state, scorer = state.select(keep), scorer.select(keep)
            rows, live, tokens, starts, heard = (each[keep] for each in (rows, live, tokens, starts, heard))


class _Draft:
    """What CTC's best path says, and where the rest of it begins when something else has been decoded."""

    def __init__(self, ctc: Tensor, lengths: Tensor) -> None:
        states = torch.arange(ctc.size(1), device=ctc.device)
        valid = states < lengths.unsqueeze(1)
        best, paths = ctc.max(2)  # (B, S) each
        paths = torch.where(valid, paths, PAD)
        self.tokens, begun = collapse(paths, lengths)  # (B, L), EOS after the last, and (B, S + 1)
        self.lengths = begun[:, -1]
        begins = begun.diff(dim=1) > 0
        row, state = begins.nonzero(as_tuple=True)
        # The state in which each token begins, and how sure CTC is of it there: (B, L).
        self._begins = torch.full_like(self.tokens, ctc.size(1))
        self._begins[row, begun[row, state]] = state
        self._sure = torch.zeros_like(self.tokens, dtype=best.dtype)
        self._sure[row, begun[row, state]] = best[row, state].exp()
        self.confidence = float(self._sure.sum() / self.lengths.sum()) if len(row) else 1.0
        # Where the path is in the midst of a token at a time, the state in which that began; else -1.
        inside = (paths[:, 1:] == paths[:, :-1]) & (paths[:, 1:] != PAD)
        since = torch.where(begins, states, -1).cummax(1).values
        self._within = pad(torch.where(inside, since[:, :-1], -1), (1, 1), value=-1)  # (B, S + 1)
        passed = pad(torch.where(valid, best, 0.0).double().cumsum(1), (1, 0))
        self._ahead = passed[:, -1:] - passed  # (B, S + 1): log-probability of the path from there on

    def ahead(self, rows: Tensor, heard: Tensor, width: int) -> Tensor:
        """The next tokens of the given rows, EOS after the last: (R, width)."""
        places = heard.unsqueeze(1) + torch.arange(width, device=rows.device)
        return pad(self.tokens, (0, 1), value=EOS)[rows.unsqueeze(1), places.clamp_max(self.tokens.size(1))]

    def place(self, rows: Tensor, spoken: Tensor, tokens: Tensor) -> Tensor:
        """How much of the draft a text stands for: spoken (R, S + 1), its last tokens (R,) -> (R,).

        The text ends, and the best path goes on, where the two together are likeliest.
        """
        if not self.tokens.size(1):
            return torch.zeros_like(rows)
        time = (spoken + self._ahead[rows]).argmax(1, keepdim=True)  # (R, 1) states used up
        begins = self._begins[rows]
        heard = (begins < time).sum(1, keepdim=True)
        # A token in whose midst the path goes on there begins anew after another one.
        last = (heard - 1).clamp_min(0)
        again = (begins.gather(1, last) == self._within[rows].gather(1, time)) & (heard > 0)
        again &= self.tokens[rows].gather(1, last) != tokens.unsqueeze(1)
        return (heard - again.long()).squeeze(1)

    def amend(
        self,
        rows: Tensor,
        heard: Tensor,
        after: Tensor,
        proposed: Tensor,
        chosen: Tensor,
        token_log_probs: Tensor,
    ) -> None:
        """Change what was proposed where the decoder chose otherwise, `after` (R, 1) the first such place.

        proposed, chosen, token_log_probs (R, U) are the draft from `heard` on, the choices and their log-probabilities.
        They follow a text that is wrong already, so they are guesses, which the next pass checks: one token
        less where what was chosen is the token that comes next, one more where CTC is sure of its own, and
        otherwise another one.
        """
        order = torch.arange(proposed.size(1), device=rows.device)
        other = (order > after) & (chosen != proposed) & (chosen != EOS) & (proposed != EOS)
        other &= token_log_probs > math.log(LIKELY)
        if not other.any():
            return
        size = self.tokens.size(1)
        places = heard.unsqueeze(1) + order  # (R, U) in the draft, those beyond its end included

        def there(values: Tensor) -> Tensor:
            spread = values.new_zeros(len(rows), size + len(order))
            return spread.scatter(1, places, values)[:, :size]  # (R, size)

        less = there(other & (chosen == pad(proposed[:, 1:], (0, 1), value=PAD)))
        other, tokens, sure = there(other) & ~less, self.tokens[rows], self._sure[rows]
        more = other & (sure > SURE)
        chosen, other = there(chosen), other & ~more
        tokens, sure = torch.where(other, chosen, tokens), sure.masked_fill(other, 0.0)
        kept = ~less & (torch.arange(size, device=rows.device) < self.lengths[rows].unsqueeze(1))
        ends = (kept.long() + more).cumsum(1)  # (R, size) where what becomes of each token ends
        longest = max(int(ends[:, -1].max()), size)

        def moved(values: Tensor, added: Tensor, empty: float) -> Tensor:
            new = values.new_full((len(rows), longest + 1), empty)  # what goes nowhere goes to the last place
            new.scatter_(1, torch.where(kept, ends - 1, longest), values)
            new.scatter_(1, torch.where(more, ends - 2, longest), added)
            return new[:, :-1]

        begins = self._begins[rows]
        beyond = self._ahead.size(1) - 1
        wider = (0, longest - size)
        self.tokens = pad(self.tokens, wider, value=EOS).index_copy(0, rows, moved(tokens, chosen, EOS))
        self._begins = pad(self._begins, wider, value=beyond).index_copy(
            0, rows, moved(begins, begins, beyond)
        )
        self._sure = pad(self._sure, wider).index_copy(0, rows, moved(sure, torch.zeros_like(sure), 0.0))
        self.lengths = self.lengths.index_copy(0, rows, ends[:, -1])


class _Trust:
    """How much of the draft to check in one pass: what is beyond the next correction is in vain."""

    def __init__(self, cost: int, confidence: float) -> None:
        self._cost = cost  # of a pass, in positions
        self._decided, self._wrong = 10.0, 10.0 * (1 - confidence)  # tokens, those expected first

    def width(self, rows: int) -> tuple[int, float]:
        """How many positions of so many rows cost least for each token decided, and how much that gains."""
        share = 1 - self._wrong / self._decided
        width, tokens, gain = 1, 1.0, 1.0  # tokens decided in a pass: 1 + share + share ** 2 ...
        while width < WIDEST:
            more = tokens + share**width
            more_gain = more * (self._cost + rows) / (self._cost + rows * (width + 1))
            if more_gain <= gain:
                break
            width, tokens, gain = width + 1, more, more_gain
        return width, gain

    def learn(self, decided: int, wrong: int) -> None:
        """Count tokens that were decided, and how many of them were not those of the draft."""
        self._decided, self._wrong = self._decided + decided, self._wrong + wrong


def _went_round(texts: Hypotheses, rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Whether a text did so at any of the lengths that it has had since: rows, before, after (R,) -> (R,)."""
    found = torch.zeros_like(rows, dtype=torch.bool)
    for size in range(int(before.min()) // LOOK_EVERY * LOOK_EVERY, int(after.max()) + 1, LOOK_EVERY):
        passed = (before < size) & (size <= after)
        found |= passed & going_round(texts.tokens[rows, :size])
    return found
