"""Reading texts to be scored: utterance id -> text, from the formats recognisers and corpora come in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from asr.errors import AsrError
from asr.scoring import tables, timed

FORMATS = ("trn", "kaldi", "tsv", "csv", "jsonl", "folder", "ctm", "stm")
LIMIT = 1_000_000
"""Characters one text may have; more is a line break that is missing, or hours of work for the alignment."""


class Row(NamedTuple):
    """What a reader found: the line it stands in (0 for a file of its own), and what else is known of it."""

    line: int
    id: str
    text: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Texts:
    """Texts by utterance id in the order of the file, and what else it says about them.

    `attributes` holds, for ids that have any, values by key: speaker, lang, audio, duration, and any other
    key of a manifest or column of a table. `format` is one of FORMATS. `segments` are those of an stm.
    """

    texts: dict[str, str]
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: str = "tsv"
    segments: tuple[timed.Segment, ...] = ()


def read_texts(path: str | os.PathLike[str], format: str | None = None) -> dict[str, str]:
    """Texts of a file by utterance id, in the order of the file, exactly as they stand there: see `read`."""
    return read(path, format).texts


def read(path: str | os.PathLike[str], format: str | None = None, *, hyp: bool = False) -> Texts:
    """Texts and attributes of a file or folder. Without `format` (one of FORMATS), it is recognised.

    trn      `words (id)` per line, `;;` begins a comment; the speaker is the id up to its first - or _
    kaldi    `id words` per line; a file named `text`, or ending in .text or .txt, that is nothing else
    tsv      the first line names the columns, `id` and `text` among them; quotes are ordinary characters
    csv      the same with commas, and with quotes as spreadsheets write them
    jsonl    an object per line with `id` and `text`; NeMo's `audio_filepath` stands in for `id`; with
             `hyp`, `pred_text` is the text where the first object has one
    folder   .txt files, also in folders below; the id is the path in the folder without its ending
    ctm      one text per recording, of all its words (with stm references: see `read_pair`)
    stm      one text per segment

    Empty lines and a byte order mark are ignored. Raises AsrError naming the file, and the line where there
    is one: a file that is missing, not UTF-8 or without any utterance, a line that is not of the format, an
    id that is empty or occurs twice, a text longer than LIMIT.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise AsrError(f"{path}: {format!r} is no format; choose one of {', '.join(FORMATS)}")
    if format == "folder" or (format is None and path.is_dir()):
        return _collect(_folder(path), path, "folder")
    content = read_file(path)
    format = format or recognise(path, content)
    texts = _collect(_rows(content, path, format, hyp), path, format)
    return replace(texts, segments=tuple(timed.stm(content, path))) if format == "stm" else texts


def read_pair(
    ref: str | os.PathLike[str],
    hyp: str | os.PathLike[str],
    ref_format: str | None = None,
    hyp_format: str | None = None,
) -> tuple[Texts, Texts]:
    """References and hypotheses with common ids. Words of a ctm are put into the segments of an stm by time.

    Each word goes to the segment of its file and channel that holds its midpoint, or the nearest one; words
    of a file and channel the references lack make an utterance of their own, which will be reported.
    Raises as `read`.
    """
    ref_texts = read(ref, ref_format)
    return ref_texts, read_hyp(hyp, ref_texts, hyp_format)


def read_hyp(path: str | os.PathLike[str], refs: Texts, format: str | None = None) -> Texts:
    """Hypotheses for references that are already read: see `read_pair`."""
    path = Path(path)
    if refs.format != "stm":
        return read(path, format, hyp=True)
    if format is None and not path.is_dir():
        format = recognise(path, read_file(path))
    if format != "ctm":
        return read(path, format, hyp=True)
    return Texts(timed.assign(timed.ctm(read_file(path), path), refs.segments), format="ctm")


def recognise(path: Path, content: str) -> str:
    """The format of a file, by content and ending; "tsv" where nothing speaks for another."""
    ending = path.suffix.lower()
    if re.match(r'\s*\{\s*("|\}|$)', content) and ending != ".trn":
        return "jsonl"
    if ending in (".trn", ".ctm", ".stm", ".csv", ".tsv"):
        return ending[1:]
    head = [line for _, line in tables.numbered(content[:10_000]) if not line.startswith(";;")][:20]
    first = head[0] if head else ""
    if {"id", "text"} <= set(first.split("\t")):
        return "tsv"
    if {"id", "text"} <= set(first.replace('"', "").split(",")):
        return "csv"
    if head and all(re.search(r"\(\S+\)\s*$", line) for line in head[: len(head) - 1] or head):
        return "trn"
    return "kaldi" if head and (path.name == "text" or ending in (".text", ".txt")) else "tsv"


def read_file(path: Path) -> str:
    """Content of a UTF-8 file without byte order mark. Raises AsrError with the line that is not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AsrError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AsrError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _collect(rows: Iterable[tuple[int, str, str, dict[str, Any]]], path: Path, format: str) -> Texts:
    """What all formats share: ids empty or standing twice, texts too long, files with nothing in them."""
    texts: dict[str, str] = {}
    attributes: dict[str, dict[str, Any]] = {}
    for number, id, text, more in rows:
        if not id:
            raise AsrError(f"{path}, line {number}: the id is empty; give every utterance an id")
        if id in texts:
            # Read again only for the message: the lines of a million ids are not worth holding.
            again = _rows(read_file(path), path, format)
            first = next((line for line, other, _, _ in again if other == id), number)
            raise AsrError(
                f"{path}, line {number}: id {id!r} stands already in line {first}; "
                "ids must be unique: rename or delete one"
            )
        if len(text) > LIMIT:
            raise AsrError(
                f"{path}, line {number}: the text of {id[:60]!r} has {len(text):,} characters, more than "
                f"{LIMIT:,}; is a line break missing? Cut it into utterances"
            )
        texts[id] = text
        if more:
            attributes[id] = more
    if not texts:
        raise AsrError(f"{path}: no utterances in it; check that what should have written it has succeeded")
    return Texts(texts, attributes, format)


def _rows(content: str, path: Path, format: str, hyp: bool = False) -> tables.Rows:
    match format:
        case "stm":
            return (Row(s.line, s.id, s.text, s.attributes) for s in timed.stm(content, path))
        case "jsonl":
            return tables.json_lines(content, path, hyp)
    readers = {"trn": _trn, "kaldi": _kaldi, "tsv": tables.tsv, "csv": tables.csv_table}
    return (readers | {"ctm": timed.by_recording})[format](content, path)


def _trn(content: str, path: Path) -> Iterator[Row]:
    for number, line in tables.numbered(content):
        if line.startswith(";;") or not line.strip():
            continue
        if not (match := re.search(r"\(([^\s()]*)\)\s*$", line)):
            shown = line if len(line) <= 60 else "..." + line[-60:]
            raise AsrError(f"{path}, line {number}: no (id) at the end of {shown!r}; trn is `words (id)`")
        id = match[1]
        speaker = re.split(r"[-_]", id, maxsplit=1)[0]
        yield Row(number, id, line[: match.start()].strip(), {"speaker": speaker} if speaker != id else {})


def _kaldi(content: str, path: Path) -> Iterator[Row]:
    for number, line in tables.numbered(content):
        if line.strip():
            id, _, text = line.strip().replace("\t", " ", 1).partition(" ")
            yield Row(number, id, text.strip(), {})


def _folder(path: Path) -> Iterator[Row]:
    files = sorted(path.rglob("*.txt")) if path.is_dir() else []
    if not files:
        raise AsrError(f"{path}: cannot be read as a folder (no .txt files in it); check the path")
    for file in files:
        yield Row(1, file.relative_to(path).with_suffix("").as_posix(), read_file(file).strip(), {})
