"""The base of positions that are rows of a table, added to the states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from asr.model.blocks import Dropout
from asr.model.positions.interface import Positions

if TYPE_CHECKING:
    from asr.model.blocks import BlockSection


class AbsolutePositions(Positions):
    """Adds a row of a table to each state, then applies dropout. Kinds define the table."""

    def __init__(self, settings: Any, stack: BlockSection) -> None:
        super().__init__(settings, stack)
        self.dropout = Dropout(stack.dropout)

    def rows(self, end: int) -> Tensor:
        """The table of `end` positions or more: (>= end, d_model)."""
        raise NotImplementedError

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x (B, T, d_model), whose first position is `start` -> the same shape, with positions."""
        end = start + x.size(1)
        return self.dropout(x + self.rows(end)[start:end])

    def at(self, x: Tensor, positions: Tensor, end: int) -> Tensor:
        """The same for states at given positions (B or 1, T), all below `end`. Without dropout."""
        return x + self.rows(end)[positions]
