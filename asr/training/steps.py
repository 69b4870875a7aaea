"""Optimizer steps, one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from asr.training.distributed import Ranks
from asr.training.precision import loss_scaler
from asr.training.schedules import expected_steps, learning_rate
from asr.training.settings import LoopConfig, OptimConfig
from asr.training.tasks import B, Batch, Task
from asr.training.train_state import StreamPosition, TrainState
from asr.training.weights import MovingAverage

EXPLODED = 10.0  # times the usual loss
SMOOTHING = 0.98  # of the moving average that is the usual loss


@dataclass(frozen=True)
class Step:
    """One optimizer step, over all processes."""

    number: int  # counted from 1
    epoch: int
    losses: dict[str, float]  # by name, per token
    gradient_norm: float  # before clipping
    learning_rate: float
    amount: float  # of data, in the task's unit
    wait: float  # seconds that this process waited for data
    skipped: str  # why the weights did not change; empty if they did
    exploded: bool  # the loss is far above its usual value
    bad: tuple[str, ...]  # recordings that could not be read, one message each
    unalignable: tuple[str, ...]  # ids of texts that are too long for CTC
    ends_epoch: bool
    stop: bool  # whether a process was asked to stop
    seconds: float = 0.0  # spent in the steps of the run so far


def steps(
    task: Task[B],
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: LoopConfig,
    optim: OptimConfig,
    state: TrainState,
    ranks: Ranks,
    average: MovingAverage | None = None,
    stop: Callable[[], object] = bool,
) -> Generator[tuple[Step, B | None], None, None]:
    """Do optimizer steps without end. Yields each step with one of its batches, and updates `state`.

    A step takes the next `accumulate` batches of every process, or what is left of a pool. Everything random
    in it follows from (seed, step, place in the step), so nothing else must be stored to resume, and n
    processes do the same as one that accumulates n times as many batches. `stop` is asked at every step.
    """
    parameters = [p for p in objective.parameters() if p.requires_grad]
    scaler = loss_scaler(task.precision, ranks.device, state.loss_scale)
    rest = 0.0  # seconds of the last step that are not yet in `state.seconds`
    while True:
        epoch, number, done = state.position
        pool = task.pool(epoch, number)
        if not len(pool):  # with a weight below 1, a pool can be empty in this epoch
            state.position = _following(state.position, task.pools)
            continue
        with closing(pool.batches(range(done + ranks.rank, len(pool), ranks.count))) as batches:
            while done < len(pool):
                began = time.monotonic()
                whole = min(optim.accumulate * ranks.count, len(pool) - done)
                group = list(islice(batches, len(range(ranks.rank, whole, ranks.count))))
                wait = time.monotonic() - began
                n_targets, amount, bad, stopping = ranks.total(
                    sum(batch.n_targets for batch in group),
                    sum(batch.amount for batch in group),
                    sum(len(batch.bad) for batch in group),
                    bool(stop()),
                )

                # Divided by the tokens of the whole step, accumulated batches equal one larger batch.
                key = (config.seed, state.step)
                losses, unalignable = backward(objective, group, ranks, key, max(1.0, n_targets), scaler)
                measured = time.monotonic()
                *sums, n_unalignable, spent = ranks.total(
                    *losses.sum(0).tolist(), len(unalignable), rest + measured - began
                )
                total = expected_steps(state.step, state.seconds, config)
                state.seconds += spent / ranks.count  # equal in all processes, because the end depends on it
                means = [each / max(1.0, n_targets) for each in sums]
                rate = learning_rate(state.step, total, optim)
                usable = bool(n_targets) and math.isfinite(means[0])
                norm, changed = update_weights(optimizer, parameters, rate, optim.clip_norm, scaler, usable)
                skipped = ""
                if not n_targets:
                    skipped = "none of its recordings can be read"
                elif not changed:
                    skipped = f"its gradient is not finite ({_causes(losses, group, epoch, ranks)})"
                    if scaler.is_enabled():
                        skipped += f"; the loss was scaled by {scaler.get_scale():g}, which is halved"
                elif average is not None:
                    average.update(state.step + 1)
                scaler.update()
                state.loss_scale = scaler.state_dict()

                done += whole
                limit = explosion_limit(state.typical_loss, task.bundle.special.vocabulary_size)
                exploded = bool(n_targets) and not means[0] <= limit
                _advance(state, task.pools, done if done < len(pool) else None, bool(skipped))
                if not skipped and not exploded:
                    state.typical_loss = means[0] + SMOOTHING * ((state.typical_loss or means[0]) - means[0])
                messages = [message for batch in group for message in batch.bad]
                found = Step(
                    number=state.step,
                    epoch=epoch,
                    losses=dict(zip(task.loss_names, means, strict=True)),
                    gradient_norm=norm,
                    learning_rate=rate,
                    amount=amount,
                    wait=wait,
                    skipped=skipped,
                    exploded=exploded,
                    bad=_concatenated(ranks, messages) if bad else (),
                    unalignable=_concatenated(ranks, unalignable) if n_unalignable else (),
                    ends_epoch=state.position.epoch > epoch,
                    stop=bool(stopping),
                    seconds=state.seconds,
                )
                rest = time.monotonic() - measured
                yield found, next((batch for batch in group if batch.ids), None)


def update_weights(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    learning_rate: float,
    clip_norm: float,
    scaler: GradScaler,
    usable: bool,
) -> tuple[float, bool]:
    """Clip the gradients, do a step of the optimizer, and delete them.

    Returns their norm before clipping, and whether the weights changed. They do not with a loss that is not
    `usable`, nor with a norm that is not finite. Both results are equal in all processes.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    scaler.unscale_(optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip_norm))
    if changes := usable and math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm, changes


def explosion_limit(typical_loss: float | None, vocabulary_size: int) -> float:
    """The loss per token above which the weights count as ruined. Random guesses have a loss of log V."""
    return math.inf if typical_loss is None else EXPLODED * max(typical_loss, math.log(vocabulary_size))


def backward(
    objective: nn.Module,
    group: list[B],
    ranks: Ranks,
    key: tuple[int, int],
    n_targets: float,
    scaler: GradScaler,
) -> tuple[Tensor, list[str]]:
    """Add up the scaled gradients of this process's batches of a step. `key` is the seed and the step.

    Returns their losses (batches, n_losses) and the ids of texts that are too long for CTC. A process without
    a batch takes part with zeros, because the others wait for its gradients. Every batch has its own seed,
    from its place in the step, so the process that it belongs to makes no difference.
    """
    objective.train()
    losses, unalignable = [], []
    for turn, batch in enumerate(group or [None]):
        place = ranks.rank + turn * ranks.count
        torch.manual_seed(int(np.random.SeedSequence((*key, place)).generate_state(1, np.uint64)[0]))
        with ranks.without_exchange(objective) if turn + 1 < len(group) else nullcontext():
            sums, too_long = objective(batch, key[1])
            loss = sums[0] * (ranks.count / n_targets)  # the exchange takes the mean of the processes
            scaler.scale(loss).backward()
        losses.append(sums.detach())
        if batch is not None and too_long.any():
            unalignable += [id for id, flag in zip(batch.ids, too_long.tolist(), strict=True) if flag]
    return torch.stack(losses), unalignable


def _advance(state: TrainState, pools: int, done: int | None, skipped: bool) -> None:
    """Count a step. `done` batches of the present pool are done; None: all of them."""
    epoch, pool, _ = state.position
    state.step += 1
    state.updates += not skipped
    state.skipped = state.skipped + 1 if skipped else 0
    following = _following(state.position, pools)
    state.position = following if done is None else StreamPosition(epoch, pool, done)


def _following(position: StreamPosition, pools: int) -> StreamPosition:
    """The beginning of the next pool."""
    epoch, pool, _ = position
    return StreamPosition(epoch, pool + 1) if pool + 1 < pools else StreamPosition(epoch + 1)


def _concatenated(ranks: Ranks, values: list[str]) -> tuple[str, ...]:
    """The values of all processes."""
    return tuple(value for each in ranks.gather(values) for value in each)


def _causes(losses: Tensor, group: list[B], epoch: int, ranks: Ranks) -> str:
    """Names of the batches whose loss is not finite; of all of them if only their gradients are not."""
    finite = losses.isfinite().all(1).tolist()
    names = [_name(batch, epoch) for batch in group]
    infinite = [name for name, fine in zip(names, finite, strict=False) if not fine]
    return "; ".join(_concatenated(ranks, infinite) or _concatenated(ranks, names))


def _name(batch: Batch, epoch: int) -> str:
    more = " ..." if len(batch.ids) > 5 else ""
    return f"epoch {epoch}, batch {batch.place}: {', '.join(batch.ids[:5])}{more}"
