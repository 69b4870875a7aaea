"""Replaces the linear layers of a network by layers with another number format."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from asr.model.decoders.transformer import TransformerDecoder


def replace_linear_layers(network: nn.Module, kind: Callable[[Tensor, Tensor | None], nn.Module]) -> None:
    """Replace each linear layer by one of another kind, which is made of its weight and bias.

    An output matrix that a Transformer decoder shares with its embedding is replaced too: it becomes a
    layer of its own. The output matrix of a mask-predict decoder is not replaced.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, kind(child.weight, child.bias))
        if isinstance(module, TransformerDecoder) and module.out is None:
            module.out = kind(module.embed.weight, None)  # type: ignore[assignment]
