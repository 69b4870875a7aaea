"""The places of the results of `asr transcribe`: a file of JSON lines, a folder, or the terminal."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from asr.errors import AsrError
from asr.files import printable
from asr.transcription.inputs import Input, output_paths
from asr.transcription.transcript import Transcript


@dataclass(frozen=True)
class Output:
    """The place of the transcripts: the terminal, unless a file or a folder is named."""

    file: Path | None = None  # one JSON line for each input; "-" is standard output
    folder: Path | None = None  # one file for each input
    format: str | None = None  # of the files in the folder
    resume: bool = False  # leave out inputs whose result exists already
    overwrite: bool = False  # replace a file that has content

    def check(self) -> None:
        """Raises AsrError for options without an effect and for places where nothing can be written."""
        if self.file and self.folder:
            raise AsrError("--output and --output-dir: give one of them")
        if self.format and not self.folder:
            raise AsrError("--format is for files in a folder; add --output-dir DIR")
        if self.resume and not (self.folder or (self.file and _can_be_continued(self.file))):
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

    def plan(self, inputs: Sequence[Input]) -> list[tuple[Input, Path | None]]:
        """The inputs to transcribe, each with its file in the folder. `resume` leaves out finished ones.

        Raises AsrError when two inputs have the same file, when --output names an input, and for a file that
        cannot be continued.
        """
        if self.folder:
            paths = output_paths(inputs, self.folder, self.format or "txt")
            pairs = zip(inputs, paths, strict=True)
            return [(i, p) for i, p in pairs if not (self.resume and os.path.exists(p))]  # noqa: PTH110
        if self.file and _has_content(self.file):
            for input in inputs:
                if isinstance(input.audio, Path) and _same_file(input.audio, self.file):
                    raise AsrError(f"{printable(self.file)}: an input; give --output another name")
        done = Counter(_finished(self.file) if self.file and self.resume else ())
        planned: list[tuple[Input, Path | None]] = []
        for input in inputs:
            if done[input.id]:
                done[input.id] -= 1
            else:
                planned.append((input, None))
        return planned

    @contextmanager
    def open(self) -> Iterator[IO[str] | None]:
        """The open file; None for other places. Links and devices are written to, not replaced."""
        if self.file is None or str(self.file) == "-":
            yield None
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Appending also keeps what was written before to the file behind /dev/stdout.
            file = self.file.open("a", encoding="utf-8", newline="\n")
            if self.overwrite and os.path.isfile(self.file):  # noqa: PTH113
                file.truncate(0)
        except OSError as error:
            raise AsrError(
                f"{printable(self.file)}: cannot be written ({error.strerror}); check the path"
            ) from None
        try:
            yield file
        finally:
            with suppress(OSError):  # every line was flushed; closing has nothing to add
                file.close()


def write_result(file: IO[str], result: Transcript) -> None:
    """Write a whole line and hand it to the system, so that an interrupted run keeps it.

    Raises AsrError when it cannot be written, and BrokenPipeError when its reader has left.
    """
    try:
        file.write(result.to_json() + "\n")
        file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AsrError(
            f"{printable(file.name)}: cannot be written ({error.strerror}); make room, then add --resume"
        ) from None


def _finished(path: Path) -> list[str]:
    """The ids of the results in a file. An incomplete last line, left by an interrupted run, is cut off.

    Raises AsrError, and changes nothing, for a file that is not made of transcripts.
    """
    ids, complete = [], 0
    try:
        with path.open("rb+") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n") and _begins_result(line):
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


def _begins_result(line: bytes) -> bool:
    """Whether it can be the beginning of a transcript in JSON."""
    beginning = b'{"id": "'
    return line[: len(beginning)] == beginning[: len(line)]


def _has_content(path: Path) -> bool:
    """Whether it is a regular file that is not empty."""
    try:
        return os.path.isfile(path) and os.path.getsize(path) > 0  # noqa: PTH113, PTH202
    except OSError:
        return False


def _can_be_continued(path: Path) -> bool:
    """Whether a later run can find the results: not on standard output or a device."""
    return str(path) != "-" and (os.path.isfile(path) or not os.path.exists(path))  # noqa: PTH110, PTH113


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)  # noqa: PTH121
    except OSError:
        return False
