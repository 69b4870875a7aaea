"""SpecAugment: masks on normalized features in training."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.features.settings import SpecAugmentConfig


def spec_augment(features: Tensor, lengths: Tensor, config: SpecAugmentConfig) -> Tensor:
    """Masked copies of normalized features (B, T, n_mels); a masked value is 0, the mean.

    Park et al. 2019, without time warping. The widest time mask is a share of each utterance's own length
    (adaptive size, Park et al. 2020). torchaudio's masking has one width for the whole batch, so it is not
    used. Random numbers come from torch's global generator of the device.
    """
    batch, frames, bins = features.shape
    device = features.device

    def bands(count: int, widest: Tensor, extent: Tensor, size: int) -> Tensor:
        """(B, size), true under any of `count` bands of width 0 to `widest` (B,) within `extent` (B,)."""
        width = torch.rand(batch, count, device=device) * (widest + 1).unsqueeze(1)
        width = width.floor()
        start = (
            torch.rand(batch, count, device=device) * (extent.unsqueeze(1) - width + 1).clamp_min(1)
        ).floor()
        place = torch.arange(size, device=device)
        inside = (place >= start.unsqueeze(2)) & (place < (start + width).unsqueeze(2))  # (B, count, size)
        return inside.any(1)

    def full(value: int) -> Tensor:
        return torch.full((batch,), value, device=device)

    across = bands(
        config.frequency_masks, full(min(config.frequency_width, bins)), full(bins), bins
    )  # (B, n_mels)
    along = bands(config.time_masks, (lengths * config.time_width).floor(), lengths, frames)  # (B, T)
    return features.masked_fill(across.unsqueeze(1) | along.unsqueeze(2), 0.0)
