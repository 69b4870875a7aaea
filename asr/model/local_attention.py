"""Local attention: a state attends to the states in a window around it (Beltagy et al. 2020, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.model.kernels import attention

MIN_BLOCK = 32  # queries that are computed together; smaller blocks gain nothing
# What is added to scores (B, H, T, S), from queries (B, H, T, d_head), the number of keys S, and the index of
# the first query among the keys.
Bias = Callable[[Tensor, int, int], Tensor]


def local_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    window: int,
    dropout: float,
    bias: Bias | None = None,
) -> Tensor:
    """Attention to `window` states on each side: queries, keys, values (B, H, S, d_head) -> the same shape.

    `mask` (B, 1, 1, S) is true where a state is valid. Long sequences are computed in blocks of queries, each
    with the keys in its window. So time and memory grow with S and not with its square.
    """
    size = queries.size(2)
    block = max(window, MIN_BLOCK)
    reach = block + 2 * window
    if size <= reach:
        return attention(queries, keys, values, dense_mask(queries, size, mask, window, bias), False, dropout)
    valid = _valid(queries, size, mask)  # (B, S)
    count = (size + block - 1) // block
    rest = count * block - size
    queries = pad(queries, (0, 0, 0, rest)).unflatten(2, (count, block))  # (B, H, C, block, d_head)
    queries = queries.transpose(1, 2).flatten(0, 1)  # (B * C, H, block, d_head)
    keys, values = (
        pad(each, (0, 0, window, window + rest)).unfold(2, reach, block).permute(0, 2, 1, 4, 3).flatten(0, 1)
        for each in (keys, values)
    )  # (B * C, H, reach, d_head)
    valid = pad(valid, (window, window + rest)).unfold(1, reach, block)  # (B, C, reach)
    valid = valid.expand(len(queries) // count, -1, -1).flatten(0, 1)  # (B * C, reach)
    allowed = _in_window(block, reach, window, window, valid)
    if bias is not None:
        allowed = _with_bias(bias(queries, reach, window), allowed)
    sums = attention(queries, keys, values, allowed, False, dropout)  # (B * C, H, block, d_head)
    return sums.unflatten(0, (-1, count)).transpose(1, 2).flatten(2, 3)[:, :, :size]


def dense_mask(
    queries: Tensor, size: int, mask: Tensor | None, window: int | None, bias: Bias | None
) -> Tensor | None:
    """The mask of attention that is not computed in blocks, from that of valid keys, a window and a bias.

    It is true where one of `size` keys may be seen, or, with a bias, it is added to the scores.
    """
    if window is not None:
        mask = _in_window(size, size, 0, window, _valid(queries, size, mask))
    return mask if bias is None else _with_bias(bias(queries, size, 0), mask)


def _valid(queries: Tensor, size: int, mask: Tensor | None) -> Tensor:
    """True where a key is valid: (B, S), or (1, S) without a mask."""
    return queries.new_ones(1, size, dtype=torch.bool) if mask is None else mask[:, 0, 0]


def _with_bias(bias: Tensor, mask: Tensor | None) -> Tensor:
    """A bias of scores (B, H, T, S), with minus infinity where the mask is false."""
    return bias if mask is None else bias.masked_fill(~mask, -torch.inf)


def _in_window(rows: int, columns: int, first: int, window: int, valid: Tensor) -> Tensor:
    """True where a query may see a key: (B, 1, rows, columns). The first query is at key `first`.

    `valid` (B, columns) tells valid keys. Every query sees itself: a softmax over no keys would be undefined.
    """
    row = torch.arange(first, first + rows, device=valid.device).unsqueeze(1)
    distance = (row - torch.arange(columns, device=valid.device)).abs()  # (rows, columns)
    allowed = (distance <= window) & valid.unsqueeze(1) | (distance == 0)
    return allowed.unsqueeze(1)
