"""Masks of padded batches."""

from __future__ import annotations

import torch
from torch import Tensor


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Lengths (B,) -> (B, size), true where a position lies within its row's length."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)
