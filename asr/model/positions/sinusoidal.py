"""Sinusoidal positions (Vaswani et al. 2017, section 3.5)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from asr.model.positions.absolute import AbsolutePositions
from asr.model.positions.interface import PositionsSection

if TYPE_CHECKING:
    from asr.model.blocks import BlockSection


class SinusoidalPositions(AbsolutePositions):
    """Adds sinusoids of geometrically spaced wavelengths. Positions have no upper limit."""

    class Config(PositionsSection):
        """Sinusoids that are added to the states."""

        kind: Literal["sinusoidal"] = "sinusoidal"
        layout: Literal["interleaved", "concatenated"] = Field(
            "interleaved",
            description="interleaved: sine and cosine in turn, as in the paper of 2017; concatenated: all "
            "sines, then all cosines, as in Whisper and Speech2Text",
        )
        offset: int = Field(0, ge=0, description="number of the first position; Speech2Text begins at 2")

    table: Tensor

    def __init__(self, settings: SinusoidalPositions.Config, stack: BlockSection, size: int = 1024) -> None:
        super().__init__(settings, stack)
        self.layout, self.offset = settings.layout, settings.offset
        self.d_model = stack.d_model
        self.register_buffer("table", self._sinusoids(size), persistent=False)

    def rows(self, end: int) -> Tensor:
        """The sinusoids of `end` positions or more: (>= end, d_model)."""
        if end > self.table.size(0):
            self.table = self._sinusoids(2 * end).to(self.table)
        return self.table

    def _sinusoids(self, size: int) -> Tensor:
        positions = torch.arange(self.offset, self.offset + size)
        return sinusoids(positions, self.d_model, self.layout)


def sinusoids(positions: Tensor, d_model: int, layout: str = "interleaved") -> Tensor:
    """Positions (T,) to their sines and cosines (T, d_model), float32. d_model is even.

    The paper divides the exponents by d_model / 2. The concatenated layout comes from tensor2tensor, which
    divides them by d_model / 2 - 1. Its longest wavelength is exactly 10000 * 2 pi.
    """
    half = d_model // 2
    steps = half if layout == "interleaved" else max(half - 1, 1)
    exponents = torch.arange(half, device=positions.device) * (-math.log(10000.0) / steps)
    angle = positions.unsqueeze(1) * exponents.exp()  # (T, d_model / 2)
    if layout == "concatenated":
        return torch.cat((angle.sin(), angle.cos()), dim=1)
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1)
