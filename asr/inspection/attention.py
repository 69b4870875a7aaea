"""Attention weights of one recording, under teacher forcing, with the columns that have audio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr.errors import AsrError
from asr.inspection.measures import diagonality, entropy
from asr.model.interfaces import Memory
from asr.model_folder import Bundle


@dataclass(frozen=True)
class Heads:
    """The attention of one layer: weights (n_heads, Q, K), float32. Each column has `seconds` of audio.

    Of features that pad a recording to a window, only the columns with audio are kept, and each row is
    divided by its sum.
    """

    layer: str
    weights: np.ndarray
    seconds: float

    @cached_property
    def entropy(self) -> np.ndarray:
        """The mean entropy of the rows of each head, in nats: (n_heads,)."""
        return entropy(self.weights)

    @cached_property
    def diagonality(self) -> np.ndarray:
        """How near each head is to the diagonal: (n_heads,)."""
        return diagonality(self.weights)


def teacher_forced_attention(bundle: Bundle[Any], ids: Sequence[int], memory: Memory) -> Tensor:
    """Cross-attention weights (n_layers, n_heads, U + 1, S) of one utterance, a row for each token and EOS.

    The decoder receives the prompt and the U tokens of the text, even where it would predict other tokens.
    """
    prompt = bundle.special.prompt
    decoder_input = torch.tensor([[*prompt, *ids]], device=memory.states.device)  # (1, P + U)
    weights: Tensor = bundle.network.cross_attention(decoder_input, memory)[0]
    return weights[:, :, len(prompt) - 1 :]


def with_audio(weights: Tensor, size: int) -> np.ndarray:
    """The first `size` columns of attention weights (..., S), so that their rows have the sum 1."""
    kept = weights[..., :size].float()
    return (kept / kept.sum(-1, keepdim=True).clamp_min(1e-10)).cpu().numpy()


def self_attention_heads(
    name: str, weights: Tensor, size: int, share: Fraction, state_seconds: float
) -> Heads:
    """weights (n_heads, S', S') of a layer that may work at a lower rate than the memory of `size` states."""
    states = weights.size(-1)
    rate = 2 ** math.ceil(math.log2(size / states))  # pairs of states, or a single last one, become one
    kept = math.ceil(states * share)
    return Heads(f"encoder {name}", with_audio(weights[:, :kept], kept), state_seconds * rate)


def align_attention(weights: np.ndarray) -> list[tuple[int, int]]:
    """First state, and state after the last, of each token on the path of the largest weights (U, S).

    Each state belongs to one token, and each token has one state or more. This is dynamic time warping. In
    the warping of Whisper, tokens can also share a state (`asr.decoding.alignment.warp_time`). There are no
    blanks, so a pause is part of the token before or after it. Raises AsrError when there are fewer states
    than tokens.
    """
    rows, states = weights.shape
    if rows == 0:
        return []
    if rows > states:
        raise AsrError(
            f"a text of {rows} tokens is too long to be aligned with {states} states; give the text of "
            "this recording"
        )
    sums = np.full(rows, -np.inf)  # of the best path that ends in each token
    sums[0] = weights[0, 0]
    advanced = np.zeros((states, rows), dtype=bool)
    for state in range(1, states):
        before = np.concatenate(([-np.inf], sums[:-1]))
        advanced[state] = before > sums
        sums = np.maximum(before, sums) + weights[:, state]
    starts, row = [0] * rows, rows - 1
    for state in range(states - 1, 0, -1):
        if advanced[state, row]:
            starts[row] = state
            row -= 1
    return list(zip(starts, [*starts[1:], states], strict=True))
