"""What a run shows while it runs: a progress bar or lines, and TensorBoard curves."""

from __future__ import annotations

import math
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch.utils.tensorboard import SummaryWriter

from asr.config import TrainConfig
from asr.datasets.loading import Batch
from asr.model_folder import Bundle
from asr.training.attention_plot import draw_attention
from asr.training.steps import Step
from asr.training.validate import Validation

LINE_EVERY = 20.0  # seconds between lines where there is no terminal to draw a bar on
RECENT = 100  # steps over which speed, data wait, loss and the time left are taken
STEP = TypeVar("STEP")  # what is known of an optimizer step
SCALARS = ("loss", "attention_loss", "ctc_loss", "gradient_norm", "learning_rate")


class RunMonitor(ABC, Generic[STEP]):
    """Counts what steps do, and says so, on standard error and for TensorBoard.

    Speed, loss and the time left follow from the last steps alone. The time of a validation does not count as
    theirs; what the validations to come will take is added to the time left.
    """

    def __init__(self, run: Path, step: int, steps: int, validate_every: int) -> None:
        """A run that stands at `step` of `steps`."""
        self._steps, self._validate_every = steps, validate_every
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.folder = run / "tensorboard"
        self.board: SummaryWriter | None = None
        self._open_board(step)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=steps, completed=step, left="")
        self._recent: deque[tuple[float, STEP]] = deque(maxlen=RECENT)  # with the seconds it took
        self._validation_seconds = 0.0  # of the last one
        self._said = self._last = time.monotonic()

    def __enter__(self) -> Self:
        self.bar.start()
        self._before, threading.excepthook = threading.excepthook, self._of_thread
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self._draw("close")
        threading.excepthook = self._before

    @abstractmethod
    def describe(self, recent: Sequence[STEP], seconds: float) -> tuple[str, Mapping[str, float]]:
        """A line about the last steps, which took so many seconds; and their speeds, each with its name."""

    def say(self, line: str) -> None:
        """One line, above the bar."""
        with suppress(OSError):  # the log may be a file on a disk that is full
            self.console.print(line, markup=False)

    def count(self, number: int, step: STEP, curves: Mapping[str, float]) -> None:
        """Count one optimizer step."""
        now = time.monotonic()
        self._recent.append((now - self._last, step))
        self._last = now
        self._curves("train", curves, number)
        seconds = sum(taken for taken, _ in self._recent)
        line, speeds = self.describe([each for _, each in self._recent], seconds)
        left = f"{_duration(self._seconds_left(number))} left"
        self.bar.update(self.task, completed=number, description=line, left=left)
        if now - self._said >= LINE_EVERY:
            self._curves("speed", speeds, number)
            if not self.console.is_terminal:
                self.say(f"step {number}/{self._steps}  {line}  {left}")
            self._said = now

    def validated(self, number: int, curves: Mapping[str, float]) -> None:
        """What a validation found."""
        if self.board is None:  # there may be room on the disk again
            self._open_board(number - 1)
        self._curves("dev", curves, number)
        now = time.monotonic()
        self._validation_seconds, self._last = now - self._last, now

    def _curves(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._draw("add_scalar", f"{group}/{name}", value, step)

    def _open_board(self, step: int) -> None:
        """Begin a file of curves that takes back what an earlier one has after the step."""
        try:
            self.board = SummaryWriter(str(self.folder), purge_step=step + 1)
        except OSError as error:
            self._without_board(error)

    def _draw(self, what: str, *values: object, **named: object) -> None:
        """Hand something to TensorBoard's writer, whose thread writes it sooner or later."""
        if self.board is not None:
            try:
                getattr(self.board, what)(*values, **named)
            except OSError as error:
                self._without_board(error)

    def _without_board(self, error: OSError) -> None:
        """Without room on the disk there are no curves; training goes on."""
        self.board = None
        self.say(f"{self.folder}: no curves until the next validation ({error.strerror or error})")

    def _of_thread(self, raised: threading.ExceptHookArgs) -> None:
        """An exception in a thread: that of TensorBoard's writer comes to `_draw` as well, which says it."""
        if not (isinstance(raised.exc_value, OSError) and "tensorboard" in type(raised.thread).__module__):
            self._before(raised)

    def _seconds_left(self, step: int) -> float:
        """Of the steps to come, each as long as the recent ones, and of the validations among them."""
        each = sum(taken for taken, _ in self._recent) / len(self._recent)
        validations = math.ceil(self._steps / self._validate_every) - (step - 1) // self._validate_every
        return (self._steps - step) * each + validations * self._validation_seconds


class Monitor(RunMonitor[Step]):
    """That of a recognizer."""

    def __init__(self, run: Path, step: int, config: TrainConfig, example: Batch | None = None) -> None:
        """A run that stands at `step`; `example` is the dev utterance whose attention is drawn."""
        super().__init__(run, step, config.steps, config.validate_every)
        self.config, self.example = config, example

    def step(self, step: Step) -> None:
        """Count one optimizer step."""
        self.count(step.number, step, {name: getattr(step, name) for name in SCALARS})

    def describe(self, recent: Sequence[Step], seconds: float) -> tuple[str, Mapping[str, float]]:
        """Loss, seconds of audio per second, share of the time spent waiting for data."""
        speed = sum(each.audio for each in recent) / seconds
        wait = sum(each.wait for each in recent) / seconds
        finite = [each.loss for each in recent if math.isfinite(each.loss)]
        loss = sum(finite) / len(finite) if finite else math.nan
        line = f"epoch {recent[-1].epoch}  loss {loss:.3f}  {speed:.0f} s audio/s  data wait {wait:.0%}"
        return line, {"audio_seconds_per_second": speed, "data_wait_share": wait}

    def validation(self, step: int, found: Validation, bundle: Bundle) -> None:
        """The scores of a validation and its first few transcripts; where the model listens."""
        self.say(f"step {step}  dev loss {found.loss:.3f}  CER {found.cer:.2%}  WER {found.wer:.2%}")
        shown = found.score.utterances[: self.config.show]
        for utterance in shown:
            self.say(f"    {utterance.ref!r} -> {utterance.hyp!r}")
        self.validated(step, {name: getattr(found, name) for name in ("loss", "cer", "wer")})
        text = "\n\n".join(f"{u.ref} → {u.hyp}" for u in shown)
        self._draw("add_text", "dev/transcripts", text, step)
        image = draw_attention(bundle, self.example) if self.example is not None else None
        if image is not None:
            self._draw("add_image", "dev/attention", image, step, dataformats="HWC")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = round(seconds / 3600, 1)
    return f"{hours:g} h" if hours < 48 else f"{hours / 24:.1f} days"
