"""Greedy decoding with the draft of a smaller model: the same result, with fewer passes of the larger one.

The smaller model writes a few tokens, and one pass of the larger one gives its own choice at each of them.
Up to the first choice that differs, the choices are those of decoding step by step, because the tokens before
them are the same (Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", for
greedy decoding).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from asr.decoding.hypotheses import COMPACT_BELOW, GreedyRules, Hypotheses, choose
from asr.decoding.options import DecodingOptions
from asr.decoding.repetition import began_repeating
from asr.errors import AsrError
from asr.model.interfaces import CachedForward, HasDecoder, LimitsPositions, Memory, State
from asr.model_folder import Bundle, load_model

FIRST, FEWEST, MOST = 4, 2, 16  # tokens of a draft
LONGER = 2  # after a draft that is right in all rows, the next has so many more tokens, else one less


def load_draft_model(bundle: Bundle[Any], options: DecodingOptions) -> Bundle[Any] | None:
    """The model that the options name. Raises AsrError for one that cannot write drafts for this one."""
    if options.draft_model is None:
        return None
    draft = load_model(options.draft_model, str(bundle.device))
    name, networks = options.draft_model, (bundle.network, draft.network)
    if not all(isinstance(each, CachedForward) and isinstance(each, HasDecoder) for each in networks):
        raise AsrError(
            f"draft_model: {name} or the model itself can only decode step by step; omit the option"
        )
    if draft.tokenizer.symbols != bundle.tokenizer.symbols:
        raise AsrError(f"draft_model: {name} has another vocabulary; use a smaller model of the same family")
    rates = {each.config.features.sample_rate for each in (bundle, draft)}
    if len(rates) > 1:
        raise AsrError(f"draft_model: {name} has another sample rate; use one with that of the model")
    most = [each.max_positions if isinstance(each, LimitsPositions) else math.inf for each in networks]
    if most[1] < most[0]:
        raise AsrError(f"draft_model: {name} has fewer positions for tokens than the model; use another one")
    return draft


def decode_with_draft_model(
    network: HasDecoder, draft: HasDecoder, memory: Memory, rules: GreedyRules
) -> Hypotheses | None:
    """The hypotheses of decoding step by step, or None if the caller must decode step by step.

    None is returned when a choice is so close that rounding could decide it. `memory.draft` is the memory of
    the draft model, for the same audio. Both networks must also offer `CachedForward`.
    """
    assert memory.draft is not None, "the recognizer encodes the audio with both models"
    hypotheses = Hypotheses(rules)
    prompt = memory.lengths.new_tensor(rules.special.prompt).expand(len(memory.lengths), -1)  # (B, P)
    capacity = prompt.size(1) - 1 + hypotheses.capacity
    model = _Reader(network, memory, prompt, capacity)
    writer = _Reader(draft, memory.draft, prompt, capacity)
    rows = torch.arange(len(memory.lengths), device=prompt.device)  # (R,) the utterance of each row
    sizes, last = torch.zeros_like(rows), prompt[:, -1]  # (R,) tokens decided so far; the last of them
    live, length = torch.ones_like(rows, dtype=torch.bool), FIRST
    while True:
        length = min(length, hypotheses.capacity - int(sizes.max()))
        proposed = writer.propose(hypotheses, rules, rows, sizes, last, length)  # (R, U)
        inputs = torch.cat([last.unsqueeze(1), proposed[:, :-1]], 1)
        log_probs, prefixes = model.read(hypotheses, rules, rows, sizes, inputs)
        choice = choose(log_probs.flatten(0, 1), None, rules, prefixes)
        chosen, near_tie = choice.tokens.view_as(proposed), choice.near_tie.view_as(proposed)
        agrees = (chosen == proposed) & (chosen != rules.special.eos)
        agreed = agrees.cumprod(1).sum(1)
        counts = (agreed + 1).clamp_max(length)  # (R,) valid choices
        order = torch.arange(length, device=rows.device)
        if bool((near_tie & (order < counts.unsqueeze(1)) & live.unsqueeze(1)).any()):
            return None
        token_log_probs = choice.log_probs.view_as(proposed)
        wrong = (chosen != proposed).gather(1, (counts - 1).unsqueeze(1)).squeeze(1)
        longer = not bool(wrong[live].any())
        live &= hypotheses.add(rows, sizes, chosen, token_log_probs, counts * live)
        before, sizes = sizes, torch.where(live, sizes + counts, sizes)
        live &= ~began_repeating(hypotheses.tokens[rows], before, sizes)
        live_count = int(live.sum())
        if live_count == 0:
            return hypotheses
        last = chosen.gather(1, (counts - 1).unsqueeze(1)).squeeze(1)
        length = min(MOST, length + LONGER) if longer else max(FEWEST, length - 1)
        if live_count < COMPACT_BELOW * len(rows):
            keep = live.nonzero().squeeze(1)
            model.state, writer.state = model.state.select(keep), writer.state.select(keep)
            rows, sizes, last, live = rows[keep], sizes[keep], last[keep], live[keep]


class _Reader:
    """A network with its caches, which have read the prompt but its last token."""

    def __init__(self, network: HasDecoder, memory: Memory, prompt: Tensor, capacity: int) -> None:
        assert isinstance(network, CachedForward), "load_draft_model refuses others"
        self._forward_cached = network.forward_cached
        self._before = prompt.size(1) - 1
        self.state: State = network.start(memory, capacity)
        if self._before:
            self._forward_cached(prompt[:, :-1], self.state, memory.lengths.new_zeros(len(prompt)))

    def read(
        self, hypotheses: Hypotheses, rules: GreedyRules, rows: Tensor, sizes: Tensor, inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities (R, U, V) after each of inputs (R, U), and the sequences that end with them.

        The first input of a row is the last of its `sizes` tokens, or of the prompt.
        """
        log_probs = self._forward_cached(inputs, self.state, self._before + sizes)
        prefixes = hypotheses.continued(rows, sizes, inputs[:, 1:])
        return rules.processors.at_positions(prefixes, self._before + 1 + sizes, log_probs), prefixes

    def propose(
        self,
        hypotheses: Hypotheses,
        rules: GreedyRules,
        rows: Tensor,
        sizes: Tensor,
        last: Tensor,
        length: int,
    ) -> Tensor:
        """The next `length` tokens of each row (R, U) by greedy decoding of this network alone."""
        proposed = last.unsqueeze(1)
        for position in range(length):
            log_probs = self._forward_cached(proposed[:, -1:], self.state, self._before + sizes + position)
            prefixes = hypotheses.continued(rows, sizes, proposed[:, 1:])
            log_probs = rules.processors.at_positions(
                prefixes, self._before + 1 + sizes + position, log_probs
            )
            proposed = torch.cat([proposed, log_probs.argmax(2)], 1)
        return proposed[:, 1:]
