"""Linear layers with weights of 8 bits, for processors: a quarter of the memory, and faster products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.errors import AsrError
from asr.model.decoders.transformer import TransformerDecoder


class Int8Linear(nn.Module):
    """A linear layer with weights of 8 bits, one scale for each output, by torch's kernel for processors.

    The kernel rounds the inputs to 7 bits over the range of a whole matrix. Here every row is first scaled to
    the range from -1 to 1, so a row does not depend on the rows beside it, and padding changes no text.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else bias.detach()
        scales = weight.detach().abs().amax(1).clamp_min(1e-12).double() / 127
        zeros = torch.zeros_like(scales, dtype=torch.long)
        rounded = torch.quantize_per_channel(weight.detach(), scales, zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(rounded, None)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) -> (..., d_out)."""
        rows = x.flatten(0, -2)
        scales = rows.abs().amax(1, keepdim=True).clamp_min(1e-12)  # (rows, 1)
        scaled = rows.new_zeros(len(rows) + 1, rows.size(1))
        torch.div(rows, scales, out=scaled[:-1])
        scaled[-1, 0], scaled[-1, -1] = 1.0, -1.0  # a row that gives the matrix its full range
        y = torch.ops.quantized.linear_dynamic(scaled, self._packed, True)[:-1] * scales
        y = y if self.bias is None else y + self.bias
        return y.unflatten(0, x.shape[:-1])


def to_int8(network: nn.Module) -> None:
    """Replace the linear layers of a network, in place. Raises AsrError where torch has no such kernel."""
    if not torch.backends.quantized.supported_engines or next(network.parameters()).device.type != "cpu":
        raise AsrError("precision int8: is for processors alone; use --device cpu, or bf16 on a GPU")
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child.weight, child.bias))
        if isinstance(module, TransformerDecoder) and module.out is None:
            module.out = Int8Linear(module.embed.weight, None)  # type: ignore[assignment]
