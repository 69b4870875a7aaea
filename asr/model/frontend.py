"""The convolutional front end: time divided by 4."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.features import length_mask


class ConvFrontEnd(nn.Module):
    """Two 3x3 convolutions with stride 2 over time and frequency, then a projection to d_model.

    Each convolution is followed by a mask: its zero padding is what a row sees beyond its end, in a batch as
    alone. The layer normalisation at the end lets the positions, which are added next, be seen beside the
    features: without it the cross-attention takes longer to find its place.
    """

    def __init__(self, n_mels: int, channels: int, d_model: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(source, channels, kernel_size=3, stride=2, padding=1) for source in (1, channels)
        )
        self.project = nn.Linear(channels * _halved(_halved(n_mels)), d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, n_mels), lengths (B,) -> (B, S, d_model), lengths (B,) with S = ceil(T / 4)."""
        x = features.unsqueeze(1)  # (B, 1, T, n_mels)
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))  # (B, channels, ceil(T / 2), ceil(F / 2))
            lengths = _halved(lengths)
            x = x * length_mask(lengths, x.size(2))[:, None, :, None]
        x = self.project(x.transpose(1, 2).flatten(2))  # (B, S, channels * F / 4) -> (B, S, d_model)
        return self.norm(x), lengths


def _halved(length):  # type: ignore[no-untyped-def]  # int -> int, Tensor -> Tensor
    """The length that a kernel of 3 with padding 1 and stride 2 leaves: ceil(length / 2)."""
    return (length + 1) // 2
