"""Greedy decoding: the best character at every step, until END."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.decoding.bounds import max_tokens
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.options import DecodingOptions, Ending, Hypothesis
from asr.model.seams import Memory, Network
from asr.tokenizer import BEGIN, END, PAD

COMPACT_BELOW = 0.75  # share of unfinished rows under which the finished ones leave the batch


@torch.inference_mode()
def greedy(network: Network, memory: Memory, options: DecodingOptions) -> list[Hypothesis]:
    """One hypothesis for every row of the memory.

    The best character has the best weighted sum of the decoder's log-probability and CTC's prefix score,
    among the decoder's best few (Watanabe et al. 2017, with a beam of one). CTC goes through the audio once
    and in order: it knows what attention skips or says twice. With a `ctc_weight` of 0 the decoder chooses
    alone.

    Keys and values are cached, and finished rows leave the batch: leaving copies the caches, so it waits
    until a quarter of the rows held are finished.
    """
    device, batch = memory.states.device, memory.states.size(0)
    if batch == 0:
        return []
    ctc = network.ctc(memory)  # (B, S, V)
    weight = options.weight_of_ctc(ctc is not None)
    scorer = CTCPrefixScorer(ctc, memory.lengths) if ctc is not None and weight else None
    bounds = max_tokens(memory, ctc, options)  # (B,)
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
        best, tokens = _choose(log_probs, scorer, weight, options.candidate_count)  # (R,)
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
            scorer = scorer and scorer.select(keep)

    lengths = (found != END).sum(1).tolist()
    return [
        Hypothesis(tuple(row[:length]), score, Ending.end if done else Ending.length)
        for row, length, score, done in zip(
            found.tolist(), lengths, scores.tolist(), finished.tolist(), strict=True
        )
    ]


def _choose(
    log_probs: Tensor, scorer: CTCPrefixScorer | None, weight: float, count: int
) -> tuple[Tensor, Tensor]:
    """The decoder's log-probability of the next token of every row, and the token: (R, V) -> (R,), (R,)."""
    if scorer is None:
        best, tokens = log_probs.max(-1)
        return best, tokens
    likely = log_probs.topk(min(count, log_probs.size(1) - 2), dim=1).indices  # (R, K); never PAD, BEGIN
    candidates = torch.cat([likely, torch.full_like(likely[:, :1], END)], dim=1)  # (R, K + 1)
    attention = log_probs.gather(1, candidates)
    joint = (1 - weight) * attention + weight * scorer.score(candidates)
    chosen = joint.argmax(1, keepdim=True)
    tokens = candidates.gather(1, chosen).squeeze(1)
    scorer.advance(tokens)
    return attention.gather(1, chosen).squeeze(1), tokens
