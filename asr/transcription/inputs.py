"""What the command line is given to transcribe: files, folders, globs, manifests."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.audio import EXTENSIONS
from asr.datasets.manifest import read_manifest
from asr.errors import AsrError


@dataclass(frozen=True)
class Input:
    """One recording, or a part of one."""

    id: str  # what the terminal shows: the path as it was given, or the id of a manifest's utterance
    audio: Path
    name: Path  # of its output file below the output folder, without ending
    start: float = 0.0  # seconds
    duration: float | None = None  # seconds; None: to the end


def find_inputs(arguments: Iterable[str]) -> list[Input]:
    """The recordings that the arguments name, in the order given; those in a folder are sorted by path.

    A file that is not there is an input too: it is reported in its turn, and stops nothing. Raises AsrError
    for a folder or a pattern without audio, and for a broken manifest.
    """
    inputs: list[Input] = []
    for argument in arguments:
        path = Path(argument)
        if _is_folder(path):
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and not _is_folder(p))
            if not found:
                raise AsrError(f"{path}: no audio in this folder (looked for {' '.join(EXTENSIONS)})")
            inputs += [Input(str(p), p, p.relative_to(path).with_suffix("")) for p in found]
        elif path.suffix == ".jsonl":
            inputs += [
                Input(u.id, u.audio, Path(u.id.replace("/", "_")), u.start, u.duration)
                for u in read_manifest(path)
            ]
        elif glob.has_magic(argument) and not os.path.exists(path):  # noqa: PTH110
            matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  absolute patterns too
            if not matches:
                raise AsrError(f"{argument}: no file matches this pattern; check it, and the folder")
            inputs += find_inputs(matches)
        else:
            inputs.append(Input(argument, path, Path(path.stem)))
    return inputs


def _is_folder(path: Path) -> bool:
    """False, too, where one may not look or the name is impossible: Path.is_dir fails there."""
    return os.path.isdir(path)  # noqa: PTH112


def output_paths(inputs: Sequence[Input], folder: Path, suffix: str) -> list[Path]:
    """One output file for each input, named after it. Raises AsrError when two would have the same name."""
    paths = [folder / f"{i.name}.{suffix}" for i in inputs]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        first, second = [str(i.audio) for i, path in zip(inputs, paths, strict=True) if path == twice[0]][:2]
        raise AsrError(f"{twice[0]}: would hold both {first} and {second}; write them to different folders")
    return paths
