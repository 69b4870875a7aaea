"""Rotary positions (Su et al. 2021, RoFormer)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from asr.model.positions.interface import Positions, PositionsSection, Relation

if TYPE_CHECKING:
    from asr.model.blocks import BlockSection


class RotaryPositions(Positions):
    """Rotates queries and keys by angles that grow with their position.

    The product of a query and a key then depends on the distance between them only. Positions have no upper
    limit, and padding after a row's end changes nothing.
    """

    class Config(PositionsSection):
        """Rotations of queries and keys by their positions."""

        kind: Literal["rotary"] = "rotary"

    inverse_frequency: Tensor

    def __init__(self, settings: RotaryPositions.Config, stack: BlockSection) -> None:
        super().__init__(settings, stack)
        d_head = stack.d_model // stack.n_heads
        frequency = 10000.0 ** (-torch.arange(0, d_head, 2) / d_head)  # (d_head / 2,)
        self.register_buffer("inverse_frequency", frequency, persistent=False)

    def relation(self, positions: Tensor) -> Relation:
        """Cosines and sines of the angles at positions (T,), (T, d_head / 2) each.

        At positions (B, T), which differ from row to row, they are (B, 1, T, d_head / 2).
        """
        angles = positions.unsqueeze(-1) * self.inverse_frequency  # (..., T, d_head / 2)
        if positions.dim() == 2:
            angles = angles.unsqueeze(1)  # the same for all heads
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x (B, H, T, d_head) rotated by angles (T, d_head / 2): pairs of channels are points in a plane."""
    first, second = x.chunk(2, dim=-1)
    cosines, sines = cosines.to(x.dtype), sines.to(x.dtype)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)
