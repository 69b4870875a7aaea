"""What a run shows while it runs: a progress bar or lines, and TensorBoard curves."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from asr.training.steps import Step
from asr.training.validate import Validation

LINE_EVERY = 20.0  # seconds between lines where there is no terminal to draw a bar on


class Monitor:
    """Counts what steps do, and says so. Speed and data wait are over the time since the last report."""

    def __init__(self, run: Path, step: int, steps: int) -> None:
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=steps, completed=step)
        self.steps = steps
        self._started, self._first = time.monotonic(), step
        self._reset()

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self.board.close()

    def say(self, line: str) -> None:
        """One line, above the bar."""
        self.console.print(line, markup=False)

    def step(self, step: Step) -> None:
        """Count one optimiser step."""
        self._audio += step.audio
        self._wait += step.wait
        self._losses.append(step.loss)
        for name in ("loss", "gradient_norm", "learning_rate"):
            self.board.add_scalar(f"train/{name}", getattr(step, name), step.number)
        elapsed = time.monotonic() - self._since
        speed, share = self._audio / elapsed, self._wait / elapsed
        mean = sum(self._losses) / len(self._losses)
        line = f"epoch {step.epoch}  loss {mean:.3f}  {speed:.0f} s audio/s  data wait {share:.0%}"
        self.bar.update(self.task, completed=step.number, description=line)
        if elapsed >= LINE_EVERY:
            self.board.add_scalar("speed/audio_seconds_per_second", speed, step.number)
            self.board.add_scalar("speed/data_wait_share", share, step.number)
            if not self.console.is_terminal:
                done = step.number - self._first
                left = (time.monotonic() - self._started) / done * (self.steps - step.number)
                self.say(f"step {step.number}/{self.steps}  {line}  {left / 60:.0f} min left")
            self._reset()

    def validation(self, step: int, found: Validation, show: int) -> None:
        """The scores of a validation and its first few transcripts."""
        self.say(f"step {step}  dev loss {found.loss:.3f}  CER {found.cer:.2%}  WER {found.wer:.2%}")
        for utterance in found.score.utterances[:show]:
            self.say(f"    {utterance.ref!r} -> {utterance.hyp!r}")
        for name, value in (("loss", found.loss), ("cer", found.cer), ("wer", found.wer)):
            self.board.add_scalar(f"dev/{name}", value, step)
        text = "\n\n".join(f"{u.ref} → {u.hyp}" for u in found.score.utterances[:show])
        self.board.add_text("dev/transcripts", text, step)
        self._reset()  # the time of a validation is not the training's

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._audio = self._wait = 0.0
        self._losses: list[float] = []
