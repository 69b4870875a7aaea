"""What a training will cost, before it starts: weights, operations, steps, time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Size, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from asr.config import Config
from asr.datasets.batching import EpochPlan
from asr.datasets.loading import Batch
from asr.training.distributed import Ranks, join
from asr.training.memory_check import check_memory
from asr.training.objective import Objective, count_tokens
from asr.training.optimizer import build_optimizer
from asr.training.setup import Setup, set_up
from asr.training.weights import freeze, start_from

_aten = torch.ops.aten
TYPICAL = 5  # batches that are timed


def dry_run(config: Config, device: str = "auto") -> None:
    """Print what a training would cost; nothing is written. Raises AsrError as training does."""
    with join(device) as ranks:
        setup = set_up(config, print if ranks.main else lambda line: None)
        if config.train.init is not None:
            start_from(config.train.init, setup.bundle)
        freeze(setup.bundle.network, config.train.freeze)
        setup.bundle.to(ranks.device)
        for line in estimate(setup, ranks):
            if ranks.main:
                print(line)


def estimate(setup: Setup, ranks: Ranks) -> Iterator[str]:
    """Lines about the training that `setup` is for: a few batches are measured, the rest is arithmetic.

    The weights stay as they are. Time is that of the steps alone: neither validation, nor the exchange
    between processes, nor waiting for data is in it.
    """
    bundle, config = setup.bundle, setup.bundle.config
    parts = {"encoder": bundle.network.encoder, "decoder": bundle.network.decoder}
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    sizes["CTC head"] = bundle.parameters() - sum(sizes.values())
    said = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
    yield f"weights: {bundle.parameters():,} ({said})"

    plan = EpochPlan(setup.train.corpus, config.data, config.augment, config.train.seed, epoch=0)
    padded, audio = plan.padded_seconds, float(plan.seconds.sum(dtype=np.float64))
    per_step = config.optim.accumulate * ranks.count
    steps = -(-len(plan) // per_step)
    yield (
        f"an epoch: {len(plan.seconds):,} examples, {audio / 3600:.2f} h at most, in {len(plan):,} batches "
        f"with {1 - audio / padded.sum(dtype=np.float64):.1%} padding: {steps:,} steps"
    )
    yield f"{config.train.steps:,} steps: {config.train.steps / steps:.1f} epochs"

    yield check_memory(setup, epoch=0)
    order = padded.argsort()  # batches at even distances from the lightest to the heaviest
    places = order[((np.arange(TYPICAL) + 0.5) / TYPICAL * len(order)).astype(int)].tolist()
    objective = Objective(bundle).train()
    optimizer = build_optimizer(bundle.network, config.optim)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    batches = [batch for batch in (setup.train.load(plan[place], place) for place in places) if batch.ids]
    if not batches:
        yield "none of the batches that were to be timed could be read"
        return
    middle = batches[len(batches) // 2]  # it goes first: operations are counted, memory is allocated
    flops = count_flops(lambda: _step(objective, optimizer, middle)) / middle.seconds
    yield f"operations: {flops / 1e9:.2f} GFLOP per second of audio, forward and backward"
    seconds = sum(_step(objective, optimizer, batch) for batch in batches)
    measured = sum(batch.waveforms.numel() for batch in batches) / config.features.sample_rate
    rate = measured / seconds  # of padded audio; what a batch takes follows its padded size
    of_step = float(padded.mean()) / rate * config.optim.accumulate
    yield (
        f"speed: {sum(batch.seconds for batch in batches) / seconds:.1f} s of audio/s on {ranks}, "
        f"{flops * sum(batch.seconds for batch in batches) / seconds / 1e9:.1f} GFLOP/s, in each process"
    )
    yield (
        f"time: {_clock(steps * of_step)} an epoch, {_clock(config.train.steps * of_step)} in all, "
        "validation not counted"
    )


def _step(objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """Do a whole step; the seconds it took."""
    began = time.monotonic()
    (objective(batch)[0] / count_tokens(batch)).backward()
    trained = [p for p in objective.parameters() if p.requires_grad]
    nn.utils.clip_grad_norm_(trained, objective.config.optim.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if next(objective.parameters()).is_cuda:
        torch.cuda.synchronize()
    return time.monotonic() - began


def _clock(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    whole, less, names = (3600, 60, "h min") if seconds >= 3600 else (60, 1, "min s")
    first, second = names.split()
    return f"{int(seconds // whole)} {first} {int(seconds % whole // less)} {second}"


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products, convolutions and attention that `work` does.

    A multiplication with its addition counts as two; what is done element by element does not count. The
    backward pass of attention counts as twice its forward pass: that kernels compute scores anew is their
    own choice, and no work that the model asks for.
    """
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        work()
    return counter.get_total_flops()


def _attention(query: Size, key: Size, value: Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(_: Size, query: Size, key: Size, value: Size, *__: object, **___: object) -> int:
    return 2 * sdpa_flop_count(query, key, value)


def _linear(x: Size, weight: Size, *_: object, **__: object) -> int:
    return 2 * x.numel() * weight[0]


# torch counts the kernels of other devices, but not these of the CPU.
_FORMULAS = {
    torch.ops.mkldnn._linear_pointwise: _linear,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    _aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    _aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}
