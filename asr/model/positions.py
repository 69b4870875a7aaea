"""Positions of states. Sinusoids are added to the states (`asr.model.blocks`); rotations are in here."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RotaryPositions(nn.Module):
    """Rotates queries and keys by angles that grow with their position (Su et al. 2021, RoFormer).

    The product of a query and a key then depends on the distance between them only. Positions have no upper
    limit, and padding after a row's end changes nothing.
    """

    inverse_frequency: Tensor

    def __init__(self, d_head: int, base: float = 10000.0) -> None:
        super().__init__()
        frequency = base ** (-torch.arange(0, d_head, 2) / d_head)  # (d_head / 2,)
        self.register_buffer("inverse_frequency", frequency, persistent=False)

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the angles of `length` positions, (length, d_head / 2) each."""
        positions = torch.arange(length, device=self.inverse_frequency.device, dtype=torch.float32)
        angles = positions.unsqueeze(1) * self.inverse_frequency
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x (B, H, T, d_head) rotated by angles (T, d_head / 2): pairs of channels are points in a plane."""
    first, second = x.chunk(2, dim=-1)
    cosines, sines = cosines.to(x.dtype), sines.to(x.dtype)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)
