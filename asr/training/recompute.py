"""Gradient checkpointing: activations inside blocks are computed twice, and not kept (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_blocks(network: nn.Module) -> None:
    """In training, keep only the input of every block or layer that the network has in a list.

    The backward pass computes the rest again, with the same dropout. Gradients are the same. A list inside a
    block is not treated again.
    """
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            for block in child:
                block.forward = _recomputed(block, block.forward)
        else:
            recompute_blocks(child)


def _recomputed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Any, **others: Any) -> Any:
        if block.training and torch.is_grad_enabled():
            return checkpoint(forward, *inputs, use_reentrant=False, **others)
        return forward(*inputs, **others)

    return run
