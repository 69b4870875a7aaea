"""The manifest: one JSON object per line, one line per utterance.

    {"id": "a1", "audio": "wav/a1.flac", "text": "seven", "duration": 0.43,
     "speaker": "theo", "lang": "en", "start": 0.0, "phonemes": "sɛvən", ...}

Only `audio` is required. Training also needs `text` and `duration`. `phonemes`, one character for each, are
a second target of training; an utterance that has them can be without a text there. `audio` is relative to
the folder of the manifest, or absolute. `start` and `duration` (seconds) select a part of a longer
recording. The default `id` is the value of `audio`, followed by the start where there is one. NVIDIA NeMo's
names `audio_filepath` and `offset` are read as `audio` and `start`. Other keys are kept in `extra` and
written back, so that `split`, `gender` or `age` survive a round trip.
"""

from __future__ import annotations

import json
import os
from codecs import BOM_UTF8
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
    text: str | None = None  # None: not known
    duration: float | None = None  # None: from `start` to the end of the recording
    speaker: str | None = None
    lang: str | None = None
    start: float = 0.0
    phonemes: str | None = None  # one character for each; None: not known
    extra: dict[str, Any] = field(default_factory=dict)


_TYPES: dict[str, Any] = {
    "id": str,
    "audio": str,
    "text": str,
    "duration": (int, float),
    "speaker": str,
    "lang": str,
    "start": (int, float),
    "phonemes": str,
}
_NEMO = {"audio_filepath": "audio", "offset": "start"}
_LONGEST = 1e9  # seconds; larger values, infinity and NaN are refused


def read_manifest(path: str | os.PathLike[str]) -> list[Utterance]:
    """All utterances of a manifest, in its order.

    Raises AsrError naming the file when it is missing or empty, and naming file and line for a line that
    is not a JSON object, a missing `audio`, a value of the wrong type, or a duplicate id.
    """
    path = Path(path)
    utterances = []
    seen: dict[str, int] = {}
    for number, _, line in iter_lines(path):
        record = parse_line(line, path, number)
        if (first := seen.setdefault(record["id"], number)) != number:
            raise AsrError(
                f"{path}, line {number}: duplicate id {record['id']!r} (first in line {first}); "
                "ids must be unique: rename one"
            )
        utterances.append(to_utterance(record, path))
    if not utterances:
        raise AsrError(f"{path}: the manifest is empty; it needs one JSON object on each line")
    return utterances


def iter_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number (from 1), byte offset and bytes of every line that is not blank, without a byte order mark.

    Raises AsrError when the file cannot be read.
    """
    offset = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if number == 1 and line.startswith(BOM_UTF8):
                    line, offset = line[len(BOM_UTF8) :], len(BOM_UTF8)
                if not line.isspace():
                    yield number, offset, line
                offset += len(line)
    except OSError as error:
        raise AsrError(f"{path}: cannot read the manifest ({error.strerror}); check the path") from None


def write_manifest(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write a manifest atomically. Audio below the manifest's folder is stored relative to it."""
    path = Path(path)
    folder = _absolute(path.parent)
    with atomic_write(path) as out:
        for utterance in utterances:
            out.write(json.dumps(to_record(utterance, folder), ensure_ascii=False) + "\n")


def parse_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """The JSON object of a line, checked, with an `id` and without NeMo's names.

    Raises AsrError naming the file, the line and the problem.
    """
    try:
        record = from_json(line.rstrip(), cache_strings="keys")  # four times as fast as json.loads
    except ValueError as error:
        problem = f"not JSON ({str(error).replace(' at line 1', ',')}); correct or delete the line"
        try:
            line.decode()
        except UnicodeDecodeError as decoding:
            problem = f"not UTF-8 text ({decoding.reason}); save the manifest as UTF-8"
    else:
        if isinstance(record, dict):
            for theirs, ours in _NEMO.items():
                if theirs in record and ours not in record:
                    record[ours] = record.pop(theirs)
        problem = _problem(record)
        if not problem:
            if record.get("id") is None:
                record["id"] = default_id(record["audio"], record.get("start"))
            return record
    raise AsrError(f"{path}, line {number}: {problem}")


def default_id(audio: str, start: float | None) -> str:
    """The id of an utterance without one: the path of its recording, with the start where there is one."""
    return f"{audio}-{start:.15g}" if start else audio


def to_utterance(record: dict[str, Any], path: Path) -> Utterance:
    """The utterance that a checked line of the manifest `path` describes."""
    duration = record.get("duration")
    return Utterance(
        id=record["id"],
        audio=path.parent / record["audio"],
        text=record.get("text"),
        duration=None if duration is None else float(duration),
        speaker=record.get("speaker"),
        lang=record.get("lang"),
        start=float(record.get("start") or 0.0),
        phonemes=record.get("phonemes"),
        extra={key: value for key, value in record.items() if key not in _TYPES},
    )


def _problem(record: Any) -> str:
    """What is wrong with a parsed line, and what to do; empty for a good line."""
    if not isinstance(record, dict):
        return f"a JSON object is needed, not {type(record).__name__}; correct or delete the line"
    if record.get("audio") is None:
        return "no 'audio'; each line needs the path of a recording"
    for key, kind in _TYPES.items():
        value = record.get(key)
        if value is not None and (not isinstance(value, kind) or value is True or value is False):
            return f"{key!r} has the wrong type ({type(value).__name__}); correct the value"
    if "\0" in record["audio"]:
        return "'audio' is not a path; correct the value"
    duration, start = record.get("duration"), record.get("start") or 0.0
    if not ((duration is None or 0 < duration < _LONGEST) and 0 <= start < _LONGEST):
        return f"duration {duration} or start {start} is not a possible time in seconds; correct the value"
    return ""


def to_record(utterance: Utterance, folder: Path) -> dict[str, Any]:
    """The object of an utterance's line in a manifest in `folder`."""
    audio = _absolute(utterance.audio)
    record: dict[str, Any] = {
        "id": utterance.id,
        "audio": str(audio.relative_to(folder)) if audio.is_relative_to(folder) else str(audio),
    }
    for key in ("text", "duration", "speaker", "lang"):
        if (value := getattr(utterance, key)) is not None:
            record[key] = value
    if utterance.start:
        record["start"] = utterance.start
    if utterance.phonemes is not None:
        record["phonemes"] = utterance.phonemes
    # An extra value of a corpus must not replace a field of the manifest that has the same name.
    return record | {k: v for k, v in utterance.extra.items() if k not in _TYPES and k not in _NEMO}


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links: the two paths would differ
