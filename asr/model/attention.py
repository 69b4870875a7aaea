"""Scaled dot-product attention over several heads (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from asr.model.kernels import Linear, attention
from asr.model.positions import rotate


class MultiHeadAttention(nn.Module):
    """Multi-head attention whose keys and values can be computed once and kept.

    `forward` is self-attention. Its two halves are `project` and `attend`. Cross-attention and step-by-step
    decoding call them separately: keys and values go into a cache, and only the query is new.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.query = Linear(d_model, d_model)
        self.key_value = Linear(d_model, 2 * d_model)
        self.out = Linear(d_model, d_model)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        angles: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Self-attention of x (B, T, d_model). `mask` (B, 1, 1, T) is true where a key may be seen.

        `angles` are those of `RotaryPositions`, if the model has them.
        """
        keys, values = self.project(x)
        queries = self._split(self.query(x))
        if angles is not None:
            queries, keys = rotate(queries, *angles), rotate(keys, *angles)
        return self._combine(queries, keys, values, mask, causal)

    def project(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a source (B, S, d_model), each (B, n_heads, S, d_head)."""
        keys, values = self.key_value(source).chunk(2, dim=-1)  # (B, S, d_model) each
        return self._split(keys), self._split(values)

    def attend(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """The weighted sums of values (B, n_heads, S, d_head) for the queries of x (B, T, d_model)."""
        return self._combine(self._split(self.query(x)), keys, values, mask, causal)

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """The weights of the values in `attend` for x (B, T, d_model): (B, n_heads, T, S), float32.

        Rows sum to one. The fused kernels do not return the weights, so plots compute them here.
        """
        queries = self._split(self.query(x)).float()  # (B, n_heads, T, d_head)
        similarity = queries @ keys.float().transpose(-2, -1) / math.sqrt(queries.size(-1))
        if mask is not None:
            similarity = similarity.masked_fill(~mask, -math.inf)
        return similarity.softmax(-1)

    def _combine(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        sums = attention(queries, keys, values, mask, causal, dropout)
        return self.out(sums.transpose(1, 2).flatten(2))  # (B, n_heads, T, d_head) -> (B, T, d_model)

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, d_model) -> (B, n_heads, T, d_head)."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
