"""A training run, from its configuration to the finished model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asr.config import Config, LanguageConfig
from asr.errors import AsrError
from asr.files import claimed
from asr.model.adapters import load_merged_state
from asr.run_folder import CONFIG, TOKENIZER
from asr.tokenizers import Tokenizer, load_tokenizer
from asr.training.checkpoints import (
    average_weights,
    check_room,
    has_weights,
    load_checkpoint,
    model_step,
    newest,
    prune_checkpoints,
    save_checkpoint,
)
from asr.training.distributed import Ranks, join
from asr.training.guard import WeightGuard
from asr.training.interruption import Interruption
from asr.training.language_modeling import LanguageTask
from asr.training.log import Log
from asr.training.memory_check import check_memory
from asr.training.monitor import Monitor
from asr.training.optimizer import build_optimizer
from asr.training.precision import choose_precision
from asr.training.recognition import RecognitionTask
from asr.training.recompute import recompute_blocks
from asr.training.resume import Resume, check_data, choose_start
from asr.training.steps import Step, steps
from asr.training.tasks import Learning, Task, Validation
from asr.training.train_state import (
    TrainState,
    best_validations,
    criterion,
    describe,
    stop_reason,
    time_is_over,
)
from asr.training.weights import MovingAverage, choose_trained, start_from

MAX_UNWRITTEN = 5  # checkpoints in a row that could not be written before training stops
MAX_RESTORED = 3  # times in a row that the last good weights are restored before training stops
RunConfig = Config | LanguageConfig
NAMED = 3  # texts that are too long for CTC and are named in an epoch


def train(config: RunConfig, run: Path, resume: Resume = "never", device: str = "auto") -> int:
    """Train to the end or to a signal. At the end, the run folder is a model folder with the best model so
    far.

    `config` is a `Config` for a recognizer or a `LanguageConfig` for a language model. Returns 0, or 128 +
    the number of the signal that stopped the run after everything was saved. Everything random in a step is a
    function of (seed, step), so a run that was stopped and resumed equals one that was not. Under `torchrun`
    every process calls this function, and the first one writes files and messages.

    Raises AsrError for mistakes that can be known before the first step, when a limit of the configuration is
    exceeded, and when nothing was learned.
    """
    with join(device) as ranks, claimed(run) if ranks.main else nullcontext():
        log = Log(silent=not ranks.main)

        # 1. Where to start: the newest intact checkpoint, if the run is to be resumed.
        start = ranks.decide(lambda: choose_start(config, run, resume))
        for message in start.messages:
            log.say(message)

        # 2. The data and a model with new weights, or those of another model.
        def tokenizer_of(learn: Callable[[], Tokenizer]) -> Tokenizer:
            path = start.checkpoint and start.checkpoint / TOKENIZER
            return ranks.decide(lambda: load_tokenizer(path) if path else learn())

        task = build_task(config, run, log.say, tokenizer_of)
        if config.train.init is not None and start.checkpoint is None:
            for message in start_from(config.train.init, task.bundle):
                log.say(message)
        for message in choose_trained(task.bundle.network, config.train):
            log.say(message)
        task.bundle.to(ranks.device)
        log.say(f"{task.bundle.parameters():,} parameters, {len(task.bundle.tokenizer)} tokens, on {ranks}")

        # 3. The optimizer, and the state of the checkpoint.
        optimizer = build_optimizer(task.bundle.network, config.optim, ranks)
        ema = config.optim.ema
        average = MovingAverage(task.bundle.network, ema) if ema is not None else None
        state = TrainState(data=task.data)
        if start.checkpoint is not None:
            state = load_checkpoint(start.checkpoint, task.bundle, optimizer, average)
            check_data(state, task.data, start.checkpoint)
            state.data = task.data
        if state.precision is None or config.train.precision != "auto":
            width = config.model.width
            state.precision = ranks.decide(
                lambda: choose_precision(config.train.precision, ranks.device, width)
            )
        task.precision = state.precision
        log.say(f"precision: {task.precision}")
        ranks.gather(None)  # all processes have read the checkpoint before the first one deletes any

        # 4. The run folder, and a check of memory and disk.
        if ranks.main:
            prune_checkpoints(run, state, config.train.average)
            check_room(run, task.bundle.parameters(), config.train.average, average is not None)
            config.save(run / CONFIG)
        if config.train.recompute:
            recompute_blocks(task.bundle.network)
        if config.train.compile:
            task.bundle.network.compile(dynamic=True)
        objective = task.objective()
        log.say(check_memory(task, objective, state.position.epoch))

        # 5. The loop.
        with Interruption() as interruption, Monitor(run, state.step, config.train, task, log) as monitor:
            training = Training(
                config, run, task, objective, optimizer, average, state, ranks, monitor, interruption
            )
            return training.run_to_the_end()


def build_task(config: RunConfig, run: Path, say: Callable[[str], None], tokenizer_of: Learning) -> Task[Any]:
    """The task of a configuration. Raises AsrError for data that cannot be used."""
    if isinstance(config, LanguageConfig):
        return LanguageTask(config, run, say, tokenizer_of)
    return RecognitionTask(config, say, tokenizer_of)


class Training:
    """The loop of a run: steps, checkpoints, validations, and the end."""

    def __init__(
        self,
        config: RunConfig,
        run: Path,
        task: Task[Any],
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        state: TrainState,
        ranks: Ranks,
        monitor: Monitor,
        interruption: Interruption,
    ) -> None:
        self.config, self.optim, self.run, self.task = config.train, config.optim, run, task
        self.objective, self.optimizer, self.average = objective, optimizer, average
        self.state, self.ranks, self.monitor, self.interruption = state, ranks, monitor, interruption
        self.say, self.bundle = monitor.log.say, task.bundle
        self.max_bad = getattr(config.data, "max_bad", 0)
        self.attempted = self.saved = state.step  # the steps of the last checkpoint, tried and written
        self.unwritten = self.restored = 0  # how often in a row
        self.restored_at = -1  # the step at which weights were restored
        self.guard = WeightGuard(objective, task.bundle.special.vocabulary_size, state, ranks)

    def run_to_the_end(self) -> int:
        """Do steps until a stop rule or a signal ends the run. Returns the exit status."""
        state, stop = self.state, self.interruption
        stepping = steps(
            self.task, self.ranks.wrap(self.objective), self.optimizer, self.config, self.optim, state,
            self.ranks, self.average, stop,
        )  # fmt: skip
        with closing(stepping):  # also ends the threads that read audio
            while True:
                if self._checkpoint_is_due() and self._weights_are_good():
                    self._save_checkpoint()  # before the validation, which may fail
                if self._validation_is_due() and not self._validate():
                    return self._stopped()  # during the validation; --resume repeats it
                if reason := self._stop_reason():
                    self.say(f"training ends at step {state.step}: {reason}")
                    break
                step, batch = next(stepping)
                self.monitor.step(step)
                self._report(step)
                if self.guard.suspects(step, batch):
                    self._weights_are_good()
                # All processes stop at the same step, because they exchange the request to stop.
                if step.stop or (self.ranks.count == 1 and stop()):
                    return self._stopped()
        return self._finish()

    def _checkpoint_is_due(self) -> bool:
        at_interval = self.state.step % self.config.checkpoint_every == 0
        return (
            self.state.step > 0
            and self.attempted != self.state.step
            and (at_interval or self._validation_is_due())
        )

    def _validation_is_due(self) -> bool:
        step, history = self.state.step, self.state.history
        over = step >= self.config.steps or time_is_over(self.state.seconds, self.config.max_minutes)
        due = step % self.config.validate_every == 0 or over
        return due and step > 0 and not (history and history[-1]["step"] == step)

    def _stop_reason(self) -> str | None:
        config, state = self.config, self.state
        stop_wer = getattr(config, "stop_wer", None)
        return stop_reason(
            state.step, state.history, config.steps, config.patience, stop_wer, config.max_minutes,
            state.seconds,
        )  # fmt: skip

    def _validate(self) -> bool:
        """Score the validation data. The best model goes to the run folder. Returns False if interrupted."""
        state = self.state
        with self.average.in_place() if self.average else nullcontext():
            found = self.task.validate(self.ranks, self.interruption)
            if found is None:
                return False
            self._count_bad(found.bad)
            if not math.isfinite(found.scores["loss"]):
                raise AsrError(
                    f"the validation loss of step {state.step} is {found.scores['loss']}: nothing was "
                    "learned; lower optim.lr"
                )
            if self.ranks.main:
                self.monitor.validation(state.step, found, self.task.figure())
            state.history.append({"step": state.step, **found.scores})
            if best_validations(state.history, 1)[0] is state.history[-1]:
                self._write(lambda: self.bundle.save(self.run, step=state.step, **_metadata(found)))
        self._save_checkpoint()
        return True

    def _report(self, step: Step) -> None:
        """Name recordings that cannot be read and texts that are too long; raise AsrError at a limit."""
        state = self.state
        for id in step.unalignable[: max(0, NAMED - state.unalignable)]:
            self.say(f"{id}: the text has more tokens than CTC can align with its audio; CTC skips it")
        state.unalignable += len(step.unalignable)
        if step.ends_epoch and state.unalignable:
            self.say(f"epoch {step.epoch}: {state.unalignable} texts were too long for CTC")
            state.unalignable = 0
        try:
            self._count_bad(step.bad)
            if step.skipped:
                self.say(f"step {step.number} skipped: {step.skipped}")
            if state.skipped > self.config.max_skipped:
                raise AsrError(
                    f"{state.skipped} steps in a row were skipped, more than train.max_skipped "
                    f"{self.config.max_skipped}; lower optim.lr, or check the data; the last: {step.skipped}"
                )
        except AsrError:  # --resume continues from here, with a higher limit
            if self.guard.approves():
                self._save_checkpoint()
            raise

    def _count_bad(self, messages: Sequence[str]) -> None:
        """Report recordings that cannot be read. Raises AsrError when there are more than the limit."""
        bad, limit = self.state.bad, self.max_bad
        new = [message for message in messages if message not in bad]
        bad += new
        for message in new:
            self.say(f"left out: {message}")
        if new and len(bad) > limit:
            raise AsrError(
                f"{len(bad)} recordings cannot be read, more than data.max_bad {limit}; the last: {bad[-1]}"
            )

    def _weights_are_good(self) -> bool:
        """Check the weights; if they are ruined, restore those of the last checkpoint, and return False.

        Training then continues with the data that follow. Raises AsrError without a checkpoint, and when the
        weights are ruined again and again.
        """
        step, checkpoint = self.state.step, newest(self.run)
        if self.guard.approves():
            if step > self.restored_at:
                self.restored = 0
            return True
        self.restored, self.restored_at = self.restored + 1, step
        if checkpoint is None or self.restored > MAX_RESTORED:
            last = f"; {checkpoint} has the last good ones" if checkpoint else ""
            raise AsrError(f"step {step}: the weights are ruined, and are not saved{last}; lower optim.lr")
        load_checkpoint(checkpoint, self.bundle, self.optimizer, self.average)
        self.say(f"step {step}: the weights are ruined; restored those of {checkpoint.name}")
        return False

    def _save_checkpoint(self) -> bool:
        """Write a checkpoint of this step, or its new state. Returns whether it is written."""
        run, state, keep = self.run, self.state, self.config.average
        self.attempted = self.state.step
        written = self._write(
            lambda: save_checkpoint(run, self.bundle, self.optimizer, state, self.average, keep)
        )
        if written:
            self.saved = self.state.step
        return written

    def _write(self, write: Callable[[], None]) -> bool:
        """Write files. When the disk is full, training can continue without them for a while."""
        if not self.ranks.main:
            return True
        try:
            write()
        except AsrError as error:
            self.unwritten += 1
            self.say(f"{error} (training continues; {self.unwritten} of {MAX_UNWRITTEN} failures)")
            if self.unwritten >= MAX_UNWRITTEN:
                raise
            return False
        self.unwritten = 0
        return True

    def _stopped(self) -> int:
        """Save after a signal. Returns the exit status."""
        step = self.state.step
        good = self.attempted == step or self.guard.approves()
        if good and (self.saved == step or self._save_checkpoint()):
            self.say(f"stopped at step {step}; the same command with --resume continues")
        else:
            self.say(
                f"stopped at step {step}, which is not saved; --resume continues from the last checkpoint"
            )
        return self.interruption.status

    def _finish(self) -> int:
        """Average the best checkpoints. The run folder gets the average if it is better than the best one."""
        state, bundle = self.state, self.bundle
        if not state.updates:
            raise AsrError("nothing was learned: every step was skipped; check the data, and lower optim.lr")
        written = [entry for entry in state.history if has_weights(self.run, entry["step"])]
        best = self.ranks.gather(best_validations(written, self.config.average))[0]  # the main one's files
        if not best:
            raise AsrError(
                f"{self.run}: no validated checkpoint could be written; make room on "
                "the disk, then continue with --resume"
            )
        chosen = sorted(entry["step"] for entry in best)
        if len(chosen) > 1:
            if self.ranks.main:
                load_merged_state(bundle.module, average_weights(self.run, chosen))
            self.ranks.copy_from_main(bundle.module)
            found = self.task.validate(self.ranks, self.interruption)
            if found is None:
                self.say("stopped during the validation of the average; --resume repeats it")
                return self.interruption.status
            self.say(f"average of steps {chosen}: {found.summary}; the best alone has {describe(best[0])}")
            if criterion(found.scores) <= criterion(best[0]):
                if self.ranks.main:
                    bundle.save(self.run, step=state.step, averaged=chosen, **_metadata(found))
                return self._done()
        if self.ranks.main and model_step(self.run) != best[0]["step"]:  # the disk was full then
            load_merged_state(bundle.module, average_weights(self.run, [best[0]["step"]]))
            scores = Validation({k: v for k, v in best[0].items() if k != "step"}, "")
            bundle.save(self.run, step=best[0]["step"], **_metadata(scores))
        return self._done()

    def _done(self) -> int:
        self.say(f"{self.state.seconds / 60:.1f} minutes of training steps; the model is in {self.run}")
        return 0


def _metadata(found: Validation) -> dict[str, Any]:
    """The scores that are stored with a model: dev_cer, dev_wer or dev_perplexity."""
    return {f"dev_{name}": value for name, value in found.scores.items() if name != "loss"}
