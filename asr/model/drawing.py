"""Tokens that are drawn from predictions, in training."""

from __future__ import annotations

from torch import Tensor


def draw_tokens(logits: Tensor) -> Tensor:
    """One token for each row, drawn from its probabilities: logits (N, V) -> (N,).

    A row that is not finite gives an arbitrary token. The loss is not finite then either, and the step is
    skipped.
    """
    return logits.float().softmax(-1).nan_to_num(0.0).clamp_min(1e-9).multinomial(1).squeeze(1)
