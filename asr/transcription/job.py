"""What `asr transcribe` does with its inputs and its results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr.decoding import DecodingOptions
from asr.errors import AsrError
from asr.files import atomic_write
from asr.transcription.inputs import find_inputs, output_paths
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import FORMATS, Transcript


@dataclass(frozen=True)
class Output:
    """Where transcripts go; to the terminal when neither a file nor a folder is named."""

    file: Path | None = None  # one JSON line per input
    folder: Path | None = None  # one file per input
    format: str | None = None  # of the files in the folder
    skip_existing: bool = False

    def check(self) -> None:
        """Refuse options that would do nothing, and places where nothing can be written."""
        if self.file and self.folder:
            raise AsrError("--output and --output-dir: give one of them")
        if not self.folder and (self.format or self.skip_existing):
            name = "--format" if self.format else "--skip-existing"
            raise AsrError(f"{name} is for files in a folder; add --output-dir DIR")
        # Not Path's methods: where one may not look they fail, and atomic_write says it better.
        if self.file and os.path.exists(self.file) and not os.path.isfile(self.file):  # noqa: PTH110, PTH113
            raise AsrError(f"{self.file}: not a file that can be replaced; give --output another name")
        if self.folder and os.path.exists(self.folder) and not os.path.isdir(self.folder):  # noqa: PTH110, PTH112
            raise AsrError(f"{self.folder}: a file; give --output-dir the name of a folder")


def read_hot_words(path: Path) -> tuple[str, ...]:
    """The words and phrases of a file, one in a line; empty lines say nothing.

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
        raise AsrError(f"{path}: no hot words in this file; write one in a line")
    return found


def transcribe_inputs(
    arguments: Iterable[str],
    output: Output,
    model: Path | None,
    device: str,
    batch_seconds: float,
    options: DecodingOptions,
) -> int:
    """Transcribe everything the arguments name; errors go to stderr. Returns how many inputs failed."""
    output.check()
    if (options.n_best or 1) > 1 and not (output.file or output.format == "json"):
        raise AsrError(
            "--n-best: other texts than the best are written as JSON; add --output FILE, or --output-dir DIR "
            "and --format json"
        )
    inputs = find_inputs(arguments)
    finish_reason = output.format or "txt"
    targets: list[Path | None] = [None] * len(inputs)
    if output.folder:
        targets = list(output_paths(inputs, output.folder, finish_reason))
        if output.skip_existing:
            todo = [(i, t) for i, t in zip(inputs, targets, strict=True) if t and not os.path.exists(t)]  # noqa: PTH110
            inputs, targets = [i for i, _ in todo], [t for _, t in todo]
    recognizer = Recognizer(model, device, batch_seconds, options)

    failed, heard, began = 0, 0.0, time.monotonic()
    with ExitStack() as stack:
        bar = stack.enter_context(_progress())
        task = bar.add_task("transcribing", total=len(inputs))
        lines = stack.enter_context(atomic_write(output.file)) if output.file else None
        results = recognizer.transcribe_all(inputs)
        for input, target, result in zip(inputs, targets, results, strict=True):
            if isinstance(result, AsrError):
                failed += 1
                print(f"asr: error: {result}", file=sys.stderr)
            elif target:
                with atomic_write(target) as out:
                    out.write(FORMATS[finish_reason](result))
            elif lines:
                lines.write(result.to_json() + "\n")
            else:
                print(f"{input.id}\t{result.text}", flush=True)
            heard += result.duration if isinstance(result, Transcript) else 0.0
            speed = heard / (time.monotonic() - began)
            bar.update(task, advance=1, description=f"transcribing, {speed:.0f} x real time")
    if failed:
        print(f"asr: {failed} of {len(inputs)} inputs could not be transcribed", file=sys.stderr)
    return failed


def _progress() -> Progress:
    """A bar on stderr, where someone is looking; lines for a terminal go above it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(
        *columns,
        console=console,
        disable=not console.is_terminal,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # rich would send what goes to a file or a pipe to stderr too
    )
