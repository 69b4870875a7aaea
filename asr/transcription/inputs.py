"""The recordings to transcribe: files, folders, patterns, manifests, standard input, and data in memory."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr.audio import EXTENSIONS, Source
from asr.datasets.manifest import read_manifest
from asr.errors import AsrError
from asr.files import files_below, printable

_EMPTY = "an empty argument is not a path; give a file, a folder, a pattern or a manifest"


@dataclass(frozen=True)
class Input:
    """One recording, or a part of one. `Input.of("a.wav")` is the usual way to make one."""

    id: str  # identifies it in results and messages: its path, or its id in a manifest
    audio: Source | np.ndarray  # a path, the bytes of a file, an open binary file, or samples
    name: Path  # the output file below the output folder, without its suffix
    start: float = 0.0  # seconds from the start of the file
    duration: float | None = None  # seconds; None: to the end
    sample_rate: int | None = None  # of samples, in Hz; a file has its own

    @classmethod
    def of(cls, source: Any, id: str | None = None, sample_rate: int | None = None) -> Input:
        """A whole recording.

        `source` is a path, the bytes of a file, an open binary file, a numpy array or a torch tensor. Arrays
        and tensors are (samples,) or (samples, channels) and need their `sample_rate` in Hz. Raises
        AsrError for an array without one and for an empty path.
        """
        if isinstance(source, str | os.PathLike):
            if not os.fspath(source):
                raise AsrError(_EMPTY)
            path = Path(source)
            return cls(os.fspath(source) if id is None else id, path, Path(path.stem))
        if isinstance(source, torch.Tensor):
            # numpy has no bfloat16.
            source = (source.float() if source.is_floating_point() else source).detach().cpu().numpy()
        if isinstance(source, np.ndarray):
            if sample_rate is None:
                raise AsrError(
                    "an array needs its sample_rate, in Hz: transcribe(samples, sample_rate=16000)"
                )
            return cls(id or "array", source, Path(id or "array"), sample_rate=sample_rate)
        if isinstance(source, bytearray | memoryview):
            source = bytes(source)
        label = getattr(source, "name", None)  # an open file has a name or a number
        name = id or (label if isinstance(label, str) else "audio data")
        return cls(name, source, Path(Path(name).stem))

    @property
    def label(self) -> str | None:
        """The name in messages: None for a file, whose path is named, and the id for data in memory."""
        return None if isinstance(self.audio, Path) else self.id

    @property
    def path(self) -> str:
        """The path of the file, or "" for data in memory."""
        return str(self.audio) if isinstance(self.audio, Path) else ""


def find_inputs(arguments: Iterable[str]) -> tuple[list[Input], list[AsrError]]:
    """The recordings that the arguments name, in this order, and an error for each argument that names none.

    The files of a folder are sorted by path. `-` is standard input. A missing file is an input too: it is
    reported when its turn comes. An empty folder, a pattern that matches nothing or a broken manifest is
    reported and does not stop the others.
    """
    inputs: list[Input] = []
    problems: list[AsrError] = []
    for argument in arguments:
        try:
            base = _folder_of_pattern(argument)
            for each in _matches(argument):
                try:
                    if each == "-" and any(input.id == "-" for input in inputs):
                        raise AsrError("-: standard input can be read only once; give it once")
                    inputs += [_below(base, input) for input in _inputs_of(each, problems)]
                except AsrError as error:
                    problems.append(error)
        except AsrError as error:
            problems.append(error)
    return inputs, problems


def _matches(argument: str) -> list[str]:
    """The paths that a pattern matches, sorted; other arguments as they are."""
    if not glob.has_magic(argument) or os.path.exists(argument):  # noqa: PTH110
        return [argument]
    matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  absolute patterns too
    if "**" in argument:  # it matches the files of each folder too
        matches = [match for match in matches if not os.path.isdir(match)]  # noqa: PTH112
    if not matches:
        raise AsrError(f"{printable(argument)}: no file matches this pattern; check it, and the folder")
    return matches


def _folder_of_pattern(argument: str) -> Path | None:
    """The folder above everything that a pattern matches; None for an argument that is no pattern."""
    if not glob.has_magic(argument) or os.path.exists(argument):  # noqa: PTH110
        return None
    parts = Path(argument).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _below(base: Path | None, input: Input) -> Input:
    """The input, named by its path relative to the folder of the pattern that matched it."""
    if base is None or not isinstance(input.audio, Path) or input.name.name != input.audio.stem:
        return input
    try:
        folder = input.audio.relative_to(base).parent
    except ValueError:
        return input
    return replace(input, name=folder / input.name.name)


def _inputs_of(argument: str, problems: list[AsrError]) -> list[Input]:
    """The recordings of a path, or standard input.

    Adds an error to `problems` for each folder that cannot be listed. Raises AsrError when there are none.
    """
    if not argument.strip():
        raise AsrError(_EMPTY)
    if argument == "-":
        if sys.stdin is None:
            raise AsrError("-: standard input is closed; give a file")
        return [Input("-", sys.stdin.buffer, Path("stdin"))]
    path = Path(argument)
    if _is_folder(path):
        found = [p for p in files_below(path, problems) if p.suffix.lower() in EXTENSIONS]
        if not found:
            raise AsrError(
                f"{printable(path)}: no audio in this folder (looked for "
                f"{' '.join(EXTENSIONS)}); give a folder that has some"
            )
        return [Input(str(p), p, p.relative_to(path).with_suffix("")) for p in found]
    if path.suffix == ".jsonl":
        return [
            Input(u.id, u.audio, Path(u.id.replace("/", "_")), u.start, u.duration)
            for u in read_manifest(path)
        ]
    return [Input.of(argument)]


def output_paths(inputs: Sequence[Input], folder: Path, *suffixes: str) -> list[tuple[Path, ...]]:
    """One output file of each suffix for each input, named after it.

    Raises AsrError for two inputs with the same name, and for an output that is an input.
    """
    paths = [tuple(folder / f"{i.name}.{suffix}" for suffix in suffixes) for i in inputs]
    shared = [each for each, count in Counter(paths).items() if count > 1]
    if shared:
        first, second = [i.id for i, each in zip(inputs, paths, strict=True) if each == shared[0]][:2]
        raise AsrError(
            f"{printable(shared[0][0])}: both {printable(first)} and {printable(second)} would be written to "
            "it; write them to different folders"
        )
    # Only a file with the name of an output can be one. To resolve the path of every file would take time.
    alike = [i.audio for i in inputs if isinstance(i.audio, Path) and i.audio.suffix[1:] in suffixes]
    outputs = {os.path.realpath(path) for each in paths for path in each} if alike else set()
    for path in alike:
        if os.path.realpath(path) in outputs:
            raise AsrError(
                f"{printable(path)}: this is an input, and a transcript would replace it; use another folder"
            )
    return paths


def is_portable(input: Input) -> bool:
    """Whether another process can read it. This is true for all inputs except pipes and open files."""
    if isinstance(input.audio, Path):
        try:
            return not stat.S_ISFIFO(input.audio.stat().st_mode)
        except (OSError, ValueError):
            return True  # its error is the same anywhere
    return isinstance(input.audio, bytes | np.ndarray)


def in_memory(input: Input) -> Input:
    """The input with the bytes of its pipe or open file. A file that can seek is read from its beginning.

    Raises AsrError when it cannot be read, and for a file that was opened as text.
    """
    source: Any = input.audio
    data: bytes | str
    if not isinstance(source, Path) and not callable(getattr(source, "read", None)):
        return input  # the reader of audio says what it is
    try:
        if isinstance(source, Path):
            data = source.read_bytes()
        else:
            if callable(getattr(source, "seekable", None)) and source.seekable():
                source.seek(0)
            data = source.read()
    except UnicodeDecodeError:
        data = ""
    except (OSError, ValueError) as error:
        raise AsrError(
            f"{printable(input.id)}: cannot be read ({error}); check the program that writes to it"
        ) from None
    if not isinstance(data, bytes):
        raise AsrError(f"{printable(input.id)}: opened as text; open audio in binary mode, with 'rb'")
    return replace(input, audio=data)


def _is_folder(path: Path) -> bool:
    """Whether it is a folder. Unlike Path.is_dir, it is False without permission to look."""
    return os.path.isdir(path)  # noqa: PTH112
