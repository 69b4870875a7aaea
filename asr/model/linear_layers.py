"""Linear layers of a network in another form: with other numbers, or stored in another order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from asr.model import kernels
from asr.model.decoders.transformer import TransformerDecoder


def replace_linear_layers(network: nn.Module, kind: Callable[[Tensor, Tensor | None], nn.Module]) -> None:
    """Replace each linear layer by one of another kind, which is made of its weight and bias.

    An output matrix that a Transformer decoder shares with its embedding is replaced too: it becomes a
    layer of its own. That of a mask-predict decoder stays as it is.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, kind(child.weight, child.bias))
        if isinstance(module, TransformerDecoder) and module.out is None:
            module.out = kind(module.embed.weight, None)  # type: ignore[assignment]


def store_by_columns(network: nn.Module) -> None:
    """Store large float32 weights on a CPU column by column, where oneDNN computes the products.

    A product of a few rows, as in a step of a decoder, then takes about half the time. With one row and many
    outputs MKL computes it and is twice as fast too. Shapes and values stay.
    """
    if not kernels.ONEDNN:
        return
    for module in network.modules():
        if isinstance(module, kernels.Linear):
            _store_by_columns(module.weight)
        elif isinstance(module, TransformerDecoder) and module.out is None:
            _store_by_columns(module.embed.weight)


def _store_by_columns(weight: Tensor) -> None:
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= kernels.LARGE:
        weight.data = weight.data.t().contiguous().t()
