"""Several processes that train one model: `torchrun` starts them, torch.distributed joins them.

    torchrun --nproc-per-node 4 cli.py train recipe.yaml --run runs/x

One process alone is the same code with nothing to exchange. Every process computes the same plan and takes
every n-th batch of it; what they must agree on (sums, scores, when to stop) they tell each other, so that no
process ever waits for one that has gone another way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from asr.model_folder import pick_device


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    count: int
    device: torch.device

    def __str__(self) -> str:
        return str(self.device) if self.count == 1 else f"{self.count} processes, each on {self.device.type}"

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def wrap(self, module: nn.Module, unused: bool) -> nn.Module:
        """The module with gradients averaged over all processes; `unused`: some weights may get none."""
        if self.count == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=unused, broadcast_buffers=False)

    def without_exchange(self, module: nn.Module) -> AbstractContextManager[None]:
        """While a wrapped module's gradients only pile up, because more batches of the step follow."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def total(self, *values: float) -> list[float]:
        """Each value summed over all processes."""
        if self.count == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def gather(self, value: Any) -> list[Any]:
        """What every process gives, in the order of their ranks; the value must be picklable."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def copy_from_main(self, module: nn.Module) -> None:
        """Every process gets the main one's weights and buffers."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)


@contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, one per GPU; without torchrun this process is alone.

    Raises AsrError for a device that is not here.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(0, 1, pick_device(device))
        return
    target = pick_device(device)
    if target.type == "cuda" and target.index is None:
        target = pick_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    if target.type == "cuda":
        torch.cuda.set_device(target)
    dist.init_process_group("nccl" if target.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), count, target)
    finally:
        dist.destroy_process_group()
