"""The training loop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from asr.config import Config
from asr.errors import AsrError
from asr.files import claimed
from asr.model_folder import CONFIG
from asr.training.attention_plot import choose_utterance
from asr.training.checkpoints import (
    Progress,
    average_weights,
    best_validations,
    check_room,
    checkpoint_to_resume,
    has_weights,
    load_checkpoint,
    model_step,
    prune_checkpoints,
    save_checkpoint,
)
from asr.training.distributed import Ranks, join
from asr.training.interruption import Interruption
from asr.training.memory_check import check_memory
from asr.training.monitor import Monitor
from asr.training.optimizer import build_optimizer
from asr.training.setup import set_up
from asr.training.steps import Step, steps
from asr.training.validate import validate
from asr.training.weights import MovingAverage, freeze, start_from

MAX_UNWRITTEN = 5  # checkpoints in a row that could not be written before training stops


def train(config: Config, run: Path, resume: bool = False, device: str = "auto") -> int:
    """Train to the end or to a signal; the run folder is then a model folder that can be used.

    Returns 0, or 128 + the number of the signal that stopped it (all is saved then). Everything random in a
    step follows from (seed, step), so a run that was stopped and resumed equals one left alone. Under
    `torchrun` every process calls this; the first one writes and talks.
    Raises AsrError for what can be known before the first step, and for what goes beyond its limit later.
    """
    with join(device) as ranks, claimed(run) if ranks.main else nullcontext():
        training = Training(config, run, checkpoint_to_resume(config, run, resume), ranks)
        with Interruption() as interruption:
            return training.run_to_the_end(interruption)


class Training:
    """A run from its first step, or from a checkpoint, to its end."""

    def __init__(self, config: Config, run: Path, checkpoint: Path | None, ranks: Ranks) -> None:
        self.config, self.run, self.ranks = config, run, ranks
        self.setup = set_up(config, _say if ranks.main else lambda line: None)
        self.bundle = self.setup.bundle
        begun = [] if config.train.init is None else start_from(config.train.init, self.bundle)
        frozen = freeze(self.bundle.network, config.train.freeze)
        self.bundle.to(ranks.device)
        self.optimizer = build_optimizer(self.bundle.network, config.optim)
        ema = config.optim.ema
        self.average = MovingAverage(self.bundle.network, ema) if ema is not None else None
        self.progress = Progress()
        if checkpoint is not None:
            self.progress = load_checkpoint(checkpoint, self.bundle, self.optimizer, self.average)
            begun = [f"resumed from {checkpoint}"]
            if ranks.main:
                prune_checkpoints(run, self.progress, config.train.average)
        self.unwritten = 0
        if ranks.main:
            for line in [*begun, *([f"not trained: {', '.join(frozen)}"] if frozen else [])]:
                _say(line)
            check_room(run, self.bundle.parameters(), config)
            config.save(run / CONFIG)
            _say(f"{self.bundle.parameters():,} parameters, {len(self.bundle.tokenizer)} tokens, on {ranks}")
        heaviest = check_memory(self.setup, self.progress.epoch)
        if ranks.main:
            _say(heaviest)

    def run_to_the_end(self, interruption: Interruption) -> int:
        """The loop. Returns the exit status."""
        progress, wanted, self.interruption = self.progress, self.config.train, interruption
        with self._monitor() if self.ranks.main else nullcontext() as monitor:
            self.say = monitor.say if monitor else lambda line: None
            training = steps(self.setup, self.optimizer, progress, self.ranks, self.average, interruption)
            while True:
                if self._validation_is_due() and not self._validate(monitor):
                    return self._stopped()  # in the middle of a validation, which --resume does anew
                if self._has_come_to_an_end():
                    break
                step = next(training)
                if monitor:
                    monitor.step(step)
                try:
                    self._count_bad(step.bad)
                    self._count_skipped(step)
                except AsrError:  # with higher limits, --resume goes on from here
                    self._write(self._save_checkpoint)
                    raise
                if step.stop or (self.ranks.count == 1 and interruption()):  # several only stop together
                    return self._stopped()
                if progress.step % wanted.checkpoint_every == 0 and not self._validation_is_due():
                    self._write(self._save_checkpoint)
            return self._finish()

    def _monitor(self) -> Monitor:
        example = choose_utterance(self.setup.dev)
        return Monitor(self.run, self.progress.step, self.config.train, example)

    def _validation_is_due(self) -> bool:
        step, history = self.progress.step, self.progress.history
        due = step % self.config.train.validate_every == 0 or step == self.config.train.steps
        return due and step > 0 and not (history and history[-1]["step"] == step)

    def _has_come_to_an_end(self) -> bool:
        wanted, progress = self.config.train, self.progress
        if progress.step >= wanted.steps:
            return True
        if not progress.history or progress.history[-1]["step"] != progress.step:
            return False
        if wanted.stop_wer is not None and progress.history[-1]["wer"] <= wanted.stop_wer:
            return True
        rates = [entry["cer"] for entry in progress.history]
        if wanted.patience is not None and len(rates) - 1 - rates.index(min(rates)) >= wanted.patience:
            self.say(f"no better CER for {wanted.patience} validations: training ends")
            return True
        return False

    def _validate(self, monitor: Monitor | None) -> bool:
        """Score the dev set, and save; the run folder holds the best model so far. False when interrupted."""
        progress = self.progress
        with self.average.in_place() if self.average else nullcontext():
            found = validate(self.setup, self.ranks, self.interruption)
            if found is None:
                return False
            self._count_bad(found.bad)
            if monitor:
                monitor.validation(progress.step, found, self.bundle)
            progress.history.append(
                {"step": progress.step, "loss": found.loss, "cer": found.cer, "wer": found.wer}
            )
            if best_validations(progress.history, 1)[0] is progress.history[-1]:
                self._write(
                    lambda: self.bundle.save(
                        self.run, step=progress.step, dev_cer=found.cer, dev_wer=found.wer
                    )
                )
        self._write(self._save_checkpoint)
        return True

    def _count_bad(self, messages: Sequence[str]) -> None:
        """Say what cannot be read, and stop where it is more than the limit allows."""
        bad, limit = self.progress.bad, self.config.data.max_bad
        new = [message for message in messages if message not in bad]
        bad += new
        for message in new:
            self.say(f"left out: {message}")
        if len(bad) > limit:
            raise AsrError(
                f"{len(bad)} recordings cannot be read, more than data.max_bad {limit}; the last: {bad[-1]}"
            )

    def _count_skipped(self, step: Step) -> None:
        progress, limit = self.progress, self.config.train.max_skipped
        if step.skipped:
            progress.skipped += 1
            self.say(f"step {step.number} skipped, its gradient is not finite: {'; '.join(step.skipped)}")
        if progress.skipped > limit:
            raise AsrError(
                f"{progress.skipped} steps had a gradient that is not finite, more than train.max_skipped "
                f"{limit}; lower optim.lr, or look at {'; '.join(step.skipped)}"
            )

    def _save_checkpoint(self) -> None:
        save_checkpoint(self.run, self.bundle, self.optimizer, self.progress, self.average)

    def _write(self, write: Callable[[], None]) -> bool:
        """Write something that training can go on without for a while, when the disk is full."""
        if not self.ranks.main:
            return True
        try:
            write()
        except AsrError as error:
            self.unwritten += 1
            self.say(f"{error} (training goes on, {self.unwritten} of {MAX_UNWRITTEN})")
            if self.unwritten >= MAX_UNWRITTEN:
                raise
            return False
        self.unwritten = 0
        return True

    def _stopped(self) -> int:
        if self._write(self._save_checkpoint):
            self.say(f"stopped at step {self.progress.step}; the same command with --resume goes on")
        return self.interruption.status

    def _finish(self) -> int:
        """Average the best checkpoints; the run folder keeps whichever is better, the average or the best."""
        progress, bundle = self.progress, self.bundle
        written = [entry for entry in progress.history if has_weights(self.run, entry["step"])]
        best = self.ranks.gather(best_validations(written, self.config.train.average))[0]  # files are main's
        if not best:
            raise AsrError(f"{self.run}: no validated checkpoint could be written; make room, then --resume")
        chosen = sorted(entry["step"] for entry in best)
        if self.ranks.main:
            bundle.module.load_state_dict(average_weights(self.run, chosen))
        self.ranks.copy_from_main(bundle.module)
        found = validate(self.setup, self.ranks, self.interruption)
        if found is None:
            self.say("stopped while the average was scored; the same command with --resume does it anew")
            return self.interruption.status
        scores = f"CER {found.cer:.2%}  WER {found.wer:.2%}; best: CER {best[0]['cer']:.2%}"
        self.say(f"average of steps {chosen}: {scores}")
        if self.ranks.main and found.cer <= best[0]["cer"]:
            bundle.save(self.run, step=progress.step, averaged=chosen, dev_cer=found.cer, dev_wer=found.wer)
        elif self.ranks.main and model_step(self.run) != best[0]["step"]:  # there was no room for it then
            bundle.module.load_state_dict(average_weights(self.run, [best[0]["step"]]))
            bundle.save(self.run, step=best[0]["step"], dev_cer=best[0]["cer"], dev_wer=best[0]["wer"])
        self.say(f"{progress.seconds / 60:.1f} minutes of training steps; the model is in {self.run}")
        return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)
