"""At which states of the encoder the tokens of a known text are spoken: by CTC, or by cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import forced_align

from asr.errors import AsrError
from asr.tokenizers.special import SpecialTokens


@dataclass(frozen=True)
class TokenSpan:
    """The states of one token: from `start` up to, not including, `end`."""

    start: float
    end: float
    probability: float  # CTC's highest probability of the token in its states, 0 to 1


@torch.inference_mode()
def ctc_align(
    log_probs: Tensor, lengths: Tensor, texts: Sequence[Sequence[int]], special: SpecialTokens
) -> list[list[TokenSpan]]:
    """The states of each token on the most likely path of CTC that spells the text (Kürzinger et al. 2020).

    log_probs (B, S, V) of a CTC head, lengths (B,) in states, B texts of tokens without the prompt and EOS.
    A text with more tokens than there are states has no path. Its tokens are spread evenly, and have a
    probability of 0. torchaudio aligns one utterance at a time.
    """
    log_probs, sizes = log_probs.float().cpu(), lengths.tolist()
    return [
        _align(log_probs[row, :size], list(text), special.blank)
        for row, (size, text) in enumerate(zip(sizes, texts, strict=True))
    ]


def _align(log_probs: Tensor, text: list[int], blank: int) -> list[TokenSpan]:
    """One text on log_probs (S, V)."""
    if not text:
        return []
    states = len(log_probs)
    if states_needed(text) > states or blank in text:
        width = states / len(text)
        return [TokenSpan(i * width, (i + 1) * width, 0.0) for i in range(len(text))]
    (path,), (scores,) = forced_align(log_probs.unsqueeze(0), torch.tensor([text]), blank=blank)
    spans: list[TokenSpan] = []
    previous = blank
    probabilities = scores.exp().tolist()
    for state, token in enumerate(path.tolist()):
        if token != blank and token == previous:
            last = spans[-1]
            spans[-1] = TokenSpan(last.start, state + 1, max(last.probability, probabilities[state]))
        elif token != blank:
            spans.append(TokenSpan(state, state + 1, probabilities[state]))
        previous = token
    return spans


def states_needed(text: Sequence[int]) -> int:
    """The fewest states on which CTC can spell a text: one for each token, and a blank between equal ones."""
    return len(text) + sum(one == other for one, other in pairwise(text))


def align_attention(weights: np.ndarray) -> list[tuple[int, int]]:
    """First state, and state after the last, of each token on the path of the largest weights (U, S).

    Each state belongs to one token, and each token has one state or more: dynamic time warping, as Whisper
    finds the times of words. There are no blanks, so a pause belongs to one of its neighbors. Raises AsrError
    when there are fewer states than tokens.
    """
    rows, states = weights.shape
    if rows == 0:
        return []
    if rows > states:
        raise AsrError(f"{rows} tokens cannot be aligned to {states} states; give the text of this recording")
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
