"""The training loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

from asr.bundle import CONFIG, Bundle, pick_device
from asr.config import Config, OptimConfig, load_config
from asr.datasets.batching import EpochPlan
from asr.datasets.loader import Batch
from asr.errors import AsrError
from asr.features import spec_augment
from asr.training.checkpoints import (
    Progress,
    average,
    best_validations,
    load_checkpoint,
    newest,
    save_checkpoint,
)
from asr.training.losses import joint_loss
from asr.training.monitor import Monitor
from asr.training.schedules import learning_rate
from asr.training.setup import Setup, set_up
from asr.training.validate import validate


def train(config: Config, run: Path, resume: bool = False, device: str = "auto") -> int:
    """Train to the end or to a signal; the run folder is then a model folder that can be used.

    Returns 0, or 128 + the number of the signal that stopped it (all is saved then). Everything random in a
    step follows from (seed, step), so a run that was stopped and resumed equals one left alone.
    Raises AsrError for what can be known before the first step.
    """
    target = pick_device(device)
    checkpoint = _checkpoint_to_resume(config, run, resume)
    with Interruption() as interruption:
        setup = set_up(config, print)
        bundle = setup.bundle.to(target)
        optimizer = build_optimizer(bundle, config.optim)
        progress = load_checkpoint(checkpoint, bundle, optimizer) if checkpoint else Progress()
        config.save(run / CONFIG)
        with Monitor(run, progress.step, config.train.steps) as monitor:
            monitor.say(f"{bundle.parameters():,} parameters, {len(bundle.tokenizer)} tokens, on {target}")
            if checkpoint:
                monitor.say(f"resumed from {checkpoint}")
            for _ in _steps(setup, optimizer, progress, monitor):
                due = progress.step % config.train.validate_every == 0 or progress.step == config.train.steps
                if due:
                    _validate(run, setup, progress, monitor)
                if due or interruption.signal or progress.step % config.train.checkpoint_every == 0:
                    save_checkpoint(run, bundle, optimizer, progress, config.train.average)
                if interruption.signal:
                    monitor.say(f"stopped at step {progress.step}; the same command with --resume goes on")
                    return 128 + interruption.signal
                if (
                    config.train.stop_wer is not None
                    and due
                    and progress.history[-1]["wer"] <= config.train.stop_wer
                ):
                    break
            _finish(run, setup, progress, monitor)
    return 0


def _steps(
    setup: Setup, optimizer: torch.optim.Optimizer, progress: Progress, monitor: Monitor
) -> Iterator[None]:
    """Do optimiser steps until `train.steps`, yielding after each; `progress` moves along."""
    bundle, config = setup.bundle, setup.bundle.config
    autocast = torch.autocast(bundle.device.type, torch.bfloat16, enabled=use_bf16(config, bundle.device))
    while progress.step < config.train.steps:
        plan = EpochPlan(
            setup.train.utterances, config.data, config.augment, config.train.seed, progress.epoch
        )
        batches = setup.train.batches(plan, progress.position)
        while progress.position < len(plan) and progress.step < config.train.steps:
            began = time.monotonic()
            count = min(config.optim.accumulate, len(plan) - progress.position)
            group = [next(batches) for _ in range(count)]
            wait = time.monotonic() - began

            torch.manual_seed(_mix(config.train.seed, progress.step))
            bundle.module.train()
            tokens = sum(int(b.token_lengths.sum()) + len(b.ids) for b in group)
            loss = torch.zeros((), device=bundle.device)
            for batch in group:
                with autocast:
                    part = _loss(bundle, batch) / tokens  # so that accumulation equals the larger batch
                part.backward()
                loss += part.detach()

            rate = learning_rate(progress.step, config.train.steps, config.optim)
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
            norm = torch.nn.utils.clip_grad_norm_(bundle.network.parameters(), config.optim.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            progress.step += 1
            progress.position += count
            progress.seconds += time.monotonic() - began
            audio = sum(batch.seconds for batch in group)
            monitor.step(progress.step, progress.epoch, float(loss), float(norm), rate, audio, wait)
            if progress.position == len(plan):
                progress.epoch, progress.position = progress.epoch + 1, 0
                yield
                break
            yield
        batches.close()


def _loss(bundle: Bundle, batch: Batch) -> torch.Tensor:
    """The summed loss of a batch, its features computed and masked on the device."""
    device, config = bundle.device, bundle.config
    with torch.no_grad():
        features, lengths = bundle.features(batch.waveforms.to(device), batch.lengths.to(device))
        if config.augment.specaugment is not None:
            features = spec_augment(features, lengths, config.augment.specaugment)
    tokens, token_lengths = batch.tokens.to(device), batch.token_lengths.to(device)
    return joint_loss(bundle.network, features, lengths, tokens, token_lengths, config.train).total


def _validate(run: Path, setup: Setup, progress: Progress, monitor: Monitor) -> None:
    """Score the dev set; the run folder holds the best model so far."""
    found = validate(setup.bundle, setup.dev, setup.dev_plan)
    monitor.validation(progress.step, found, setup.bundle.config.train.show)
    progress.history.append({"step": progress.step, "loss": found.loss, "cer": found.cer, "wer": found.wer})
    if best_validations(progress.history, 1)[0] is progress.history[-1]:
        setup.bundle.save(run, step=progress.step, dev_cer=found.cer, dev_wer=found.wer)


def _finish(run: Path, setup: Setup, progress: Progress, monitor: Monitor) -> None:
    """Average the best checkpoints; the run folder keeps whichever is better, the average or the best."""
    bundle = setup.bundle
    best = best_validations(progress.history, bundle.config.train.average)
    steps = sorted(entry["step"] for entry in best)
    weights = average(run, steps)
    bundle.module.load_state_dict(weights)
    found = validate(bundle, setup.dev, setup.dev_plan)
    monitor.say(
        f"average of steps {steps}: CER {found.cer:.2%}  WER {found.wer:.2%}; best: CER {best[0]['cer']:.2%}"
    )
    if found.cer <= best[0]["cer"]:
        bundle.save(run, step=progress.step, averaged=steps, dev_cer=found.cer, dev_wer=found.wer)
    monitor.say(f"{progress.seconds / 60:.1f} minutes of training steps; the model is in {run}")


def build_optimizer(bundle: Bundle, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; biases, norms and other vectors are not decayed."""
    matrices = [p for p in bundle.network.parameters() if p.dim() > 1]
    vectors = [p for p in bundle.network.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def use_bf16(config: Config, device: torch.device) -> bool:
    """Whether autocast to bfloat16 is on: asked for, or on a GPU that has it."""
    if config.train.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return config.train.precision == "bf16"


def _checkpoint_to_resume(config: Config, run: Path, resume: bool) -> Path | None:
    found = newest(run)
    if found is None:
        if resume:
            raise AsrError(f"{run}: nothing to resume, there is no checkpoint; leave out --resume")
        return None
    if not resume:
        raise AsrError(
            f"{run}: holds a run already ({found.name}); add --resume to go on, or choose another folder"
        )
    if load_config(run / CONFIG) != config:
        raise AsrError(
            f"{run}: was trained with another configuration ({run / CONFIG}); choose another folder"
        )
    return found


def _mix(seed: int, step: int) -> int:
    """One number for a generator, different for every step of every seed."""
    return (seed << 32) + step


class Interruption:
    """Catches Ctrl-C and SIGTERM while the block runs; the second one has its usual effect."""

    signal = 0

    def __enter__(self) -> Interruption:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._before[signal.Signals(number)])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
