"""Several processes that train one model: `torchrun` starts them, torch.distributed connects them.

    torchrun --nproc-per-node 4 cli.py train recipe.yaml --run-dir runs/x

One process alone runs the same code and exchanges nothing. Every process computes the same plan and takes
every n-th batch of it. The processes share sums, scores and the decision to stop, so all of them take the
same path and none waits for another forever.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from asr.errors import AsrError
from asr.model_folder import pick_device

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One process of a training, and its exchange with the other processes."""

    rank: int
    count: int
    device: torch.device

    def __str__(self) -> str:
        return str(self.device) if self.count == 1 else f"{self.count} processes, each on {self.device.type}"

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over all processes."""
        return module if self.count == 1 else DistributedDataParallel(module, broadcast_buffers=False)

    def without_exchange(self, module: nn.Module) -> AbstractContextManager[None]:
        """A wrapped module's gradients are only added up, because more batches of the step follow."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def total(self, *values: float) -> list[float]:
        """Each value summed over all processes."""
        if self.count == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in the order of their ranks. They must be picklable."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def decide(self, function: Callable[[], T]) -> T:
        """The result of the function in the main process. Its AsrError ends the other processes silently."""
        if self.count == 1:
            return function()
        result: list[Any] = [None, None]
        if self.main:
            try:
                result[0] = function()
            except AsrError as error:
                result[1] = str(error)
        dist.broadcast_object_list(result, 0)
        if result[1] is not None:
            raise AsrError(result[1]) if self.main else SystemExit(1)
        return result[0]

    def complete(self, tensors: Sequence[Tensor]) -> None:
        """Receive the tensors that other processes have computed. The process i % count computes tensor i."""
        for rank in range(self.count if self.count > 1 else 0):
            own = tensors[rank :: self.count]
            if own:
                flat = torch.cat([tensor.flatten() for tensor in own])
                dist.broadcast(flat, rank)
                for tensor, part in zip(own, flat.split([t.numel() for t in own]), strict=True):
                    tensor.copy_(part.view_as(tensor))

    def copy_from_main(self, module: nn.Module) -> None:
        """Copy weights and buffers of the main process to all others."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)


@contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, one per GPU. Without torchrun this process is alone.

    Raises AsrError for a device that cannot be used, and when another process ends too early.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    target = pick_device(device)
    if count == 1:
        yield Ranks(0, 1, target)
        return
    if target.type == "cuda" and target.index is None:
        target = pick_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    if target.type == "cuda":
        torch.cuda.set_device(target)
    dist.init_process_group("nccl" if target.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), count, target)
        dist.barrier()  # a process that leaves early would cut the connections of the others
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise AsrError(
            "another process of this training has ended; its own message says why. Start all of them again "
            "with --resume-if-possible"
        ) from None
    finally:
        gc.collect()  # DistributedDataParallel must be gone before its process group
        dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether an exchange failed because another process has ended. gloo has no exception class for this."""
    message = str(error).lower()
    signs = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")
    return isinstance(error, dist.DistError) or any(sign in message for sign in signs)
