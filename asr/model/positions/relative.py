"""Relative positions of Transformer-XL (Dai et al. 2019, section 3.3), which the Conformer uses."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from asr.model.attention import MultiHeadAttention
from asr.model.blocks import BlockSection
from asr.model.kernels import Linear
from asr.model.positions.interface import Positions, PositionsSection, Relation
from asr.model.positions.sinusoidal import sinusoids


class DistanceAttention(MultiHeadAttention):
    """Self-attention in which every distance between a query and a key has a key of its own.

    The score of a query and a key is the sum of two products: with the key, and with that of their distance.
    Subclasses define the keys of distances, and can add vectors to the queries of both products.
    """

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        relation: Relation | None = None,
    ) -> Tensor:
        """Self-attention of x (B, T, d_model). `mask` (B, 1, 1, T) is true where a key may be seen."""
        assert not causal, "relative positions are for encoders"
        keys, values = self.project(x)
        queries = self.content_queries(self._split(self.query(x)))
        return self._mix(queries, keys, values, mask, bias=partial(self._distance_scores, relation))

    def content_queries(self, queries: Tensor) -> Tensor:
        """Queries (B, H, T, d_head) for the product with keys."""
        return queries

    def distance_queries(self, queries: Tensor) -> Tensor:
        """The result of `content_queries` -> queries for the product with keys of distances."""
        return queries

    def distance_keys(self, relation: Relation | None, highest: int, count: int) -> Tensor:
        """Keys of `count` distances from `highest` down: (H or 1, count, d_head).

        The distance of query i and key j is i - j: positive for keys before the query.
        """
        raise NotImplementedError

    def _distance_scores(self, relation: Relation | None, queries: Tensor, size: int, first: int) -> Tensor:
        """queries (B, H, T, d_head), the first at key `first` of `size` keys -> scores (B, H, T, size)."""
        rows = queries.size(2)
        keys = self.distance_keys(relation, first + rows - 1, rows + size - 1).to(queries.dtype)
        scaled = self.distance_queries(queries) / math.sqrt(queries.size(3))
        return align(scaled @ keys.transpose(1, 2), size)  # (B, H, T, T + size - 1) -> (B, H, T, size)


def align(scores: Tensor, size: int) -> Tensor:
    """Scores by distance (B, H, T, T + S - 1) to scores by key (B, H, T, S).

    The scores of row i begin in column T - 1 - i. So in the flat rows each begins one less than a row's width
    after the one before (Dai et al. 2019, appendix B, without the copy).
    """
    rows, width = scores.shape[2:]
    if rows == 1:
        return scores
    flat = scores.flatten(2)[:, :, rows - 1 : -1]  # (B, H, T * (width - 1))
    return flat.unflatten(2, (rows, width - 1))[..., :size]


class RelativeAttention(DistanceAttention):
    """The keys of distances are a projection of sinusoids.

    Two learned vectors for each head are added to the queries, one for each product (u and v in the paper).
    """

    def __init__(self, config: BlockSection) -> None:
        super().__init__(config)
        d_head = config.d_model // config.n_heads
        self.distance = Linear(config.d_model, config.d_model, bias=False)
        self.content_bias = nn.Parameter(torch.empty(config.n_heads, d_head))
        self.distance_bias = nn.Parameter(torch.empty(config.n_heads, d_head))
        nn.init.xavier_uniform_(self.content_bias)
        nn.init.xavier_uniform_(self.distance_bias)

    def content_queries(self, queries: Tensor) -> Tensor:
        """Queries (B, H, T, d_head) plus u."""
        return queries + self.content_bias.unsqueeze(1).to(queries.dtype)

    def distance_queries(self, queries: Tensor) -> Tensor:
        """Queries with u (B, H, T, d_head) to queries with v."""
        return queries + (self.distance_bias - self.content_bias).unsqueeze(1).to(queries.dtype)

    def distance_keys(self, relation: Relation | None, highest: int, count: int) -> Tensor:
        """Keys of `count` distances from `highest` down: (H, count, d_head)."""
        assert relation is not None
        (table,) = relation  # distance 0 is in the middle
        first = len(table) // 2 - highest
        return self.distance(table[first : first + count]).unflatten(1, (self.n_heads, -1)).transpose(0, 1)


class RelativePositions(Positions):
    """Attention sees the distance between two states, as sinusoids. Distances have no upper limit."""

    class Config(PositionsSection):
        """Sinusoids of distances between states, as in Transformer-XL and the Conformer; for encoders."""

        kind: Literal["relative"] = "relative"

    attention = RelativeAttention

    def __init__(self, settings: RelativePositions.Config, stack: BlockSection) -> None:
        super().__init__(settings, stack)
        self.d_model = stack.d_model

    def relation(self, positions: Tensor) -> Relation:
        """Sinusoids of the distances T - 1 to -(T - 1), for T consecutive positions: (2 * T - 1, d_model)."""
        steps = positions - positions[0]
        return (sinusoids(torch.cat((steps.flip(0), -steps[1:])), self.d_model),)
