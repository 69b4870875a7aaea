"""The progress of `asr transcribe`: a bar in the terminal, and lines above it."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from asr.errors import AsrError


class TranscriptionProgress:
    """Files and hours done, RTFx and the time left, if there is a terminal.

    `seconds` are the expected seconds of audio of all inputs. The time left is computed from the share of
    them that is done, so files of different lengths are counted correctly, and only the ratios of the
    expected seconds matter.
    """

    def __init__(self, total: int, seconds: float, shown: bool = True) -> None:
        # In a terminal, bar and lines share standard output, so that a line is never drawn over the bar.
        console = Console(file=sys.stdout) if sys.stdout.isatty() else Console(stderr=True)
        self._bar = Progress(
            TextColumn("transcribing"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not (shown and console.is_terminal),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,  # it would move messages to stdout: `2> errors.txt` would stay empty
        )
        self._task = self._bar.add_task("", total=total)
        self._total, self._files, self._expected = total, 0, seconds
        self._seconds, self._done, self._began = 0.0, 0.0, time.monotonic()

    def __enter__(self) -> TranscriptionProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def print(self, line: str) -> None:
        """A line on standard output."""
        self._print(line, sys.stdout)

    def report(self, error: AsrError) -> None:
        """A message on standard error."""
        self._print(f"asr: error: {error}", sys.stderr)

    def _print(self, line: str, stream: TextIO) -> None:
        """A whole line. In a terminal it is printed above the bar, without line breaks of our own."""
        if stream.isatty() and self._bar.console.is_terminal:
            self._bar.console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)
            return
        try:
            print(line, file=stream, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise AsrError(
                f"{stream.name}: cannot be written ({error.strerror}); make room, or add --output FILE"
            ) from None

    def advance(self, seconds: float, expected: float) -> None:
        """One input is done: its seconds of audio, and how many were expected."""
        self._seconds += seconds
        self._done += expected
        self._files += 1
        self._bar.update(self._task, advance=1, description=self.summary(time.monotonic() - self._began))

    def summary(self, elapsed: float) -> str:
        """Hours of audio done, seconds of audio per second, and the time left, after `elapsed` seconds."""
        share = self._done / self._expected if self._expected else self._files / max(1, self._total)
        left = elapsed * (1 - share) / share if share else 0.0
        hours, minutes = divmod(round(left / 60), 60)
        remaining = f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else "< 1 min"
        return f"{self._seconds / 3600:.2f} h   {self._seconds / elapsed:.0f} x real time   {remaining} left"
