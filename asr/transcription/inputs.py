"""The recordings to transcribe: files, folders, patterns, manifests, standard input, and data in memory."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.audio import EXTENSIONS, Source
from asr.datasets.manifest import read_manifest
from asr.errors import AsrError
from asr.files import printable


@dataclass(frozen=True)
class Input:
    """One recording, or a part of one. `Input.of("a.wav")` is the usual way to make one."""

    id: str  # shown in the terminal: the path as it was given, or the id in a manifest
    audio: Source  # a path, the bytes of a file, or an open binary file
    name: Path  # the output file below the output folder, without its suffix
    start: float = 0.0  # seconds from the start of the file
    duration: float | None = None  # seconds; None: to the end

    @classmethod
    def of(cls, source: Source | str, id: str | None = None) -> Input:
        """The whole recording of a path, of the bytes of a file, or of an open binary file."""
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            return cls(os.fspath(source) if id is None else id, path, Path(path.stem))
        name = id or str(getattr(source, "name", "audio"))
        return cls(name, source, Path(Path(name).stem))

    @property
    def path(self) -> str:
        """The path of the file, or "" for data in memory."""
        return str(self.audio) if isinstance(self.audio, Path) else ""


def find_inputs(arguments: Iterable[str]) -> tuple[list[Input], list[AsrError]]:
    """The recordings that the arguments name, in the order given, and what is wrong with arguments.

    The files of a folder are sorted by path. `-` is standard input. A missing file is an input too: it is
    reported when its turn comes. An argument without any recording, such as an empty folder, a pattern that
    matches nothing or a broken manifest, is reported and does not stop the others.
    """
    inputs: list[Input] = []
    problems: list[AsrError] = []
    for argument in arguments:
        try:
            inputs += _inputs_of(argument)
        except AsrError as error:
            problems.append(error)
    return inputs, problems


def _inputs_of(argument: str) -> list[Input]:
    """The recordings that one argument names. Raises AsrError when it names none."""
    path = Path(argument)
    if not argument.strip():
        raise AsrError("an empty argument is not a path; give a file, a folder, a pattern or a manifest")
    if argument == "-":
        return [Input("-", sys.stdin.buffer, Path("stdin"))]
    if _is_folder(path):
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and not _is_folder(p))
        if not found:
            raise AsrError(f"{printable(path)}: no audio in this folder (looked for {' '.join(EXTENSIONS)})")
        return [Input(str(p), p, p.relative_to(path).with_suffix("")) for p in found]
    if path.suffix == ".jsonl":
        return [
            Input(u.id, u.audio, Path(u.id.replace("/", "_")), u.start, u.duration)
            for u in read_manifest(path)
        ]
    if glob.has_magic(argument) and not os.path.exists(path):  # noqa: PTH110
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  absolute patterns too
        if not matches:
            raise AsrError(f"{printable(argument)}: no file matches this pattern; check it, and the folder")
        return [input for match in matches for input in _inputs_of(match)]
    return [Input.of(argument)]


def output_paths(inputs: Sequence[Input], folder: Path, suffix: str) -> list[Path]:
    """One output file for each input, named after it. Raises AsrError for two inputs with the same name."""
    paths = [folder / f"{i.name}.{suffix}" for i in inputs]
    shared = [path for path, count in Counter(paths).items() if count > 1]
    if shared:
        first, second = [i.id for i, path in zip(inputs, paths, strict=True) if path == shared[0]][:2]
        raise AsrError(
            f"{printable(shared[0])}: both {printable(first)} and {printable(second)} would be written to "
            "it; write them to different folders"
        )
    return paths


def _is_folder(path: Path) -> bool:
    """Whether it is a folder. Unlike Path.is_dir, it is False without permission to look."""
    return os.path.isdir(path)  # noqa: PTH112
