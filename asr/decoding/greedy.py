"""Greedy decoding: the best character at every step, until EOS."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.hypotheses import Hypotheses, choose
from asr.decoding.max_lengths import compute_max_lengths
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.decoding.repetition import LOOK_EVERY, cut_repetitions, going_round
from asr.decoding.speculative import decode_speculatively
from asr.model.interfaces import HasCTC, Memory, Network
from asr.tokenizers import BOS

COMPACT_BELOW = 0.75  # share of unfinished rows under which the finished ones leave the batch


@torch.inference_mode()
def greedy(network: Network, memory: Memory, options: DecodingOptions) -> list[Hypothesis]:
    """One hypothesis for every row of the memory.

    The best character has the best weighted sum of the decoder's log-probability and CTC's prefix score,
    among the decoder's best few (Watanabe et al. 2017, with a beam of one). CTC goes through the audio once
    and in order: it knows what attention skips or says twice. With a `ctc_weight` of 0 the decoder chooses
    alone.

    Where there is a CTC head, its own text is a draft that the decoder checks (`asr.decoding.speculative`), unless
    `draft` is False. The result is the same as step by step.
    """
    if memory.states.size(0) == 0:
        return []
    ctc = network.ctc(memory) if isinstance(network, HasCTC) else None  # (B, S, V)
    weight = options.weight_of_ctc(ctc is not None)
    max_lengths = compute_max_lengths(memory, ctc, options)  # (B,)
    texts = None
    if ctc is not None and options.draft is not False:
        texts = decode_speculatively(network, memory, ctc, max_lengths, weight, options.candidate_count)
    if texts is None:
        texts = step_by_step(network, memory, ctc, max_lengths, weight, options.candidate_count)
    return [found for (found,) in cut_repetitions(network, memory, [[h] for h in texts.hypotheses()])]


def step_by_step(
    network: Network, memory: Memory, ctc: Tensor | None, max_lengths: Tensor, weight: float, candidates: int
) -> Hypotheses:
    """One decoder pass for each character; max_lengths (B,) are the most that each row may have.

    Keys and values are cached, and finished rows leave the batch: leaving copies the caches, so it waits
    until a quarter of the rows held are finished.
    """
    texts = Hypotheses(max_lengths)
    scorer = CTCPrefixScorer(ctc, memory.lengths) if ctc is not None and weight else None
    rows = torch.arange(len(max_lengths), device=max_lengths.device)  # the utterance of each row held, (R,)
    live = torch.ones_like(rows, dtype=torch.bool)  # (R,)
    tokens = torch.full_like(rows, BOS)
    state = network.start(memory, texts.capacity)
    for position in range(texts.capacity):
        choice = choose(network.step(tokens, state), scorer, weight, candidates)
        tokens = choice.tokens  # (R,)
        if scorer is not None:
            scorer.advance(tokens)
        starts = torch.full_like(rows, position)
        live &= texts.add(rows, starts, tokens.unsqueeze(1), choice.log_probs.unsqueeze(1), live.long())
        if (position + 1) % LOOK_EVERY == 0:
            live &= ~going_round(texts.tokens[rows, : position + 1])

        left = int(live.sum())
        if left == 0:
            break
        if left < COMPACT_BELOW * len(rows):
            keep = live.nonzero().squeeze(1)
            state, rows, tokens, live = state.select(keep), rows[keep], tokens[keep], live[keep]
            scorer = scorer and scorer.select(keep)
    return texts
