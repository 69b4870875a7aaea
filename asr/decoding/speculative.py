"""Greedy decoding with a draft: the same result as step by step, with one decoder pass for each correction.

CTC's output is the draft. One decoder pass reads many of its tokens at once and gives the decoder's choice
after each of them. Up to the first choice that differs from the draft, the choices are those of decoding step
by step, because the tokens before them are the same. The first different choice is a correction. The rest of
the draft, revised by what the decoder chose there, is checked in the next pass (Stern et al. 2018, "Blockwise
Parallel Decoding", here with a draft by CTC).

CTC's prefix scores take part in the choice. `CTCDraftScorer` computes those of all positions together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asr.decoding.ctc_draft_scores import CTCDraftScorer
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.draft import MAX_LENGTH, Draft, DraftLength
from asr.decoding.hypotheses import COMPACT_BELOW, GreedyRules, Hypotheses, choose
from asr.decoding.repetition import began_repeating
from asr.model.interfaces import CachedForward, HasDecoder, Memory

# A decoder pass takes as long as checking this many additional positions in it.
PASS_COST_CPU, PASS_COST_GPU = 128, 2**14
MIN_GAIN = 1.4  # a pass that checks a draft takes this many times as long as one of decoding step by step


def decode_speculatively(
    network: HasDecoder, memory: Memory, ctc: Tensor, rules: GreedyRules
) -> Hypotheses | None:
    """The hypotheses of decoding step by step, or None if the caller must decode step by step.

    None is returned when a choice is so close that rounding could decide it, and when the draft is so bad
    that step by step is faster. `ctc` (B, S, V) are CTC's log-probabilities. The network must also offer
    `CachedForward`.
    """
    draft = Draft(ctc, memory.lengths, rules.special)
    pass_cost = PASS_COST_CPU if ctc.device.type == "cpu" else PASS_COST_GPU
    draft_length = DraftLength(pass_cost, draft.confidence)
    if draft_length.best(len(memory.lengths))[1] < MIN_GAIN:
        return None
    search = _Search(network, memory, ctc, rules, draft)
    while True:
        length, gain = draft_length.best(int(search.live.sum()))
        if gain < MIN_GAIN:
            return None
        checked = search.check(length)
        if checked.near_tie:
            return None
        draft_length.learn(checked.decided, checked.wrong)
        if not search.accept(checked):
            return search.hypotheses


@dataclass(frozen=True)
class _Checked:
    """The result of one pass over U positions of each row."""

    proposed: Tensor  # (R, U) the draft
    chosen: Tensor  # (R, U) the decoder's choice at each position
    log_probs: Tensor  # (R, U) the decoder's log-probabilities of the choices
    counts: Tensor  # (R,) how many choices are valid: those that agree with the draft, and a correction
    agrees: Tensor  # (R,) whether all U choices agree with the draft
    scorer: CTCDraftScorer  # CTC's scores along the draft
    near_tie: bool  # rounding could have changed a valid choice
    decided: int  # number of valid choices of the live rows
    wrong: int  # number of corrections among them

    @property
    def last(self) -> Tensor:
        """The position of the last valid choice: (R, 1)."""
        return (self.counts - 1).unsqueeze(1)


class _Search:
    """The rows that are being decoded. Finished rows leave the batch, as in decoding step by step."""

    def __init__(
        self, network: HasDecoder, memory: Memory, ctc: Tensor, rules: GreedyRules, draft: Draft
    ) -> None:
        assert isinstance(network, CachedForward), "drafts need a decoder that scores many positions at once"
        self._forward_cached, self._rules, self._draft = network.forward_cached, rules, draft
        self._scorer = CTCPrefixScorer(ctc, memory.lengths, rules.special)
        self.hypotheses = Hypotheses(rules)
        # A revised draft can be longer than CTC's output, but a pass never checks more than this.
        self._max_length = min(MAX_LENGTH, draft.tokens.size(1)) + 1
        prompt = memory.lengths.new_tensor(rules.special.prompt).expand(len(memory.lengths), -1)  # (B, P)
        self._prompt_size = prompt.size(1)
        self._state = network.start(memory, self._prompt_size - 1 + self.hypotheses.capacity)

        self._rows = torch.arange(len(memory.lengths), device=ctc.device)  # (R,) the utterance of each row
        self.live = torch.ones_like(self._rows, dtype=torch.bool)  # (R,) unfinished rows
        self._last_tokens = prompt[:, -1]  # (R,)
        self._sizes = torch.zeros_like(self._rows)  # (R,) number of tokens decided so far
        self._draft_positions = torch.zeros_like(self._rows)  # (R,) position reached in the draft
        if self._prompt_size > 1:
            self._forward_cached(prompt[:, :-1], self._state, self._sizes)

    def check(self, length: int) -> _Checked:
        """One decoder pass over at most `length` tokens of the draft of every row."""
        sizes = torch.where(self.live, self._sizes, 0)  # no row may pass the last position of the decoder
        left = self._draft.lengths[self._rows] - self._draft_positions
        length = min(length, int(left[self.live].max()) + 1, self._max_length)  # EOS follows the draft
        length = min(length, self.hypotheses.capacity - int(sizes.max()))
        proposed = self._draft.next_tokens(self._rows, self._draft_positions, length)  # (R, U)
        inputs = torch.cat([self._last_tokens.unsqueeze(1), proposed[:, :-1]], 1)
        log_probs = self._forward_cached(inputs, self._state, self._prompt_size - 1 + sizes)
        prefixes = self.hypotheses.continued(self._rows, sizes, proposed)
        log_probs = self._rules.processors.at_positions(
            prefixes, self._prompt_size + sizes, log_probs
        )  # (R, U, V)
        scorer = CTCDraftScorer(self._scorer, proposed[:, :-1])
        choice = choose(
            log_probs.flatten(0, 1), scorer if self._rules.ctc_weight else None, self._rules, prefixes
        )
        chosen, near_tie = choice.tokens.view_as(proposed), choice.near_tie.view_as(proposed)
        if self._rules.ctc_weight:
            near_tie = near_tie | scorer.underflow

        agreed = ((chosen == proposed) & (chosen != self._rules.special.eos)).cumprod(1).sum(1)  # (R,)
        counts = (agreed + 1).clamp_max(length)
        last = (counts - 1).unsqueeze(1)
        corrected = (chosen != proposed).gather(1, last).squeeze(1)
        near_ties = near_tie.cumsum(1).gather(1, last).squeeze(1)  # among the valid choices
        return _Checked(
            proposed,
            chosen,
            choice.log_probs.view_as(proposed),
            counts,
            agreed == length,
            scorer,
            near_tie=bool((near_ties[self.live] > 0).any()),
            decided=int(counts[self.live].sum()),
            wrong=int(corrected[self.live].sum()),
        )

    def accept(self, checked: _Checked) -> bool:
        """Append the valid choices and move on in the draft. Returns whether unfinished rows are left."""
        rows, before = self._rows, self._sizes
        self.live &= self.hypotheses.add(
            rows, before, checked.chosen, checked.log_probs, checked.counts * self.live
        )
        self._sizes = torch.where(self.live, before + checked.counts, before)
        self.live &= ~began_repeating(self.hypotheses.tokens[rows], before, self._sizes)
        if not self.live.any():
            return False

        self._last_tokens = checked.chosen.gather(1, checked.last).squeeze(1)
        self._scorer = checked.scorer.advanced(checked.last.squeeze(1))
        self._scorer.advance(self._last_tokens)
        self._draft.revise(
            rows, self._draft_positions, checked.last, checked.proposed, checked.chosen, checked.log_probs
        )
        aligned = self._draft.align(rows, self._scorer.exact_paths(), self._last_tokens)
        self._draft_positions = torch.where(
            checked.agrees, self._draft_positions + checked.proposed.size(1), aligned
        )
        if int(self.live.sum()) < COMPACT_BELOW * len(rows):
            self._compact()
        return True

    def _compact(self) -> None:
        """Keep the unfinished rows."""
        keep = self.live.nonzero().squeeze(1)
        self._state, self._scorer = self._state.select(keep), self._scorer.select(keep)
        self._rows, self.live = self._rows[keep], self.live[keep]
        self._last_tokens, self._sizes = self._last_tokens[keep], self._sizes[keep]
        self._draft_positions = self._draft_positions[keep]
