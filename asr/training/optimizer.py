"""The optimizer of a configuration, and its state in files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.errors import AsrError
from asr.training.distributed import Ranks
from asr.training.muon import MuonAndAdamW
from asr.training.settings import OptimConfig

_MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")


def build_optimizer(network: nn.Module, config: OptimConfig, ranks: Ranks) -> torch.optim.Optimizer:
    """The optimizer of all weights that are trained. Biases, norms and other vectors have no weight decay.

    `adamw` is AdamW (Loshchilov and Hutter 2019). `muon` is Muon for the matrices of the blocks and AdamW for
    all other weights. Raises AsrError when no matrix for Muon is trained.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    matrices = block_matrices(network) if config.optimizer == "muon" else []
    if config.optimizer == "muon" and not matrices:
        raise AsrError(
            "optim.optimizer muon is for the linear layers of blocks, but none of them is trained; use adamw"
        )
    others = set(trained) - set(matrices)
    rest = [p for p in trained if p in others]
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    return MuonAndAdamW(matrices, config.weight_decay, adamw, ranks) if matrices else adamw


def block_matrices(network: nn.Module) -> list[nn.Parameter]:
    """The trained weights of the linear layers in blocks. Layers that read or write tokens are not in blocks.

    A layer with an adapter is left out, because its weight is computed.
    """
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    linear = {m: None for blocks in lists for m in blocks.modules() if isinstance(m, nn.Linear)}
    return [m.weight for m in linear if isinstance(m.weight, nn.Parameter) and m.weight.requires_grad]


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
        raise AsrError(
            f"the checkpoint has no optimizer state of {missing[0]}; start a new run with train.init"
        )
