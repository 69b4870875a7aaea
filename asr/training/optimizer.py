"""What every trainer here shares: AdamW, its state in files, and the precision of products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.config import OptimConfig


def build_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; biases, norms and other vectors are not decayed, frozen weights not touched."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def moments_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every weight, as `NAME/exp_avg` and so on, to be stored."""
    return {
        f"{name}/{key}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_moments(network: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `moments_of` gave. Fused AdamW has its count of steps, too, beside the weight."""
    for name, parameter in network.named_parameters():
        state = {
            key: tensors[f"{name}/{key}"].to(parameter.device)
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"{name}/{key}" in tensors
        }
        if state:
            optimizer.state[parameter] = state


def use_bf16(precision: str, device: torch.device, wide: bool) -> bool:
    """Whether autocast to bfloat16 is on: asked for, or "auto" and faster here.

    On a CPU that is one with bfloat16 instructions, and a model `wide` enough to make up for the casts.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.12
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return device.type == "cpu" and bool(fast) and wide
