"""The encoder states in which the tokens of a known text are spoken, from CTC or from cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import forced_align

from asr.model.interfaces import HasAlignmentHeads, Memory
from asr.tokenizers.special import SpecialTokens

SMOOTHED = 7  # states: the width of the median filter of attention, as in Whisper


@dataclass(frozen=True)
class TokenSpan:
    """The states of one token: from `start` up to, not including, `end`."""

    start: float
    end: float
    probability: float  # 0 to 1: CTC's highest value in the token's states, or the decoder's value


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


def states_with_audio(seconds: Tensor, state_seconds: float) -> Tensor:
    """The number of states of recordings of these seconds (B,), without the states of padding to a window."""
    return (seconds / state_seconds).ceil().long().clamp_min(1)


@torch.inference_mode()
def attention_align(
    network: HasAlignmentHeads,
    memory: Memory,
    used: Tensor,
    texts: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
) -> list[list[TokenSpan]]:
    """The states of each token by dynamic time warping of the attention of the alignment heads.

    The first `used` (B,) states have audio; where the memory has more, they are padding. B texts of tokens
    without EOS, and the prompt of each. As in Whisper, the weights of a head are normalized in each state
    over the tokens and smoothed over time; then the heads are averaged. A token's probability is the
    decoder's.
    """
    if not any(texts):
        return [[] for _ in texts]
    rows = [torch.tensor([*prompt, *text]) for prompt, text in zip(prompts, texts, strict=True)]
    tokens = pad_sequence(rows, batch_first=True).to(memory.lengths)  # no position sees later ones
    logits, weights = network.alignment(tokens, memory)  # (B, P + U, V), (B, N, P + U, S)
    first = min(map(len, prompts))
    log_probs = logits[:, first - 1 : -1].float().log_softmax(-1)
    probabilities = log_probs.gather(2, tokens[:, first:, None]).squeeze(2).exp().tolist()
    found = []
    for row, states in enumerate(memory.lengths.minimum(used).tolist()):
        text, size = texts[row], len(prompts[row])
        own = weights[row, :, size : size + len(text), :states]  # (N, U, S)
        starts = warp_time(_normalized(own).cpu().double().numpy()) if text else []
        spans = zip(starts, [*starts[1:], states], probabilities[row][size - first :], strict=False)
        found.append([TokenSpan(start, end, probability) for start, end, probability in spans])
    return found


def _normalized(weights: Tensor) -> Tensor:
    """Weights of heads (N, U, S), normalized over the tokens, smoothed over time and averaged: (U, S)."""
    deviation, mean = torch.std_mean(weights, dim=1, correction=0, keepdim=True)
    weights = (weights - mean) / deviation.clamp_min(1e-10)  # a single token has the deviation 0
    if weights.size(2) > SMOOTHED // 2:
        padded = pad(weights, (SMOOTHED // 2, SMOOTHED // 2), mode="reflect")
        weights = padded.unfold(2, SMOOTHED, 1).sort(3).values[..., SMOOTHED // 2]
    return weights.mean(0)


def warp_time(weights: np.ndarray) -> list[int]:
    """The state at which each token begins, on the path of the largest weights (U, S) (Sakoe and Chiba 1978).

    A step of the path leads to the next token, to the next state, or to both. So tokens can share a state.
    """
    rows, states = weights.shape
    sums = np.full((rows + 1, states + 1), -np.inf)
    sums[0, 0] = 0.0
    steps = np.zeros((rows + 1, states + 1), dtype=np.int8)  # 0: both, 1: next token, 2: next state
    for diagonal in range(2, rows + states + 1):  # the cells of a diagonal do not depend on each other
        row = np.arange(max(1, diagonal - states), min(rows, diagonal - 1) + 1)
        state = diagonal - row
        both, down, right = sums[row - 1, state - 1], sums[row - 1, state], sums[row, state - 1]
        step = np.where((both > down) & (both > right), 0, np.where((down > both) & (down > right), 1, 2))
        steps[row, state] = step
        sums[row, state] = weights[row - 1, state - 1] + np.choose(step, (both, down, right))
    starts, token, end = [0] * rows, rows, states
    while token > 0:
        starts[token - 1] = end - 1
        move = 1 if end == 1 else int(steps[token, end])  # in the first state only the token can change
        if token == 1 and end > 1:
            move = 2
        token, end = token - (move != 2), end - (move != 1)
    return starts
