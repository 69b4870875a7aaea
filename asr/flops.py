"""Floating-point operations of a computation, counted by torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from asr.model import kernels


@contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Counts the operations of matrix products, convolutions, attention and LSTMs, as a total and by module.

    A multiplication with its addition counts as two. Element-wise operations do not count. While counting,
    attention is computed from its matrix products, and linear layers by torch's own operator, because torch
    knows no formula for the fused kernels of a CPU.
    """
    onednn, kernels.ONEDNN = kernels.ONEDNN, False
    formulas = {
        torch.ops.aten.mkldnn_rnn_layer: _lstm,
        torch.ops.aten.mkldnn_rnn_layer_backward: lambda *shapes, **rest: 2 * _lstm(*shapes),
    }
    try:
        with (
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False, custom_mapping=formulas) as counter,
        ):
            yield counter
    finally:
        kernels.ONEDNN = onednn


def count_flops(work: Callable[[], object]) -> int:
    """The operations of `work`, as `flop_counter` counts them."""
    with flop_counter() as counter:
        work()
    return counter.get_total_flops()


def _lstm(x: Any, input_weights: Any, state_weights: Any, *rest: Any, **more: Any) -> int:
    """One layer in one direction, from the shapes of its input (T, B, d) and of its two weights."""
    return 2 * math.prod(x[:-1]) * (math.prod(input_weights) + math.prod(state_weights))
