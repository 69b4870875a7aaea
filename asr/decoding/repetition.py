"""A guard against hypotheses that repeat themselves without end, as attention alone does on noise.

A hypothesis repeats itself if its last tokens are at least 8 copies of the same 1 to 32 tokens, and at least
32 tokens long. The guard checks at every 16th token. Its answer depends only on the tokens, so decoders that
check while they decode agree with decoders that check afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from asr.decoding.options import FinishReason, Hypothesis
from asr.decoding.processors import LogitProcessors
from asr.decoding.prompts import teacher_forced_log_probs, with_prompt
from asr.model.interfaces import HasDecoder, Memory
from asr.tokenizers.special import SpecialTokens

MIN_COPIES, MIN_LENGTH, MAX_PERIOD = 8, 32, 32
CHECK_INTERVAL = 16


def is_repeating(tokens: Tensor) -> Tensor:
    """Whether sequences (..., U) repeat themselves at their ends: (...).

    The guard calls it only for multiples U of CHECK_INTERVAL.
    """
    size = tokens.size(-1)
    found = torch.zeros(tokens.shape[:-1], dtype=torch.bool, device=tokens.device)
    for period, span in _spans(size):
        tail = tokens[..., size - span :]
        found |= (tail[..., period:] == tail[..., :-period]).all(-1)
    return found


def began_repeating(tokens: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Whether sequences (R, U) repeated themselves at a length above before (R,), and up to after (R,)."""
    found = torch.zeros_like(before, dtype=torch.bool)
    first = int(before.min()) // CHECK_INTERVAL * CHECK_INTERVAL
    for size in range(first, int(after.max()) + 1, CHECK_INTERVAL):
        passed = (before < size) & (size <= after)
        found |= passed & is_repeating(tokens[:, :size])
    return found


def length_without_copies(tokens: Sequence[int]) -> int | None:
    """The number of tokens up to the end of the first copy, or None if the guard does not stop them."""
    for size in range(CHECK_INTERVAL, len(tokens) + 1, CHECK_INTERVAL):
        for period, span in _spans(size):
            if tokens[size - 1] == tokens[size - 1 - period]:  # most periods fail this quick test
                tail = tokens[size - span : size]
                if tail[period:] == tail[:-period]:
                    return size - span + period
    return None


def cut_repetitions(
    network: HasDecoder,
    memory: Memory,
    special: SpecialTokens,
    processors: LogitProcessors,
    found: list[list[Hypothesis]],
) -> list[list[Hypothesis]]:
    """The hypotheses of every row of the memory. Those that repeat themselves are cut after the first copy.

    The log-probability of a cut hypothesis is computed again, for the tokens that are left.
    """
    return [
        list(dict.fromkeys(_cut(network, memory, special, processors, row, each) for each in hypotheses))
        for row, hypotheses in enumerate(found)
    ]


def _cut(
    network: HasDecoder,
    memory: Memory,
    special: SpecialTokens,
    processors: LogitProcessors,
    row: int,
    hypothesis: Hypothesis,
) -> Hypothesis:
    length = length_without_copies(hypothesis.tokens)
    if length is None:
        return hypothesis
    device = memory.lengths.device
    tokens = torch.tensor([hypothesis.tokens[:length]], device=device)  # (1, U)
    own = memory.select(torch.tensor([row], device=device))
    log_probs = teacher_forced_log_probs(network, own, tokens, special)[:, :-1]  # (1, U, V)
    prompt_sizes = torch.tensor([len(special.prompt)], device=device)
    log_probs = processors.at_positions(with_prompt(tokens, special), prompt_sizes, log_probs)
    log_prob = float(log_probs.gather(2, tokens.unsqueeze(2)).sum())
    return replace(
        hypothesis,
        tokens=hypothesis.tokens[:length],
        log_prob=log_prob,
        finish_reason=FinishReason.repetition,
    )


def _spans(size: int) -> list[tuple[int, int]]:
    """The periods that are possible in so many tokens, each with the number of tokens that must repeat it."""
    spans = ((period, max(MIN_COPIES * period, MIN_LENGTH)) for period in range(1, MAX_PERIOD + 1))
    return [(period, span) for period, span in spans if span <= size]
