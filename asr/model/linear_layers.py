"""Linear layers of a network, replaced by others that compute faster or with other numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from asr.model import kernels
from asr.model.decoders.transformer import TransformerDecoder

ROWS = 8  # of the products for which oneDNN orders the weights; others are correct too
SMALL = 2**17  # weights below which MKL is faster for products of fewer than FEW rows
FEW = 4


def replace_linear_layers(network: nn.Module, kind: Callable[[Tensor, Tensor | None], nn.Module]) -> None:
    """Replace each linear layer by one of another kind, which is made of its weight and bias.

    An output matrix that a Transformer decoder shares with its embedding is replaced too: it becomes a
    layer of its own. The output matrix of a mask-predict decoder is not replaced.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear | Float32Linear) and type(child) is not kind:
                setattr(module, name, kind(child.weight, child.bias))
        if isinstance(module, TransformerDecoder) and module.out is None:
            module.out = kind(module.embed.weight, None)  # type: ignore[assignment]


def to_float32_linear(network: nn.Module) -> None:
    """Replace the linear layers of a float32 network on a CPU, in place, if oneDNN is faster than MKL.

    This is the case on AMD processors with AVX-512 (`kernels.ONEDNN`). Elsewhere the layers stay.
    """
    parameter = next(network.parameters())
    if kernels.ONEDNN and parameter.device.type == "cpu" and parameter.dtype == torch.float32:
        replace_linear_layers(network, Float32Linear)


class PackedLinear(nn.Module):
    """A linear layer without gradients, whose weights are packed for the kernels of a processor."""

    def __deepcopy__(self, memo: dict[int, object]) -> PackedLinear:
        return self  # it never changes, and torch cannot copy packed weights


class Float32Linear(PackedLinear):
    """A linear layer whose weights are ordered once. It has no gradients.

    The product of a matrix of 5 rows, as in a step of a beam search, then takes a third to a half of the
    time. For one row and many outputs, as of a vocabulary, MKL is faster with weights that are stored column
    by column, so there is a second copy of those.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach()
        self.bias = None if bias is None else bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        self._plain: Tensor | None = None  # for MKL
        self._rows = 1  # with fewer rows than these MKL computes the product
        if weight.numel() < SMALL:
            self._plain, self._rows = weight, FEW
        elif len(weight) >= kernels.OUTPUTS:
            self._plain, self._rows = weight.t().contiguous().t(), 2

    @property
    def weight(self) -> Tensor:
        """The weights in the usual order (d_out, d_in), for a layer of another kind."""
        return self._packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) -> (..., d_out)."""
        rows = x.reshape(-1, x.size(-1)).contiguous()
        if self._plain is not None and len(rows) < self._rows:
            y = nn.functional.linear(rows, self._plain, self.bias)
        else:
            y = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self.bias, "none", [], "")
        return y.unflatten(0, x.shape[:-1])
