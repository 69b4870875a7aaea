"""The manifest: one JSON object per line, one line per utterance.

    {"id": "a1", "audio": "wav/a1.flac", "text": "seven", "duration": 0.43,
     "speaker": "theo", "lang": "en", "start": 0.0, ...}

`audio` is relative to the manifest's own folder (or absolute). `start` and `duration` (seconds) cut an
utterance out of a longer recording. Keys that are not listed here are kept in `extra` and written back, so
that `split`, `gender` or `age` survive a round trip.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


_REQUIRED = {"id": str, "audio": str, "text": str, "duration": (int, float)}
_OPTIONAL = {"speaker": str, "lang": str, "start": (int, float)}


def read_manifest(path: str | os.PathLike[str]) -> list[Utterance]:
    """All utterances of a manifest, in its order.

    Raises AsrError naming the file and line for a missing file, a line that is not a JSON object, a missing
    key, a value of the wrong type, or an id that occurs twice.
    """
    utterances = list(iter_manifest(path))
    seen: dict[str, int] = {}
    for number, utterance in enumerate(utterances, 1):
        if utterance.id in seen:
            raise AsrError(
                f"{path}: id {utterance.id!r} stands twice (utterances {seen[utterance.id]} and {number}); "
                "ids must be unique: rename one"
            )
        seen[utterance.id] = number
    return utterances


def iter_manifest(path: str | os.PathLike[str]) -> Iterator[Utterance]:
    """Utterances one by one, for manifests larger than memory. Raises as `read_manifest`, ids unchecked."""
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _parse(line, path, number)
    except UnicodeDecodeError as error:
        raise AsrError(f"{path}: not UTF-8 text ({error.reason}); save the manifest as UTF-8") from None
    except OSError as error:
        raise AsrError(f"{path}: cannot read the manifest ({error.strerror}); check the path") from None


def write_manifest(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write a manifest atomically; audio below the manifest's folder is stored relative to it."""
    path = Path(path)
    folder = _absolute(path.parent)
    with atomic_write(path) as out:
        for utterance in utterances:
            out.write(json.dumps(_record(utterance, folder), ensure_ascii=False) + "\n")


def _parse(line: str, path: Path, number: int) -> Utterance:
    where = f"{path}, line {number}"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise AsrError(
            f"{where}: not JSON ({error.msg}, column {error.colno}); mend or delete the line"
        ) from None
    if not isinstance(record, dict):
        raise AsrError(
            f"{where}: a JSON object is needed, not {type(record).__name__}; mend or delete the line"
        )
    for key, kind in _REQUIRED.items():
        if key not in record:
            raise AsrError(f"{where}: no {key!r}; each line needs id, audio, text and duration")
        if not isinstance(record[key], kind) or isinstance(record[key], bool):  # type: ignore[arg-type]
            raise AsrError(
                f"{where}: {key!r} has the wrong type ({type(record[key]).__name__}); mend the value"
            )
    for key, kind in _OPTIONAL.items():
        if record.get(key) is not None and not isinstance(record[key], kind):  # type: ignore[arg-type]
            raise AsrError(
                f"{where}: {key!r} has the wrong type ({type(record[key]).__name__}); mend the value"
            )
    duration, start = float(record["duration"]), float(record.get("start") or 0.0)
    if not (math.isfinite(duration) and duration > 0 and math.isfinite(start) and start >= 0):
        raise AsrError(f"{where}: duration {duration} or start {start} is not a possible time in seconds")
    known = _REQUIRED.keys() | _OPTIONAL.keys()
    return Utterance(
        id=record["id"],
        audio=path.parent / record["audio"],
        text=record["text"],
        duration=duration,
        speaker=record.get("speaker"),
        lang=record.get("lang"),
        start=start,
        extra={key: value for key, value in record.items() if key not in known},
    )


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
