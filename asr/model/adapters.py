"""Low-rank adapters: small trained matrices beside weights that are not trained (Hu et al. 2021, "LoRA")."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatch

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_ORIGINAL, _UPDATE = ".parametrizations.weight.original", ".parametrizations.weight.0."


class LowRankUpdate(nn.Module):
    """A weight plus `alpha` / `rank` times the product of two matrices. At first the product is zero."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(weight.new_empty(rank, weight.size(1)))
        self.up = nn.Parameter(weight.new_zeros(weight.size(0), rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """weight (d_out, d_in) -> the same shape."""
        return weight + self.scale * (self.up @ self.down)


def add_adapters(network: nn.Module, patterns: tuple[str, ...], rank: int, alpha: float) -> list[str]:
    """Give the linear layers whose names match a pattern an adapter. Returns their names.

    Their weights then have other names (`merged_state` gives back the usual ones). Raises LookupError for a
    pattern that matches no linear layer.
    """
    linear = {name: each for name, each in network.named_modules() if isinstance(each, nn.Linear)}
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in linear):
            raise LookupError(pattern)
    chosen = [name for name in linear if any(fnmatch(name, pattern) for pattern in patterns)]
    for name in chosen:
        update = LowRankUpdate(linear[name].weight, rank, alpha)
        parametrize.register_parametrization(linear[name], "weight", update)
    return chosen


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return _UPDATE in name


@torch.no_grad()
def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module under its usual names, each adapter merged into its weight."""
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        if name.endswith(_ORIGINAL):
            plain = name.removesuffix(_ORIGINAL)
            linear = module.get_submodule(plain)
            assert isinstance(linear, nn.Linear), "only linear layers have adapters"
            state[f"{plain}.weight"] = linear.weight.detach()
        elif not is_adapter(name):
            state[name] = tensor
    return state


def load_merged_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state that has the usual names. The adapters of the module become zero.

    Raises RuntimeError as `load_state_dict` does.
    """
    own = module.state_dict()
    renamed = {name.removesuffix(_ORIGINAL) + ".weight": name for name in own if name.endswith(_ORIGINAL)}
    adapters = {
        name: torch.zeros_like(tensor) if name.endswith(".up") else tensor
        for name, tensor in own.items()
        if is_adapter(name)
    }
    module.load_state_dict({renamed.get(name, name): tensor for name, tensor in state.items()} | adapters)
