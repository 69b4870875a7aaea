"""Scaled dot-product attention over several heads (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from asr.kinds import POSITIONS
from asr.model.blocks import BlockSection, EncoderSection
from asr.model.kernels import Linear, attention, attention_weights
from asr.model.local_attention import Bias, dense_mask, local_attention
from asr.model.positions.interface import Positions, Relation
from asr.model.positions.rotary import rotate
from asr.section import load_kind


class MultiHeadAttention(nn.Module):
    """Multi-head attention whose keys and values can be computed once and kept.

    `forward` is self-attention. Its two halves are `project` and `attend`. Cross-attention and step-by-step
    decoding call them separately: keys and values go into a cache, and only the query is new.

    `relation` is what the positions of the states give to the attention: the cosines and sines of
    `RotaryPositions`, or None.
    """

    window: int | None = None  # states on each side that self-attention sees; None: all

    def __init__(self, config: BlockSection) -> None:
        super().__init__()
        d_model = config.d_model
        self.n_heads = config.n_heads
        self.dropout = config.attention_dropout
        self.record: Callable[[Tensor], None] | None = None  # set by `recorded_weights`
        self.query = Linear(d_model, d_model)
        self.key_value = Linear(d_model, 2 * d_model, bias=config.key_bias)
        self.value_bias = None if config.key_bias else nn.Parameter(torch.zeros(d_model))
        self.out = Linear(d_model, d_model)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        relation: Relation | None = None,
    ) -> Tensor:
        """Self-attention of x (B, T, d_model). `mask` (B, 1, 1, T) is true where a key may be seen."""
        keys, values = self.project(x, relation)
        return self.attend(x, keys, values, mask, causal, relation)

    def project(self, source: Tensor, relation: Relation | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of a source (B, S, d_model), each (B, n_heads, S, d_head)."""
        keys, values = self.key_value(source).chunk(2, dim=-1)
        if self.value_bias is not None:
            values = values + self.value_bias
        keys, values = self._split(keys), self._split(values)
        return (keys if relation is None else rotate(keys, *relation)), values

    def attend(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        relation: Relation | None = None,
    ) -> Tensor:
        """The weighted sums of values (B, n_heads, S, d_head) for the queries of x (B, T, d_model)."""
        queries = self._split(self.query(x))  # (B, n_heads, T, d_head)
        if relation is not None:
            queries = rotate(queries, *relation)
        return self._mix(queries, keys, values, mask, causal)

    def _mix(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        causal: bool = False,
        bias: Bias | None = None,
    ) -> Tensor:
        """Queries (B, n_heads, T, d_head) -> (B, T, d_model). `bias` computes what is added to the scores."""
        dropout = self.dropout if self.training else 0.0
        if self.window is not None and self.record is None:
            sums = local_attention(queries, keys, values, mask, self.window, dropout, bias)
        else:
            mask = dense_mask(queries, keys.size(2), mask, self.window, bias)
            if self.record is not None:
                self.record(attention_weights(queries, keys, mask, causal))
            sums = attention(queries, keys, values, mask, causal, dropout)
        return self.out(sums.transpose(1, 2).flatten(2))  # (B, n_heads, T, d_head) -> (B, T, d_model)

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """The weights of the values in `attend` for x (B, T, d_model): (B, n_heads, T, S), float32.

        Rows sum to one.
        """
        return attention_weights(self._split(self.query(x)), keys, mask, causal=False)

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, d_model) -> (B, n_heads, T, d_head)."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


def self_attention(config: BlockSection) -> MultiHeadAttention:
    """The self-attention of a block, of the class that its kind of positions needs."""
    kind: type[Positions] = load_kind(POSITIONS, config.positions.kind)
    attention_class = kind.attention or MultiHeadAttention
    layer = attention_class(config)
    layer.window = config.window if isinstance(config, EncoderSection) else None
    return layer


@contextmanager
def recorded_weights(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Records the weights of every attention in a module while it works, by its name, in the order of use.

    The weights (B, n_heads, T, S), float32, are computed from the queries, keys and mask of the same forward
    pass, with positions. Only one thread may use the module.
    """
    found = {name: each for name, each in module.named_modules() if isinstance(each, MultiHeadAttention)}
    weights: dict[str, Tensor] = {}
    try:
        for name, each in found.items():
            each.record = partial(weights.__setitem__, name)
        yield weights
    finally:
        for each in found.values():
            each.record = None
