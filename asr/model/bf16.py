"""Linear layers in bfloat16 for processors, with weights in the order in which oneDNN reads them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.model.linear_layers import PackedLinear, replace_linear_layers

ROWS = 16  # of the products for which the order of the weights is chosen; others are correct too


class Bf16Linear(PackedLinear):
    """A linear layer whose weights are rounded and ordered once. Autocast rounds them in every product."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._bias = None if bias is None else bias.detach().bfloat16()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16(), ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) -> (..., d_out), bfloat16."""
        rows = x.bfloat16().flatten(0, -2)
        y = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return y.unflatten(0, x.shape[:-1])


def to_bf16(network: nn.Module) -> None:
    """Replace the linear layers of a network on a CPU, in place, where oneDNN computes in bfloat16.

    Elsewhere they stay as they are, and autocast computes them.
    """
    if is_supported():
        replace_linear_layers(network, Bf16Linear)


def is_supported() -> bool:
    """Whether this torch has oneDNN's operations and the processor their instructions (AVX-512)."""
    operations = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, o) for o in operations):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
