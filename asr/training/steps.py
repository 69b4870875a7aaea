"""Optimizer steps, one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from asr.datasets.batching import EpochPlan
from asr.datasets.loading import Batch
from asr.training.checkpoints import Progress
from asr.training.distributed import Ranks
from asr.training.objective import Objective, count_tokens
from asr.training.schedules import learning_rate
from asr.training.setup import Setup
from asr.training.weights import MovingAverage


@dataclass(frozen=True)
class Step:
    """What one optimizer step was, over all processes."""

    number: int  # counted from 1
    epoch: int
    loss: float  # per token
    attention_loss: float  # its two parts, per token, not weighted
    ctc_loss: float
    gradient_norm: float  # before clipping
    learning_rate: float
    utterances: int
    audio: float  # seconds, without padding
    wait: float  # seconds that this process waited for data
    skipped: tuple[str, ...]  # the batches to blame when the gradient was not finite and nothing was done
    bad: tuple[str, ...]  # recordings left out because they could not be read, one message each
    stop: bool  # whether a process was asked to stop


def steps(
    setup: Setup,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    ranks: Ranks,
    average: MovingAverage | None = None,
    stop: Callable[[], object] = bool,
) -> Iterator[Step]:
    """Do optimizer steps without end, yielding after each; `progress` moves along.

    A step takes the next `accumulate` batches of every process from one plan. Everything random in it follows
    from (seed, step, place in the step), so nothing else is stored to resume, and n processes do what one
    does that accumulates n times as many. `stop` is asked at every step.
    """
    config = setup.bundle.config
    objective = ranks.wrap(Objective(setup.bundle), unused=config.train.ctc_weight == 0)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    while True:
        epoch = progress.epoch
        plan = EpochPlan(setup.train.corpus, config.data, config.augment, config.train.seed, epoch)
        places = range(progress.position + ranks.rank, len(plan), ranks.count)
        batches = setup.train.batches(plan, places)
        while progress.epoch == epoch:
            began = time.monotonic()
            whole = min(config.optim.accumulate * ranks.count, len(plan) - progress.position)
            group = [next(batches) for _ in range(ranks.rank, whole, ranks.count)]
            wait = time.monotonic() - began
            tokens, utterances, audio, bad, stopping = ranks.total(
                sum(map(count_tokens, group)),
                sum(len(batch.ids) for batch in group),
                sum(batch.seconds for batch in group),
                sum(len(batch.bad) for batch in group),
                bool(stop()),
            )

            # Divided by the tokens of the whole step: accumulating equals the larger batch.
            tokens = max(1.0, tokens)
            losses = _backward(objective, group, ranks, (config.train.seed, progress.step), tokens)
            rate = learning_rate(progress.step, config.train.steps, config.optim)
            for parameter_group in optimizer.param_groups:
                parameter_group["lr"] = rate
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip_norm))
            skipped: tuple[str, ...] = ()
            if math.isfinite(norm):  # the same in all processes, as their gradients are
                optimizer.step()
                if average is not None:
                    average.update(progress.step + 1)
            else:
                skipped = _to_blame(losses, group, epoch, ranks)
            optimizer.zero_grad(set_to_none=True)

            progress.step += 1
            progress.position += whole
            if progress.position == len(plan):
                progress.epoch, progress.position = epoch + 1, 0
            messages = [m for batch in group for m in batch.bad]
            total, attention, ctc = ranks.total(*losses.sum(0).tolist())
            found = Step(
                number=progress.step,
                epoch=epoch,
                loss=total / tokens,
                attention_loss=attention / tokens,
                ctc_loss=ctc / tokens,
                gradient_norm=norm,
                learning_rate=rate,
                utterances=int(utterances),
                audio=audio,
                wait=wait,
                skipped=skipped,
                bad=tuple(m for each in ranks.gather(messages) for m in each) if bad else (),
                stop=bool(stopping),
            )
            progress.seconds += time.monotonic() - began
            yield found
        batches.close()


def _backward(
    objective: nn.Module, group: list[Batch], ranks: Ranks, key: tuple[int, int], tokens: float
) -> Tensor:
    """Add up the gradients of this process's batches of a step; their losses (batches, 3).

    A process without a batch takes part with none, because the others wait for its gradients. Every batch
    draws from its own seed, by its place in the step: which process has it makes no difference.
    """
    objective.train()
    losses = []
    for turn, batch in enumerate(group or [None]):
        place = ranks.rank + turn * ranks.count
        torch.manual_seed(int(np.random.SeedSequence((*key, place)).generate_state(1, np.uint64)[0]))
        with ranks.without_exchange(objective) if turn + 1 < len(group) else nullcontext():
            loss = objective(batch)
            (loss[0] * (ranks.count / tokens)).backward()  # the exchange takes the mean over the processes
        losses.append(loss.detach())
    return torch.stack(losses)


def _to_blame(losses: Tensor, group: list[Batch], epoch: int, ranks: Ranks) -> tuple[str, ...]:
    """The batches of a step whose loss is not finite; all of them when only their gradients are not."""
    finite = losses.isfinite().all(1).tolist()
    names = [
        f"epoch {epoch}, batch {batch.place}: {', '.join(batch.ids[:5])}"
        + (" ..." if len(batch.ids) > 5 else "")
        for batch in group
    ]
    found = [([n for n, fine in zip(names, finite, strict=False) if not fine], names)]
    everyone = [pair for each in ranks.gather(found) for pair in each]
    return tuple(n for bad, _ in everyone for n in bad) or tuple(n for _, names in everyone for n in names)
