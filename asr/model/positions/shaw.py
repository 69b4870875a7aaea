"""Relative positions of Shaw et al. 2018: a learned key for each distance."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from asr.model.blocks import BlockSection
from asr.model.positions.interface import Positions, PositionsSection, Relation
from asr.model.positions.relative import DistanceAttention
from asr.section import Positive


class ShawAttention(DistanceAttention):
    """Every block has a table of keys of distances, which its heads share.

    The paper also has a table for the values, which it found to be unnecessary (section 4.3).
    """

    def __init__(self, config: BlockSection) -> None:
        super().__init__(config)
        assert isinstance(config.positions, ShawPositions.Config)
        self.max_distance = config.positions.max_distance
        # From the distance -max_distance to max_distance.
        self.table = nn.Parameter(torch.empty(2 * self.max_distance + 1, config.d_model // config.n_heads))
        nn.init.xavier_uniform_(self.table)

    def distance_keys(self, relation: Relation | None, highest: int, count: int) -> Tensor:
        """Keys of `count` distances from `highest` down: (1, count, d_head)."""
        distances = highest - torch.arange(count, device=self.table.device)
        limit = self.max_distance
        return self.table[distances.clamp(-limit, limit) + limit].unsqueeze(0)


class ShawPositions(Positions):
    """Attention sees the distance between two states. All distances above the largest one count as the
    largest."""

    class Config(PositionsSection):
        """A learned key for each distance between states; for encoders."""

        kind: Literal["shaw"] = "shaw"
        max_distance: Positive = Field(
            64, description="largest distance in states; larger distances are treated as this one"
        )

    attention = ShawAttention
