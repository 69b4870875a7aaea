"""A check before the first step whether memory suffices for the heaviest batch."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch
from torch import nn

from asr.errors import AsrError, is_out_of_memory
from asr.training.tasks import Task


def check_memory(task: Task[Any], objective: nn.Module, epoch: int) -> str:
    """Compute loss and gradients of an epoch's heaviest batch, with the memory of the optimizer reserved.

    Returns a line for the log. Weights and gradients do not change. Raises AsrError when memory does not
    suffice.
    """
    batch, description = task.heaviest_batch(epoch)
    device = task.bundle.device
    trained = [p for p in objective.train().parameters() if p.requires_grad]
    try:
        moments = [torch.zeros_like(p) for p in trained for _ in range(2)]
        objective(batch)[0][0].backward()
        del moments
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise AsrError(
            f"not enough memory on {device} for the heaviest batch, {description} ({reason}); lower "
            f"{task.batch_size_setting}"
        ) from None
    finally:
        for parameter in trained:
            parameter.grad = None
    if device.type == "cuda":
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated(device) / 2**30
    else:
        unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, Linux kilobytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return f"heaviest batch: {description}: fits, peak memory so far {peak:.1f} GB"
