"""Learned positions (Gehring et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from asr.errors import AsrError
from asr.model.positions.absolute import AbsolutePositions
from asr.model.positions.interface import PositionsSection
from asr.section import Positive

if TYPE_CHECKING:
    from asr.model.blocks import BlockSection


class LearnedPositions(AbsolutePositions):
    """Adds a learned row for each position, up to a fixed number of positions."""

    class Config(PositionsSection):
        """Learned rows that are added to the states."""

        kind: Literal["learned"] = "learned"
        max_length: Positive = Field(
            1024, description="number of positions; longer recordings or texts are refused"
        )

    def __init__(self, settings: LearnedPositions.Config, stack: BlockSection) -> None:
        super().__init__(settings, stack)
        self.max_length = settings.max_length
        self.table = nn.Parameter(torch.empty(settings.max_length, stack.d_model))
        nn.init.normal_(self.table, std=stack.d_model**-0.5)

    def rows(self, end: int) -> Tensor:
        """The table (max_length, d_model). Raises AsrError when it has fewer than `end` positions."""
        if end > self.table.size(0):
            raise AsrError(
                f"a recording or a text needs {end} positions, but this model has {self.table.size(0)}; "
                "shorten it, or train a model with a larger positions.max_length"
            )
        return self.table
