"""What a training will cost, before it starts: weights, operations, steps, time and memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Size
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

_aten = torch.ops.aten


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products, convolutions and attention that `work` does.

    A multiplication with its addition counts as two; what is done element by element does not count. The
    backward pass of attention counts as twice its forward pass: that kernels compute scores anew is their
    own choice, and no work that the model asks for.
    """
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        work()
    return counter.get_total_flops()


def _attention(query: Size, key: Size, value: Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(_: Size, query: Size, key: Size, value: Size, *__: object, **___: object) -> int:
    return 2 * sdpa_flop_count(query, key, value)


def _linear(x: Size, weight: Size, *_: object, **__: object) -> int:
    return 2 * x.numel() * weight[0]


# torch counts the kernels of other devices, but not these of the CPU.
_FORMULAS = {
    torch.ops.mkldnn._linear_pointwise: _linear,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    _aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    _aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}
