"""Greedy decoding: the most probable character at every step, until END."""

from __future__ import annotations

import torch

from asr.decoding.bounds import max_tokens
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.model.seams import Memory, Network
from asr.tokenizer import BEGIN, END, PAD

COMPACT_BELOW = 0.75  # share of unfinished rows under which the finished ones leave the batch


@torch.inference_mode()
def greedy(network: Network, memory: Memory, options: DecodingOptions) -> list[Hypothesis]:
    """One hypothesis for every row of the memory.

    Keys and values are cached, and finished rows leave the batch: leaving copies the caches, so it waits
    until a quarter of the rows held are finished.
    """
    device, batch = memory.states.device, memory.states.size(0)
    if batch == 0:
        return []
    bounds = max_tokens(network, memory, options)  # (B,)
    capacity = int(bounds.max()) + 1  # the last step may still say END
    state = network.start(memory, capacity)
    found = torch.full((batch, capacity), END, device=device)
    scores = torch.zeros(batch, device=device)
    finished = torch.zeros(batch, dtype=torch.bool, device=device)

    rows = torch.arange(batch, device=device)  # the utterance of each row held, (R,)
    live = torch.ones(batch, dtype=torch.bool, device=device)  # (R,)
    tokens = torch.full((batch,), BEGIN, device=device)
    for position in range(capacity):
        log_probs = network.step(tokens, state)  # (R, V)
        log_probs[:, [PAD, BEGIN]] = -torch.inf
        best, tokens = log_probs.max(-1)  # (R,)
        ended = tokens == END
        cut = ~ended & (bounds[rows] <= position)
        speaking = live & ~cut
        found[rows[speaking], position] = tokens[speaking]
        scores[rows[speaking]] += best[speaking]
        finished[rows[live & ended]] = True
        live = speaking & ~ended

        left = int(live.sum())
        if left == 0:
            break
        if left < COMPACT_BELOW * len(rows):
            keep = live.nonzero().squeeze(1)
            state, rows, tokens, live = state.select(keep), rows[keep], tokens[keep], live[keep]

    lengths = (found != END).sum(1).tolist()
    return [
        Hypothesis(tuple(row[:length]), score, done)
        for row, length, score, done in zip(
            found.tolist(), lengths, scores.tolist(), finished.tolist(), strict=True
        )
    ]
