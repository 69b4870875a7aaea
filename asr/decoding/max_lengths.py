"""Decoding ends by itself: how many tokens an utterance can hold at most."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.decoding.options import DecodingOptions
from asr.model.interfaces import Memory
from asr.tokenizers import PAD

# One encoder state covers about 40 ms, and nobody speaks 25 characters a second for long. CTC collapses
# repeats and may miss a character, hence the factor. Short utterances get a few tokens beyond both.
CTC_FACTOR = 2
SPARE = 8


def compute_max_lengths(memory: Memory, ctc: Tensor | None, options: DecodingOptions) -> Tensor:
    """The most tokens each row may have: (B,). From the duration, from the CTC length, from the options.

    `ctc` holds the CTC head's log-probabilities (B, S, V), where there is one.
    """
    bound = memory.lengths + SPARE
    if ctc is not None:
        bound = torch.minimum(bound, CTC_FACTOR * ctc_lengths(ctc, memory.lengths) + SPARE)
    if options.max_tokens is not None:
        bound = bound.clamp_max(options.max_tokens)
    return bound


def ctc_lengths(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Number of tokens of the greedy CTC path: log_probs (B, S, V), lengths (B,) -> (B,)."""
    best = log_probs.argmax(-1)  # (B, S)
    previous = torch.nn.functional.pad(best[:, :-1], (1, 0), value=PAD)
    valid = torch.arange(best.size(1), device=best.device) < lengths.unsqueeze(1)
    return ((best != PAD) & (best != previous) & valid).sum(1)
