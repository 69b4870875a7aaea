"""Worst case first: whether memory suffices is known before the first step, and not hours into an epoch."""

from __future__ import annotations

import resource
import sys

import torch

from asr.datasets.batching import EpochPlan
from asr.errors import AsrError
from asr.training.objective import Objective
from asr.training.setup import Setup


def check_memory(setup: Setup, epoch: int) -> str:
    """Loss and gradients of the heaviest batch of an epoch, beside room for the optimizer; a line about it.

    Nothing is left behind. Raises AsrError when memory does not suffice.
    """
    config, device = setup.bundle.config, setup.bundle.device
    plan = EpochPlan(setup.train.corpus, config.data, config.augment, config.train.seed, epoch)
    batch = setup.train.load(plan[0], 0)
    seconds = batch.waveforms.numel() / config.features.sample_rate
    what = f"heaviest batch: {len(batch.ids)} utterances, {seconds:.0f} s padded"
    objective = Objective(setup.bundle).train()
    trained = [p for p in objective.parameters() if p.requires_grad]
    try:
        moments = [torch.zeros_like(p) for p in trained for _ in range(2)]
        objective(batch)[0].backward()
        del moments
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "memory" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise AsrError(
            f"not enough memory on {device} for the {what} ({reason}); lower data.batch_seconds"
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
    return f"{what}: fits, {peak:.1f} GB at the most so far"
