"""When the tokens of a known text were spoken: the best path through CTC's output or the cross-attention."""

from __future__ import annotations

import numpy as np
import torchaudio
from torch import Tensor

from asr.errors import AsrError

Span = tuple[int, int]  # the first state of a token, and the state after its last one


def align_ctc(log_probs: Tensor, tokens: Tensor, blank: int) -> list[Span]:
    """The states of each token on the most likely CTC path of a text (Graves et al. 2006; Viterbi).

    log_probs (S, V), tokens (U,). States of the blank belong to no token. Raises AsrError when S is too small
    for the text: every token needs a state, and equal neighbors one more between them.
    """
    if len(tokens) == 0:
        return []
    needed = len(tokens) + int((tokens[1:] == tokens[:-1]).sum())
    if needed > len(log_probs):
        raise AsrError(
            f"a text of {len(tokens)} tokens needs {needed} states of CTC, and this audio has "
            f"{len(log_probs)}; give the text of this recording"
        )
    path, scores = torchaudio.functional.forced_align(
        log_probs.float().unsqueeze(0).contiguous(), tokens.unsqueeze(0), blank=blank
    )
    spans = torchaudio.functional.merge_tokens(path[0], scores[0], blank=blank)
    return [(span.start, span.end) for span in spans]


def align_attention(weights: np.ndarray) -> list[Span]:
    """The states of each token on the monotonic path with the largest sum of weights (U, S).

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
