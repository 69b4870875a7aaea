"""Training a language model on plain text: one sentence at a time, from BOS to EOS."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from asr.config import LanguageConfig
from asr.datasets.text import Source, Survey, Text
from asr.errors import AsrError
from asr.files import claimed
from asr.model.language_model import LanguageModel
from asr.model_folder import CONFIG, TOKENIZER, Bundle, pick_device
from asr.tokenizers import PAD, Tokenizer, load_tokenizer
from asr.training.checkpoints import checkpoint_to_resume
from asr.training.interruption import Interruption
from asr.training.language_run import (
    LanguageMonitor,
    LanguageStep,
    Standing,
    load_checkpoint,
    save_checkpoint,
)
from asr.training.optimizer import build_optimizer, use_bf16
from asr.training.schedules import learning_rate

WIDE = 192  # d_model from which bfloat16 pays on a CPU that has it


def train_language_model(
    config: LanguageConfig, run: Path, resume: bool = False, device: str = "auto"
) -> int:
    """Train to the end or to a signal; the run folder then holds the best model so far.

    Returns 0, or 128 + the number of the signal that stopped it (all is saved then). Everything random in a
    step follows from (seed, step), so a run that was stopped and resumed equals one left alone.
    Raises AsrError for what can be known before the first step.
    """
    target = pick_device(device)
    with claimed(run), Interruption() as interruption:
        checkpoint = checkpoint_to_resume(config, run, resume)
        text, dev, tokenizer, survey = _read(config, run)
        torch.manual_seed(config.train.seed)
        bundle = Bundle.build(config, tokenizer)
        bundle.network.to(target)
        optimizer = build_optimizer(bundle.network, config.optim)
        standing = Standing(survey.sentences, survey.characters)
        if checkpoint:
            standing = load_checkpoint(checkpoint, bundle, optimizer, standing)
        config.save(run / CONFIG)
        wanted = config.train
        with LanguageMonitor(run, standing.step, wanted.steps, wanted.validate_every) as monitor:
            monitor.say(f"{bundle.parameters():,} parameters, {len(tokenizer)} tokens, on {target}")
            if checkpoint:
                monitor.say(f"resumed from {checkpoint}")
            for step in _steps(bundle, text, optimizer, standing):
                monitor.step(step)
                due = step.number % wanted.validate_every == 0 or step.number == wanted.steps
                if due:
                    found = perplexity(bundle, dev)
                    monitor.validation(standing.step, found)
                    if found < standing.best:
                        standing.best = found
                        bundle.save(run, step=standing.step, dev_perplexity=round(found, 4))
                if due or interruption.signal or step.number % wanted.checkpoint_every == 0:
                    save_checkpoint(run, bundle, optimizer, standing)
                if interruption.signal:
                    monitor.say(f"stopped at step {standing.step}; the same command with --resume goes on")
                    return 128 + interruption.signal
            monitor.say(
                f"{standing.seconds / 60:.1f} minutes of training steps; best held-out perplexity "
                f"{standing.best:.3f} per character; the model is in {run}"
            )
    return 0


@torch.inference_mode()
def perplexity(bundle: Bundle, text: Text) -> float:
    """Perplexity per character: exp of the mean cross-entropy. BOS is given, EOS counts as a character."""
    bundle.network.eval()
    loss, count = 0.0, 0
    for batch in text.in_order(bundle.tokenizer):
        found, characters = _loss(bundle.network, batch.to(bundle.device))
        loss, count = loss + float(found), count + characters
    return math.exp(min(loss / count, 700.0))  # beyond, a float overflows


def _steps(
    bundle: Bundle, text: Text, optimizer: torch.optim.Optimizer, standing: Standing
) -> Iterator[LanguageStep]:
    """Do optimizer steps, yielding what is known of each."""
    config, network = bundle.config, bundle.network
    bf16 = use_bf16(config.train.precision, bundle.device, config.model.width >= WIDE)
    autocast = torch.autocast(bundle.device.type, torch.bfloat16, enabled=bf16)
    stream = text.batches(bundle.tokenizer, config.train.seed, standing.place)
    while standing.step < config.train.steps:
        began = time.monotonic()
        group = [next(stream) for _ in range(config.optim.accumulate)]
        torch.manual_seed((config.train.seed << 32) + standing.step)
        network.train()
        total = sum(int((batch[:, 1:] != PAD).sum()) for _, batch in group)
        loss = 0.0
        for _, batch in group:
            with autocast:
                part, _ = _loss(network, batch.to(bundle.device))
            (part / total).backward()  # of the group: accumulation equals the larger batch
            loss += float(part.detach()) / total
        if not math.isfinite(loss):
            raise AsrError(f"step {standing.step + 1}: the loss is {loss}; lower optim.lr or optim.clip_norm")
        rate = learning_rate(standing.step, config.train.steps, config.optim)
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        standing.step += 1
        standing.place = group[-1][0]
        standing.seconds += time.monotonic() - began
        yield LanguageStep(standing.step, standing.place.epoch, loss, rate, total)


def _loss(network: LanguageModel, batch: Tensor) -> tuple[Tensor, int]:
    """Summed cross-entropy of a batch (B, U) from BOS to EOS, and how many tokens it is the sum of."""
    wanted = batch[:, 1:]
    logits = network(batch[:, :-1]).float()  # (B, U - 1, V)
    loss = cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=PAD, reduction="sum")
    return loss, int((wanted != PAD).sum())


def _read(config: LanguageConfig, run: Path) -> tuple[Text, Text, Tokenizer, Survey]:
    """The training text, the held-out text, and the tokenizer. Raises AsrError for what cannot be used."""
    data = config.data
    if not data.text:
        raise AsrError("data.text names no file; name plain text, one sentence a line, in the configuration")
    if not data.dev and not data.hold_out:
        raise AsrError("no held-out text; name a file in data.dev, or set data.hold_out to a number of lines")
    known = load_tokenizer(data.characters_of / TOKENIZER) if data.characters_of else None
    sources = [Source.open(path, run) for path in data.text]
    held_out = [Source.open(path, run) for path in data.dev]
    if data.hold_out:
        sources[-1], last = sources[-1].split(data.hold_out)
        held_out = [last]
    text, dev = Text(sources, data), Text(held_out, data)
    tokenizer = known or text.learn()
    survey = text.survey(tokenizer)
    for name, found in (("data.text", survey), ("held-out text", dev.survey(tokenizer))):
        print(f"{name}: {found}", file=sys.stderr)
        if not found.sentences:
            raise AsrError(f"{name}: no sentence left to use ({found}); check the files and the settings")
    return text, dev, tokenizer, survey
