"""The manifest: one JSON object per line, one line per utterance.

    {"id": "a1", "audio": "wav/a1.flac", "text": "seven", "duration": 0.43,
     "speaker": "theo", "lang": "en", "start": 0.0, ...}

`audio` is relative to the manifest's own folder (or absolute). `start` and `duration` (seconds) cut an
utterance out of a longer recording. Keys that are not listed here are kept in `extra` and written back, so
that `split`, `gender` or `age` survive a round trip.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from asr.errors import AsrError
from asr.files import atomic_write


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest. `audio` is a path that can be opened from here; times are in seconds."""

    id: str
    audio: Path
    text: str
    duration: float
    speaker: str | None = None
    lang: str | None = None
    start: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


_REQUIRED: dict[str, Any] = {"id": str, "audio": str, "text": str, "duration": (int, float)}
_OPTIONAL: dict[str, Any] = {"speaker": str, "lang": str, "start": (int, float)}
_KNOWN = _REQUIRED.keys() | _OPTIONAL.keys()
_LONGEST = 1e9  # seconds; NaN, infinity and what float32 cannot hold are beyond it


def read_manifest(path: str | os.PathLike[str]) -> list[Utterance]:
    """All utterances of a manifest, in its order.

    Raises AsrError naming the file and line for a missing file, a line that is not a JSON object, a missing
    key, a value of the wrong type, or an id that occurs twice.
    """
    path = Path(path)
    utterances = []
    seen: dict[str, int] = {}
    for number, _, line in iter_lines(path):
        record = parse_line(line, path, number)
        if (first := seen.setdefault(record["id"], number)) != number:
            raise AsrError(
                f"{path}, line {number}: id {record['id']!r} stands twice (first in line {first}); "
                "ids must be unique: rename one"
            )
        utterances.append(to_utterance(record, path))
    return utterances


def iter_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number (from 1), byte offset and bytes of every line that is not blank.

    Raises AsrError when the file cannot be read.
    """
    offset = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.isspace():
                    yield number, offset, line
                offset += len(line)
    except OSError as error:
        raise AsrError(f"{path}: cannot read the manifest ({error.strerror}); check the path") from None


def write_manifest(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write a manifest atomically; audio below the manifest's folder is stored relative to it."""
    path = Path(path)
    folder = _absolute(path.parent)
    with atomic_write(path) as out:
        for utterance in utterances:
            out.write(json.dumps(_record(utterance, folder), ensure_ascii=False) + "\n")


def parse_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """The JSON object of a line, checked. Raises AsrError naming the file, the line and what is wrong."""
    try:
        record = from_json(line.rstrip(), cache_strings="keys")  # four times as fast as json.loads
    except ValueError as error:
        wrong = f"not JSON ({str(error).replace(' at line 1', ',')}); mend or delete the line"
        try:
            line.decode()
        except UnicodeDecodeError as problem:
            wrong = f"not UTF-8 text ({problem.reason}); save the manifest as UTF-8"
    else:
        wrong = _wrong_with(record)
        if not wrong:
            return record
    raise AsrError(f"{path}, line {number}: {wrong}")


def to_utterance(record: dict[str, Any], path: Path) -> Utterance:
    """The utterance that a checked line of the manifest `path` stands for."""
    return Utterance(
        id=record["id"],
        audio=path.parent / record["audio"],
        text=record["text"],
        duration=float(record["duration"]),
        speaker=record.get("speaker"),
        lang=record.get("lang"),
        start=float(record.get("start") or 0.0),
        extra={key: value for key, value in record.items() if key not in _KNOWN},
    )


def _wrong_with(record: Any) -> str:
    if not isinstance(record, dict):
        return f"a JSON object is needed, not {type(record).__name__}; mend or delete the line"
    for key, kind in _REQUIRED.items():
        if key not in record:
            return f"no {key!r}; each line needs id, audio, text and duration"
        if not isinstance(record[key], kind) or record[key] is True or record[key] is False:
            return f"{key!r} has the wrong type ({type(record[key]).__name__}); mend the value"
    for key, kind in _OPTIONAL.items():
        if (value := record.get(key)) is not None and not isinstance(value, kind):
            return f"{key!r} has the wrong type ({type(value).__name__}); mend the value"
    if "\0" in record["audio"]:
        return "'audio' is not a path; mend the value"
    duration, start = record["duration"], record.get("start") or 0.0
    if not (0 < duration < _LONGEST and 0 <= start < _LONGEST):
        return f"duration {duration} or start {start} is not a possible time in seconds"
    return ""


def _record(utterance: Utterance, folder: Path) -> dict[str, Any]:
    audio = _absolute(utterance.audio)
    record: dict[str, Any] = {
        "id": utterance.id,
        "audio": str(audio.relative_to(folder)) if audio.is_relative_to(folder) else str(audio),
        "text": utterance.text,
        "duration": utterance.duration,
    }
    if utterance.speaker is not None:
        record["speaker"] = utterance.speaker
    if utterance.lang is not None:
        record["lang"] = utterance.lang
    if utterance.start:
        record["start"] = utterance.start
    return record | utterance.extra


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links, and part the two
