"""The job of `asr transcribe`: many inputs, results written as they are ready, progress, and resuming."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr.decoding import DecodingOptions
from asr.errors import AsrError
from asr.files import atomic_write, printable
from asr.transcription.inputs import Input, find_inputs, output_paths
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import FORMATS, Transcript


@dataclass(frozen=True)
class Output:
    """The place of the transcripts: the terminal, unless a file or a folder is named."""

    file: Path | None = None  # one JSON line for each input; "-" is standard output
    folder: Path | None = None  # one file for each input
    format: str | None = None  # of the files in the folder
    resume: bool = False  # leave out inputs whose result is there
    overwrite: bool = False  # replace a file that has results

    def check(self) -> None:
        """Refuse options without an effect, and places where nothing can be written."""
        if self.file and self.folder:
            raise AsrError("--output and --output-dir: give one of them")
        if self.format and not self.folder:
            raise AsrError("--format is for files in a folder; add --output-dir DIR")
        if self.resume and not (self.folder or (self.file and str(self.file) != "-")):
            raise AsrError("--resume needs results to continue; add --output FILE or --output-dir DIR")
        if self.overwrite and (self.resume or not self.file):
            raise AsrError("--overwrite replaces the file of --output, and excludes --resume; leave it out")
        # Path's methods fail without permission to look; os.path's do not.
        if self.file and os.path.isdir(self.file):  # noqa: PTH112
            raise AsrError(f"{printable(self.file)}: a folder; give --output the name of a file")
        if self.folder and os.path.exists(self.folder) and not os.path.isdir(self.folder):  # noqa: PTH110, PTH112
            raise AsrError(f"{printable(self.folder)}: a file; give --output-dir the name of a folder")
        if self.file and not (self.resume or self.overwrite) and _has_content(self.file):
            raise AsrError(
                f"{printable(self.file)}: has content already; add --resume to continue it, or --overwrite"
            )


def read_hot_words(path: Path) -> tuple[str, ...]:
    """The words and phrases of a file, one on each line; empty lines are ignored.

    Raises AsrError when it cannot be read or has none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise AsrError(f"{path}: cannot read hot words ({error.strerror}); give a text file") from None
    except UnicodeDecodeError:
        raise AsrError(f"{path}: hot words that are not UTF-8; save the file as UTF-8") from None
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise AsrError(f"{path}: no hot words in this file; write one on each line")
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
) -> int:
    """Transcribe everything the arguments name. Returns the number of inputs and arguments that failed.

    Results are written as they are ready. What failed is reported on stderr, one line each.
    """
    output.check()
    options = options or DecodingOptions()
    if (options.n_best or 1) > 1 and not (output.file or output.format == "json"):
        raise AsrError(
            "--n-best: texts other than the best are written as JSON; add --output FILE, or --output-dir DIR "
            "and --format json"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    inputs, problems = find_inputs(arguments)
    targets = _targets(inputs, output)
    if output.resume:
        inputs, targets = _left(inputs, targets, output)
    recognizer = Recognizer(model, device, batch_seconds, options, precision)
    for problem in problems:
        _report(problem)
    failed = len(problems)
    with _open(output) as lines, _Progress(len(inputs)) as progress:
        results = recognizer.transcribe_all(inputs)
        for input, target, result in zip(inputs, targets, results, strict=True):
            if isinstance(result, AsrError):
                failed += 1
                _report(result)
            elif target:
                with atomic_write(target) as out:
                    out.write(FORMATS[output.format or "txt"](result))
            elif lines:
                _write_line(lines, result.to_json(), output)
            else:
                progress.print(f"{printable(input.id)}\t{result.text}")
            progress.advance(result.duration if isinstance(result, Transcript) else 0.0)
    if failed:
        total = len(inputs) + len(problems)
        print(f"asr: {failed} of {total} inputs could not be transcribed", file=sys.stderr)
    return failed


def _targets(inputs: list[Input], output: Output) -> list[Path | None]:
    """The output file of each input, for --output-dir."""
    if not output.folder:
        return [None] * len(inputs)
    return list(output_paths(inputs, output.folder, output.format or "txt"))


def _left(
    inputs: list[Input], targets: list[Path | None], output: Output
) -> tuple[list[Input], list[Path | None]]:
    """The inputs, with their targets, that have no result yet."""
    if output.folder:
        pairs = [(i, t) for i, t in zip(inputs, targets, strict=True) if t and not os.path.exists(t)]  # noqa: PTH110
        return [i for i, _ in pairs], [t for _, t in pairs]
    assert output.file is not None
    done = Counter(_repair(output.file))
    left = []
    for input in inputs:
        if done[input.id]:
            done[input.id] -= 1
        else:
            left.append(input)
    return left, [None] * len(left)


def _repair(path: Path) -> list[str]:
    """The ids of the results in a file. An incomplete last line, left by an interrupted run, is cut off.

    Raises AsrError for a file that is not made of transcripts.
    """
    ids, complete = [], 0
    try:
        with path.open("rb+") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    file.truncate(complete)
                    break
                complete += len(line)
                try:
                    ids.append(str(json.loads(line)["id"]))
                except (ValueError, KeyError, TypeError):
                    raise AsrError(
                        f"{printable(path)}, line {number}: not a transcript; give --output another name"
                    ) from None
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AsrError(f"{printable(path)}: cannot be continued ({error.strerror}); check it") from None
    return ids


@contextmanager
def _open(output: Output) -> Iterator[TextIO | None]:
    """The open file of --output, which is written through links and to devices; None for other outputs."""
    if output.file is None:
        yield None
    elif str(output.file) == "-":
        yield sys.stdout
    else:
        try:
            output.file.parent.mkdir(parents=True, exist_ok=True)
            mode = "w" if output.overwrite else "a"
            file = output.file.open(mode, encoding="utf-8", newline="\n")
        except OSError as error:
            raise AsrError(
                f"{printable(output.file)}: cannot be written ({error.strerror}); check the path"
            ) from None
        with file:
            yield file


def _write_line(lines: TextIO, line: str, output: Output) -> None:
    """Write a whole line and hand it to the system, so that an interrupted run keeps it."""
    try:
        lines.write(line + "\n")
        lines.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AsrError(
            f"{output.file}: cannot be written ({error.strerror}); make room, then add --resume"
        ) from None


def _has_content(path: Path) -> bool:
    """Whether it is a regular file that is not empty."""
    try:
        return os.path.isfile(path) and os.path.getsize(path) > 0  # noqa: PTH113, PTH202
    except OSError:
        return False


def _report(error: AsrError) -> None:
    print(f"asr: error: {error}", file=sys.stderr)


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
        )
        self._task = self._bar.add_task("transcribing", total=total)
        self._seconds, self._began = 0.0, time.monotonic()

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def print(self, line: str) -> None:
        """A line on standard output, never wrapped."""
        if sys.stdout.isatty():
            self._bar.console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)
        else:
            print(line, flush=True)

    def advance(self, seconds: float) -> None:
        """One input with so many seconds of audio is done."""
        self._seconds += seconds
        speed = self._seconds / (time.monotonic() - self._began)
        self._bar.update(self._task, advance=1, description=f"transcribing, {speed:.0f} x real time")
