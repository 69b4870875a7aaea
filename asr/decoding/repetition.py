"""The guard against texts that go round in circles, as attention alone does on noise.

A text goes round when its last 32 tokens or more are 8 copies or more of the same 1 to 32 tokens. The guard
looks at every 16th token: what it says of a text depends on the text alone, and decoders that look while they
decode and decoders that look afterwards agree.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.decoding.options import FinishReason, Hypothesis
from asr.model.interfaces import Memory, Network
from asr.tokenizers import BOS

COPIES, SHORTEST, LONGEST_PERIOD = 8, 32, 32
LOOK_EVERY = 16


def going_round(texts: Tensor) -> Tensor:
    """Whether texts (..., U) go round at their ends: (...), for a U at which the guard looks."""
    size = texts.size(-1)
    found = torch.zeros(texts.shape[:-1], dtype=torch.bool, device=texts.device)
    for period, span in _spans(size):
        tail = texts[..., size - span :]
        found |= (tail[..., period:] == tail[..., :-period]).all(-1)
    return found


def first_round(tokens: tuple[int, ...]) -> int | None:
    """How many tokens there are up to the end of the first copy, if the guard stops this text."""
    for size in range(LOOK_EVERY, len(tokens) + 1, LOOK_EVERY):
        for period, span in _spans(size):
            if tokens[size - 1] == tokens[size - 1 - period]:  # or there is no need to look at the others
                tail = tokens[size - span : size]
                if tail[period:] == tail[:-period]:
                    return size - span + period
    return None


def cut_repetitions(
    network: Network, memory: Memory, found: list[list[Hypothesis]]
) -> list[list[Hypothesis]]:
    """Hypotheses of every row of the memory, each that goes round cut off after the first copy."""
    return [
        list(dict.fromkeys(_cut(network, memory, row, each) for each in hypotheses))
        for row, hypotheses in enumerate(found)
    ]


def _cut(network: Network, memory: Memory, row: int, hypothesis: Hypothesis) -> Hypothesis:
    kept = first_round(hypothesis.tokens)
    if kept is None:
        return hypothesis
    tokens = torch.tensor([hypothesis.tokens[:kept]], device=memory.lengths.device)
    own = memory.select(torch.tensor([row], device=memory.lengths.device))
    log_probs = network.decode(pad(tokens[:, :-1], (1, 0), value=BOS), own).float().log_softmax(-1)
    log_prob = float(log_probs.gather(2, tokens.unsqueeze(2)).sum())
    return replace(
        hypothesis, tokens=hypothesis.tokens[:kept], log_prob=log_prob, finish_reason=FinishReason.repetition
    )


def _spans(size: int) -> list[tuple[int, int]]:
    """The periods that fit into a text of that size, each with how many tokens must repeat it."""
    spans = ((period, max(COPIES * period, SHORTEST)) for period in range(1, LONGEST_PERIOD + 1))
    return [(period, span) for period, span in spans if span <= size]
