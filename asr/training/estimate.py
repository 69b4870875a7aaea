"""The cost of a training before it starts: weights, operations, steps, time and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from asr.config import Config
from asr.datasets.loading import Batch
from asr.flops import count_flops
from asr.training.distributed import Ranks, join
from asr.training.memory_check import check_memory
from asr.training.optimizer import build_optimizer
from asr.training.precision import choose_precision
from asr.training.recognition import RecognitionTask
from asr.training.recompute import recompute_blocks
from asr.training.weights import choose_trained, start_from

TIMED = 5  # batches whose steps are timed


def dry_run(config: Config, device: str = "auto") -> None:
    """Print the cost of a training, and write nothing. Raises AsrError as training does."""
    with join(device) as ranks:
        task = RecognitionTask(config, print if ranks.main else lambda line: None)
        if config.train.init is not None:
            start_from(config.train.init, task.bundle)
        choose_trained(task.bundle.network, config.train)
        task.bundle.to(ranks.device)
        for line in estimate(task, config, ranks):
            if ranks.main:
                print(line)


def estimate(task: RecognitionTask, config: Config, ranks: Ranks) -> Iterator[str]:
    """Lines about a training. A few batches are measured, the rest is computed from the plan.

    The weights do not change. The time includes the steps only. Validation, exchange between processes and
    waiting for data are not included.
    """
    bundle = task.bundle
    sizes = {
        name: sum(p.numel() for p in part.parameters()) for name, part in bundle.network.named_children()
    }
    parts = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
    yield f"weights: {bundle.parameters():,} ({parts})"

    plans = [plan for pool in range(task.pools) if len(plan := task.plan(0, pool))]
    padded, first = np.concatenate([plan.padded_seconds for plan in plans]), plans[0]
    examples = sum(len(plan.seconds) for plan in plans)
    audio = sum(float(plan.seconds.sum(dtype=np.float64)) for plan in plans)
    steps = sum(-(-len(plan) // (config.optim.accumulate * ranks.count)) for plan in plans)
    yield (
        f"an epoch: {examples:,} examples, {audio / 3600:.2f} h at most, in {len(padded):,} batches "
        f"with {1 - audio / padded.sum(dtype=np.float64):.1%} padding: {steps:,} steps"
    )
    yield f"{config.train.steps:,} steps: {config.train.steps / steps:.1f} epochs"

    task.precision = choose_precision(config.train.precision, bundle.device, config.model.width)
    if config.train.recompute:
        recompute_blocks(bundle.network)
    objective = task.objective().train()
    yield check_memory(task, objective, epoch=0)
    order = first.padded_seconds.argsort()  # batches at equal distances from the lightest to the heaviest
    places = order[((np.arange(TIMED) + 0.5) / TIMED * len(order)).astype(int)].tolist()
    optimizer = build_optimizer(bundle.network, config.optim, ranks)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    batches = list(task.loader.batches(first, places))
    for line in dict.fromkeys(line for batch in batches for line in batch.bad):
        yield f"cannot be read: {line}"
    batches = [batch for batch in batches if batch.ids]
    if not batches:
        yield "no batch could be read: the time is not known"
        return

    def step(batch: Batch) -> float:
        """Do a whole step. Returns its seconds."""
        began = time.monotonic()
        (objective(batch)[0][0] / batch.n_targets).backward()
        trained = [p for p in objective.parameters() if p.requires_grad]
        nn.utils.clip_grad_norm_(trained, config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if bundle.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - began

    middle = batches[len(batches) // 2]
    step(middle)  # allocates memory
    flops = count_flops(lambda: step(middle)) / middle.amount
    yield f"operations: {flops / 1e9:.2f} GFLOP per second of audio, forward and backward"
    seconds = sum(step(batch) for batch in batches)
    measured = sum(batch.waveforms.numel() for batch in batches) / config.features.sample_rate
    speed = sum(batch.amount for batch in batches) / seconds
    per_step = float(padded.mean()) * seconds / measured * config.optim.accumulate  # time follows padded size
    yield f"speed: {speed:.1f} s of audio/s on {ranks}, {flops * speed / 1e9:.1f} GFLOP/s, in each process"
    yield (
        f"time: {_clock(steps * per_step)} an epoch, {_clock(config.train.steps * per_step)} in all, "
        "without validation"
    )


def _clock(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    whole, less, names = (3600, 60, "h min") if seconds >= 3600 else (60, 1, "min s")
    first, second = names.split()
    return f"{int(seconds // whole)} {first} {int(seconds % whole // less)} {second}"
