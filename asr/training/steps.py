"""Optimiser steps, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from asr.bundle import Bundle
from asr.config import Config, OptimConfig
from asr.datasets.batching import EpochPlan
from asr.datasets.loader import Batch
from asr.features import spec_augment
from asr.training.checkpoints import Progress
from asr.training.losses import joint_loss
from asr.training.schedules import learning_rate
from asr.training.setup import Setup


@dataclass(frozen=True)
class Step:
    """What one optimiser step was."""

    number: int  # counted from 1
    epoch: int
    loss: float  # per token
    gradient_norm: float  # before clipping
    learning_rate: float
    utterances: int
    audio: float  # seconds, without padding
    wait: float  # seconds that the step waited for data


def steps(setup: Setup, optimizer: torch.optim.Optimizer, progress: Progress) -> Iterator[Step]:
    """Do optimiser steps until `train.steps`, yielding after each; `progress` moves along.

    Everything random in a step follows from (seed, step): nothing else needs to be stored to resume.
    """
    bundle, config = setup.bundle, setup.bundle.config
    autocast = torch.autocast(bundle.device.type, torch.bfloat16, enabled=use_bf16(config, bundle.device))
    while progress.step < config.train.steps:
        epoch = progress.epoch
        plan = EpochPlan(setup.train.utterances, config.data, config.augment, config.train.seed, epoch)
        batches = setup.train.batches(plan, progress.position)
        while progress.epoch == epoch and progress.step < config.train.steps:
            began = time.monotonic()
            count = min(config.optim.accumulate, len(plan) - progress.position)
            group = [next(batches) for _ in range(count)]
            wait = time.monotonic() - began

            torch.manual_seed((config.train.seed << 32) + progress.step)
            bundle.module.train()
            tokens = sum(int(batch.token_lengths.sum()) + len(batch.ids) for batch in group)
            loss = torch.zeros((), device=bundle.device)
            for batch in group:
                with autocast:
                    part = _loss(bundle, batch) / tokens  # of the group: accumulation equals the larger batch
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
            if progress.position == len(plan):
                progress.epoch, progress.position = epoch + 1, 0
            utterances = sum(len(batch.ids) for batch in group)
            audio = sum(batch.seconds for batch in group)
            found = Step(progress.step, epoch, float(loss), float(norm), rate, utterances, audio, wait)
            progress.seconds += time.monotonic() - began
            yield found
        batches.close()


def _loss(bundle: Bundle, batch: Batch) -> torch.Tensor:
    """The summed loss of a batch, its features computed and masked on the device."""
    device, config = bundle.device, bundle.config
    with torch.no_grad():
        features, lengths = bundle.features(batch.waveforms.to(device), batch.lengths.to(device))
        if config.augment.specaugment is not None:
            features = spec_augment(features, lengths, config.augment.specaugment)
    tokens, token_lengths = batch.tokens.to(device), batch.token_lengths.to(device)
    noise = config.train.token_noise
    return joint_loss(bundle.network, features, lengths, tokens, token_lengths, config.train, noise).total


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
    """Whether autocast to bfloat16 is on: asked for, or "auto" and faster here.

    On a CPU with bfloat16 instructions the `small` preset (d_model 256) trains 1.7 times as fast, and `tiny`
    (d_model 144) at 0.8 times the speed, because of the casts: `benchmarks/speed.py train` shows it.
    """
    if config.train.precision != "auto":
        return config.train.precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.12
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return device.type == "cpu" and bool(fast) and config.model.d_model >= 256
