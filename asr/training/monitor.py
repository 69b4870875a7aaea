"""The progress of a run: a bar in a terminal, otherwise lines, and TensorBoard curves."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch.utils.tensorboard import SummaryWriter

from asr.run_folder import CURVES
from asr.training.log import Log
from asr.training.settings import LoopConfig
from asr.training.steps import Step
from asr.training.tasks import Task, Validation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE_EVERY = 20.0  # seconds between lines when there is no terminal for a bar
RECENT = 100  # steps for the mean speed, data wait and loss, and for the time left


class _Recent(NamedTuple):
    """Properties of a recent step."""

    seconds: float
    loss: float
    amount: float
    wait: float


class Monitor:
    """Counts steps and shows speed, loss and time left, which are computed from the last steps only.

    The time of a validation does not count as that of steps. The time left includes the validations to come.
    """

    def __init__(self, run: Path, step: int, config: LoopConfig, task: Task[Any], log: Log) -> None:
        """A run that has done `step` of its steps. With a silent log, nothing is shown and no file
        written.
        """
        self.log, self.task = log, task
        self._validate_every, self._steps = config.validate_every, config.steps
        self._max_minutes = config.max_minutes
        self.folder = run / CURVES
        self.board: SummaryWriter | None = None
        self._silent = log.console.quiet
        self._open_board(step)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=log.console,
            disable=not log.console.is_terminal or self._silent,
        )
        self.line = self.bar.add_task("training", total=config.steps, completed=step, left="")
        self._recent: deque[_Recent] = deque(maxlen=RECENT)
        self._validation_seconds = 0.0  # of the last one
        self._last_line = self._last_step = time.monotonic()

    def __enter__(self) -> Self:
        self.bar.start()
        self._excepthook, threading.excepthook = threading.excepthook, self._on_thread_error
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self._draw("close")
        threading.excepthook = self._excepthook

    def step(self, step: Step) -> None:
        """Count one optimizer step."""
        if self._silent:
            return
        now = time.monotonic()
        loss = next(iter(step.losses.values()))
        self._recent.append(_Recent(now - self._last_step, loss, step.amount, step.wait))
        self._last_step = now
        rates = {"gradient_norm": step.gradient_norm, "learning_rate": step.learning_rate}
        self._curves("train", step.losses | rates, step.number)

        seconds = sum(each.seconds for each in self._recent)
        speed = sum(each.amount for each in self._recent) / seconds
        wait = sum(each.wait for each in self._recent) / seconds
        finite = [each.loss for each in self._recent if math.isfinite(each.loss)]
        loss = sum(finite) / len(finite) if finite else math.nan
        line = f"epoch {step.epoch}  loss {loss:.3f}  {speed:,.0f} {self.task.unit}/s  data wait {wait:.0%}"
        left = f"{_duration(self._seconds_left(step))} left"
        self.bar.update(self.line, completed=step.number, description=line, left=left)
        if now - self._last_line >= LINE_EVERY:
            self._curves("speed", {self.task.speed_name: speed, "data_wait_share": wait}, step.number)
            if not self.log.console.is_terminal:
                self.log.say(f"step {step.number}/{self._steps}  {line}  {left}")
            self._last_line = now

    def validation(self, step: int, found: Validation, figure: Figure | None = None) -> None:
        """Show the result of a validation."""
        self.log.say(f"step {step}  {found.summary}")
        for example in found.examples:
            self.log.say(f"    {example}")
        if self.board is None:  # the disk may have free space again
            self._open_board(step - 1)
        self._curves("dev", found.scores, step)
        if found.examples:
            self._draw("add_text", "dev/transcripts", "\n\n".join(found.examples), step)
        if figure is not None:
            self._draw("add_figure", "dev/attention", figure, step)
        now = time.monotonic()
        self._validation_seconds, self._last_step = now - self._last_step, now

    def _curves(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._draw("add_scalar", f"{group}/{name}", value, step)

    def _open_board(self, step: int) -> None:
        """Begin a file of curves. Points of an earlier file that are after the step are removed."""
        if not self._silent:
            try:
                self.board = SummaryWriter(str(self.folder), purge_step=step + 1)
            except OSError as error:
                self._close_board(error)

    def _draw(self, method: str, *values: object) -> None:
        """Call a method of TensorBoard's writer. Its thread writes later."""
        if self.board is not None:
            try:
                getattr(self.board, method)(*values)
            except OSError as error:
                self._close_board(error)

    def _close_board(self, error: OSError) -> None:
        """Continue without curves when the disk is full."""
        self.board = None
        self.log.say(f"{self.folder}: no curves until the next validation ({error.strerror or error})")

    def _on_thread_error(self, raised: threading.ExceptHookArgs) -> None:
        """Ignore errors in the thread of TensorBoard's writer: `_draw` gets them too and reports them."""
        if not (isinstance(raised.exc_value, OSError) and "tensorboard" in type(raised.thread).__module__):
            self._excepthook(raised)

    def _seconds_left(self, step: Step) -> float:
        """The time of the remaining steps, as long as recent ones, and of the validations among them."""
        each = sum(recent.seconds for recent in self._recent) / len(self._recent)
        last = self._steps
        if self._max_minutes is not None:
            last = min(last, step.number + max(0, round((60 * self._max_minutes - step.seconds) / each)))
        validations = math.ceil(last / self._validate_every) - (step.number - 1) // self._validate_every
        return (last - step.number) * each + validations * self._validation_seconds


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = round(seconds / 3600, 1)
    return f"{hours:g} h" if hours < 48 else f"{hours / 24:.1f} days"
