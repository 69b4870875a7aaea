"""The job of `asr transcribe`: many inputs, results written as they are ready, progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr.decoding import DecodingOptions
from asr.errors import AsrError
from asr.files import printable
from asr.threads import default_threads
from asr.transcription.inputs import find_inputs
from asr.transcription.output import Output, write_text
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Transcript


def read_hot_words(path: Path) -> tuple[str, ...]:
    """The words and phrases of a file, one on each line; empty lines are ignored.

    Raises AsrError when it cannot be read or has none.
    """
    name = printable(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise AsrError(f"{name}: cannot read hot words ({error.strerror}); give a text file") from None
    except UnicodeDecodeError:
        raise AsrError(f"{name}: hot words that are not UTF-8; save the file as UTF-8") from None
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise AsrError(f"{name}: no hot words in this file; write one on each line")
    return found


def transcribe_inputs(
    arguments: Iterable[str],
    output: Output,
    model: Path | None = None,
    device: str = "auto",
    batch_seconds: float | None = None,
    options: DecodingOptions | None = None,
    precision: str = "auto",
    threads: int | None = None,
    voice_activity: bool | None = None,
) -> int:
    """Transcribe everything the arguments name. Returns the number of inputs and arguments that failed.

    Results are written as they are ready. Failures are reported on stderr, one line each. Raises AsrError
    when the model cannot be loaded or a result cannot be written.
    """
    output.check()
    options = options or DecodingOptions()
    if (options.n_best or 1) > 1 and "json" not in (output.stream_format, *output.folder_formats):
        raise AsrError(
            "--n-best: texts other than the best are written as JSON; add --output FILE, or --output-dir DIR "
            "and --format json"
        )
    if threads := threads or default_threads():
        torch.set_num_threads(threads)
    inputs, problems = find_inputs(arguments)
    planned = output.plan(inputs)
    # Loading takes seconds. With nothing to transcribe, it is left out.
    recognizer: Recognizer | None = None
    if planned:
        recognizer = Recognizer(model, device, batch_seconds, options, precision, voice_activity)
    if recognizer:
        output.check_words(recognizer.has_word_times)
    failed = len(problems)
    with output.open() as file, _Progress(len(planned)) as progress:
        for problem in problems:
            progress.report(problem)
        results = recognizer.transcribe_all(input for input, _ in planned) if recognizer else iter(())
        if not file and output.header():
            progress.print(output.header().removesuffix("\n"))
        for (_, paths), result in zip(planned, results, strict=True):
            if isinstance(result, AsrError):
                failed += 1
                progress.report(result)
            elif paths:
                output.write_files(paths, result)
            elif text := output.stream_text(result):
                if file:
                    write_text(file, text)
                else:
                    progress.print(text.removesuffix("\n"))
            progress.advance(result.duration if isinstance(result, Transcript) else 0.0)
    if failed:
        total = len(inputs) + len(problems)
        print(f"asr: {failed} of {total} inputs could not be transcribed", file=sys.stderr)
    return failed


class _Progress:
    """A progress bar in the terminal, if there is one, and lines above it."""

    def __init__(self, total: int) -> None:
        # In a terminal, bar and lines share standard output, so that a line is never drawn over the bar.
        console = Console(file=sys.stdout) if sys.stdout.isatty() else Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,  # it would move messages to stdout: `2> errors.txt` would stay empty
        )
        self._task = self._bar.add_task("transcribing", total=total)
        self._seconds, self._began = 0.0, time.monotonic()

    def __enter__(self) -> _Progress:
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
        else:
            print(line, file=stream, flush=True)

    def advance(self, seconds: float) -> None:
        """One input with so many seconds of audio is done."""
        self._seconds += seconds
        speed = self._seconds / (time.monotonic() - self._began)
        self._bar.update(self._task, advance=1, description=f"transcribing, {speed:.0f} x real time")
