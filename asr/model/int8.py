"""Linear layers with weights of 8 bits, for processors: a quarter of the memory, and faster products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.errors import AsrError
from asr.model.linear_layers import PackedLinear, replace_linear_layers


class Int8Linear(PackedLinear):
    """A linear layer with weights of 8 bits, one scale for each output, by torch's kernel for processors.

    The kernel rounds the inputs to 7 bits over the range of a whole matrix. Here every row is first scaled to
    the range from -1 to 1, so a row does not depend on the rows beside it. But sums of float32 before this
    layer differ by about 1e-7 with the shape of a batch, and such a difference can change a rounding.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else bias.detach()
        scales = weight.detach().abs().amax(1).clamp_min(1e-12).double() / 127
        zeros = torch.zeros_like(scales, dtype=torch.long)
        rounded = torch.quantize_per_channel(weight.detach(), scales, zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(rounded, None)
        self._extremes = torch.zeros(weight.size(1))  # a row that gives a matrix its full range
        self._extremes[0], self._extremes[-1] = 1.0, -1.0

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) -> (..., d_out)."""
        rows = x.flatten(0, -2)
        scales = torch.linalg.vector_norm(rows, torch.inf, 1, keepdim=True).clamp_min_(1e-12)  # (rows, 1)
        scaled = rows.new_empty(len(rows) + 1, rows.size(1))
        torch.div(rows, scales, out=scaled[:-1])
        scaled[-1] = self._extremes
        y = torch.ops.quantized.linear_dynamic(scaled, self._packed, True)[:-1]
        y = y * scales if self.bias is None else torch.addcmul(self.bias, y, scales)
        return y.unflatten(0, x.shape[:-1])


def to_int8(network: nn.Module) -> None:
    """Replace the linear layers of a network, in place. Raises AsrError where torch has no such kernel."""
    if not torch.backends.quantized.supported_engines or next(network.parameters()).device.type != "cpu":
        raise AsrError("precision int8 works only on a CPU; use --device cpu, or bf16 on a GPU")
    replace_linear_layers(network, Int8Linear)
