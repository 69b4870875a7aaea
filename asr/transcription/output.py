"""The places of the results of `asr transcribe`: one file, a folder, or the terminal."""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO

from asr.errors import AsrError
from asr.files import atomic_write, printable, remove_temporaries
from asr.transcription.formats import FORMATS, HIGHLIGHTED
from asr.transcription.inputs import Input, output_paths
from asr.transcription.transcript import Transcript


@dataclass(frozen=True)
class Output:
    """The place of the transcripts: the terminal, unless a file or a folder is named."""

    file: Path | None = None  # results one after the other; "-" is standard output
    folder: Path | None = None  # one file of each format for each input
    formats: tuple[str, ...] = ()  # default: txt in a folder, json in a file, id and text in the terminal
    resume: bool = False  # leave out inputs whose result exists already
    overwrite: bool = False  # replace a file that has content
    highlight_words: bool = False  # mark the spoken word in subtitles

    def check(self) -> None:
        """Raises AsrError for options without an effect and for places where nothing can be written."""
        if self.file and self.folder:
            raise AsrError("--output and --output-dir: give one of them")
        for name in self.formats:
            if name not in FORMATS:
                raise AsrError(f"--format {name}: unknown; choose from {', '.join(FORMATS)}")
        if len(self.formats) > 1 and not self.folder:
            raise AsrError(f"--format {','.join(self.formats)}: several formats need --output-dir DIR")
        if self.highlight_words and not HIGHLIGHTED.keys() & set(self.formats):
            raise AsrError("--highlight-words is for subtitles; add --format srt or --format vtt")
        if self.resume and not (self.folder or (self.file and _can_be_continued(self.file))):
            raise AsrError("--resume needs results to continue; add --output FILE or --output-dir DIR")
        if self.resume and self.file and self.stream_format != "json":
            raise AsrError("--resume continues a file of JSON lines; leave --format out, or use --output-dir")
        if self.overwrite and (self.resume or not self.file):
            raise AsrError(
                "--overwrite is only for the file of --output, without --resume; leave --overwrite out"
            )
        # Path's methods fail without permission to look; os.path's do not.
        if self.file and os.path.isdir(self.file):  # noqa: PTH112
            raise AsrError(f"{printable(self.file)}: this is a folder; give --output the name of a file")
        if self.folder and os.path.exists(self.folder) and not os.path.isdir(self.folder):  # noqa: PTH110, PTH112
            raise AsrError(
                f"{printable(self.folder)}: this is a file; give --output-dir the name of a folder"
            )
        if self.file and not (self.resume or self.overwrite) and _has_content(self.file):
            raise AsrError(
                f"{printable(self.file)}: the file has content already; add --resume to continue it, or "
                "--overwrite"
            )

    @property
    def stream_format(self) -> str | None:
        """The format of the one file or of standard output; None: id and text of each input."""
        if self.folder:
            return None
        return self.formats[0] if self.formats else "json" if self.file else None

    @property
    def folder_formats(self) -> tuple[str, ...]:
        """The formats of the files in the folder."""
        return (self.formats or ("txt",)) if self.folder else ()

    def check_words(self, has_word_times: bool) -> None:
        """Raises AsrError for a format that needs the times of words, of a model that cannot give them."""
        needing = [name for name in self.formats if FORMATS[name].words]
        if needing and not has_word_times:
            others = ", ".join(name for name, format in FORMATS.items() if not format.words)
            raise AsrError(
                f"--format {needing[0]}: needs the times of words, which this model without CTC cannot give; "
                f"choose {others}"
            )

    def check_shared(self) -> None:
        """Raises AsrError where processes of torchrun cannot share the place of the results."""
        if not (self.folder or (self.file and str(self.file) != "-")) or (
            self.file and self.stream_format != "json"
        ):
            raise AsrError(
                "torchrun: several processes cannot write to one stream; add --output-dir DIR, or "
                "--output FILE for JSON lines"
            )

    def paths(self, inputs: Sequence[Input]) -> list[tuple[Path, ...]]:
        """The files of each input in the folder. Raises AsrError when two inputs have the same."""
        assert self.folder
        return output_paths(inputs, self.folder, *(FORMATS[f].suffix or f for f in self.folder_formats))

    def check_inputs(self, inputs: Sequence[Input], arguments: Sequence[str]) -> None:
        """Raises AsrError when --output names an input or an argument, such as a manifest."""
        if self.file and _has_content(self.file):
            sources = [input.audio for input in inputs if isinstance(input.audio, Path)]
            if any(_same_file(source, self.file) for source in (*map(Path, arguments), *sources)):
                raise AsrError(f"{printable(self.file)}: this is an input; give --output another name")

    def plan(self, inputs: Sequence[Input]) -> list[int]:
        """The positions of the inputs to transcribe. `resume` leaves out finished ones.

        Raises AsrError when two inputs have the same file, for a file that cannot be continued, and for
        several inputs in a format that holds one.
        """
        if self.folder:
            paths = self.paths(inputs)
            if not self.resume:
                return list(range(len(inputs)))
            for folder in {path.parent for each in paths for path in each}:
                remove_temporaries(folder)
            return [i for i, p in enumerate(paths) if not all(map(os.path.exists, p))]
        if self.stream_format and not FORMATS[self.stream_format].many and len(inputs) > 1:
            raise AsrError(
                f"--format {self.stream_format}: a file of this format holds one recording, but there are "
                f"{len(inputs)}; add --output-dir DIR"
            )
        done = Counter(_finished(self.file) if self.file and self.resume else ())
        planned: list[int] = []
        for position, input in enumerate(inputs):
            if done[input.id]:
                done[input.id] -= 1
            else:
                planned.append(position)
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
            if os.fstat(file.fileno()).st_size == 0:
                file.write(FORMATS[self.stream_format or "json"].header)
        except OSError as error:
            raise AsrError(
                f"{printable(self.file)}: cannot be written ({error.strerror}); check the path"
            ) from None
        try:
            yield file
        finally:
            with suppress(OSError):  # every line was flushed; closing has nothing to add
                file.close()

    def header(self) -> str:
        """The text with which standard output begins."""
        return FORMATS[self.stream_format].header if self.stream_format else ""

    def stream_text(self, result: Transcript) -> str:
        """A result for the one file or for standard output, with its line end."""
        name = self.stream_format
        if name is None:
            return f"{printable(result.id)}\t{result.text}\n"
        line = FORMATS[name].line
        return line(result) if line else self._write(name, result)

    def _write(self, name: str, result: Transcript) -> str:
        if self.highlight_words and name in HIGHLIGHTED:
            return HIGHLIGHTED[name](result)
        return FORMATS[name].write(result)

    def write_files(self, paths: Sequence[Path], result: Transcript) -> None:
        """Write a result to its files in the folder, each atomically."""
        for name, path in zip(self.folder_formats, paths, strict=True):
            with atomic_write(path) as out:
                out.write(FORMATS[name].header + self._write(name, result))


def write_text(file: IO[str], text: str) -> None:
    """Write whole lines and hand them to the system, so that an interrupted run keeps them.

    Raises AsrError when they cannot be written, and BrokenPipeError when their reader has left.
    """
    try:
        file.write(text)
        file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AsrError(
            f"{printable(file.name)}: cannot be written ({error.strerror}); make room, then add --resume"
        ) from None


def part_of(output: Output, rank: int) -> Output:
    """The place of the results of one of several processes, until they are merged."""
    assert output.file
    file = output.file.with_name(f"{output.file.name}.part{rank}")
    return replace(output, file=file, resume=False, overwrite=True)


def _parts(file: Path) -> list[Path]:
    found = file.parent.glob(f"{glob.escape(file.name)}.part*")
    return sorted(path for path in found if re.fullmatch(r"\.part\d+", path.name[len(file.name) :]))


def begin_parts(output: Output, inputs: Sequence[Input]) -> None:
    """Merge (`resume`) or delete (`overwrite`) the parts that an interrupted run left.

    Raises AsrError if there are parts and neither option is set.
    """
    file = output.file
    assert file
    if output.resume:
        merge_parts(file, inputs)
    elif parts := _parts(file):
        if not output.overwrite:
            raise AsrError(
                f"{printable(parts[0])}: results of an interrupted run; add --resume to continue it, or "
                "--overwrite"
            )
        for path in parts:
            path.unlink()


def remove_file(output: Output) -> None:
    """Delete the file that `overwrite` replaces. A link to it stays."""
    if output.file and output.overwrite and os.path.isfile(output.file):  # noqa: PTH113
        Path(os.path.realpath(output.file)).unlink()


def merge_parts(file: Path, inputs: Sequence[Input]) -> None:
    """Put the results that several processes wrote into the file, in the order of the inputs."""
    parts = _parts(file)
    if not parts:
        return
    places: dict[str, deque[tuple[Path, int]]] = {}  # id -> where its lines begin
    for path in (file, *parts):
        for id, at in zip(_finished(path), _line_starts(path), strict=False):
            places.setdefault(id, deque()).append((path, at))
    with ExitStack() as stack:
        files = {path: stack.enter_context(path.open("rb")) for path in (file, *parts) if path.exists()}
        out = stack.enter_context(atomic_write(file, "wb"))
        listed = [input.id for input in inputs]
        in_order = [places[id].popleft() for id in listed if places.get(id)]
        for path, at in [*in_order, *chain.from_iterable(places.values())]:
            files[path].seek(at)
            out.write(files[path].readline())
    for path in parts:
        path.unlink()


def _line_starts(path: Path) -> Iterator[int]:
    at = 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                yield at
                at += len(line)


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
                    record = json.loads(line)
                    if "segments" not in record:  # it is the line of a manifest
                        raise KeyError
                    ids.append(str(record["id"]))
                except (ValueError, KeyError, TypeError):
                    raise AsrError(
                        f"{printable(path)}, line {number}: not a transcript; give --output another name"
                    ) from None
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AsrError(
            f"{printable(path)}: cannot be continued ({error.strerror}); check the file and its permissions"
        ) from None
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
