"""Rows of different lengths as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence


def pad_rows(rows: Sequence[Tensor], dtype: torch.dtype, value: float, multiple: int = 1) -> Tensor:
    """Rows (n, ...) of any n as one tensor (B, N, ...) padded with `value`; N is a multiple."""
    if not rows:
        return torch.zeros(0, 0, dtype=dtype)
    padded = pad_sequence(list(rows), batch_first=True, padding_value=value)
    last = [0, 0] * (padded.dim() - 2)  # dimensions after the padded one stay
    return pad(padded, (*last, 0, -padded.size(1) % multiple), value=value)
