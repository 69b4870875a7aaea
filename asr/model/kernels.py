"""Matrix products and attention by the fastest library on a processor. Results differ by rounding only."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout, scaled_dot_product_attention

# torch computes float32 products on a CPU with MKL, which uses half the width of an AMD processor's vector
# units. oneDNN uses the full width, and can be called directly.
_CPU: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.12
_HALF_WIDTH = bool(_CPU.get("avx512_f")) and "AMD" in str(_CPU.get("cpu_name"))
ONEDNN = (
    _HALF_WIDTH
    and torch.backends.mkldnn.is_available()
    and all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
)
ROWS = 64  # with fewer rows MKL is faster ...
OUTPUTS = 8192  # ... unless there are so many outputs, as of a large vocabulary


class Linear(nn.Linear):
    """A linear layer. On an AMD processor oneDNN computes its float32 products with many rows."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) -> (..., d_out)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., d_in), weight (d_out, d_in), bias (d_out,) -> (..., d_out)."""
    if (
        ONEDNN
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and (x.numel() >= ROWS * x.size(-1) or (len(weight) >= OUTPUTS and x.numel()))
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    ):
        # A matrix, because a product of more dimensions would be a view, which cannot be changed in place.
        matrix = x.reshape(-1, x.size(-1)).contiguous()
        return _OneDnnLinear.apply(matrix, weight, bias).unflatten(0, x.shape[:-1])
    return torch.nn.functional.linear(x, weight, bias)


class _OneDnnLinear(torch.autograd.Function):
    """x (rows, d_in) -> (rows, d_out). torch offers oneDNN's product but not its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()  # a product of an expanded tensor takes a hundred times as long
        of_x = _product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:  # the product is faster with the longer side first
            wide = weight.size(0) >= weight.size(1)
            of_weight = _product(x.t(), gradient.t()).t() if wide else _product(gradient.t(), x.t())
        return of_x, of_weight, gradient.sum(0) if ctx.needs_input_grad[2] else None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def attention(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool, dropout_p: float
) -> Tensor:
    """Scaled dot-product attention: queries (B, H, T, d), keys and values (B, H, S, d) -> (B, H, T, d).

    `mask` broadcasts to (B, H, T, S). It is true where a key may be seen, or it is added to the scores. This
    is torch's fused kernel, except for bfloat16 on a CPU, where the kernel takes up to four times as long as
    separate operations.
    """
    if queries.dtype != torch.bfloat16 or queries.device.type != "cpu":
        return scaled_dot_product_attention(queries, keys, values, mask, dropout_p, causal)
    batch, heads, rows, d_head = queries.shape
    if causal:
        mask = torch.ones(1, 1, rows, keys.size(2), dtype=torch.bool).tril()
    elif mask is None:
        mask = torch.ones(1, 1, 1, keys.size(2), dtype=torch.bool)
    if mask.dtype == torch.bool:
        lowest = torch.finfo(torch.bfloat16).min
        mask = torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill_(~mask, lowest)
    bias = mask.to(torch.bfloat16).expand(batch, heads, -1, -1).flatten(0, 1)  # (B * H, T or 1, S)
    q, k, v = (each.flatten(0, 1) for each in (queries * d_head**-0.5, keys, values))  # (B * H, T or S, d)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2))  # (B * H, T, S)
    weights = dropout(scores.softmax(-1), dropout_p)
    return torch.bmm(weights, v).unflatten(0, (batch, heads))


def attention_weights(queries: Tensor, keys: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """The weights with which `attention` sums the values: (B, H, T, S), float32. Rows sum to one.

    The fused kernels do not return them, so they are computed here where they are to be shown. `mask` is true
    where a key may be seen, or is added to the scores.
    """
    scores = queries.float() @ keys.float().transpose(-2, -1) / math.sqrt(queries.size(-1))
    if causal:
        rows, columns = scores.shape[-2:]
        mask = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return scores.softmax(-1)
    if mask.dtype != torch.bool:
        mask, scores = mask > -math.inf, scores + mask
    return scores.masked_fill(~mask, -math.inf).softmax(-1).masked_fill(~mask, 0.0)
