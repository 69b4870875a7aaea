"""The training loop."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

from asr.bundle import CONFIG, pick_device
from asr.config import Config, load_config
from asr.errors import AsrError
from asr.training.checkpoints import (
    Progress,
    average,
    best_validations,
    load_checkpoint,
    newest,
    save_checkpoint,
)
from asr.training.monitor import Monitor
from asr.training.setup import Setup, set_up
from asr.training.steps import build_optimizer, steps
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
        setup = set_up(config, lambda line: print(line, file=sys.stderr))
        bundle = setup.bundle.to(target)
        optimizer = build_optimizer(bundle, config.optim)
        progress = load_checkpoint(checkpoint, bundle, optimizer) if checkpoint else Progress()
        config.save(run / CONFIG)
        with Monitor(run, progress.step, config.train.steps) as monitor:
            monitor.say(f"{bundle.parameters():,} parameters, {len(bundle.tokenizer)} tokens, on {target}")
            if checkpoint:
                monitor.say(f"resumed from {checkpoint}")
            for step in steps(setup, optimizer, progress):
                monitor.step(step)
                due = step.number % config.train.validate_every == 0 or step.number == config.train.steps
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
