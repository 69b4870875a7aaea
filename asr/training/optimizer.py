"""AdamW, and its state in files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.errors import AsrError
from asr.training.settings import OptimConfig

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def build_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019). Biases, norms and other vectors have no weight decay."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def moments_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state of every weight, named NAME/exp_avg and so on."""
    return {
        f"{name}/{key}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_moments(network: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back the tensors of `moments_of`, and forget the present state.

    Raises AsrError when some weights have moments and others have none.
    """
    optimizer.state.clear()
    missing = []
    for name, parameter in network.named_parameters():
        state = {key: tensors[f"{name}/{key}"] for key in _MOMENTS if f"{name}/{key}" in tensors}
        if state:  # fused AdamW keeps its step count on the device of the weight
            optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}
        elif parameter.requires_grad:
            missing.append(name)
    if missing and optimizer.state:
        raise AsrError(f"no moments of {missing[0]} are stored; start again with train.init")
