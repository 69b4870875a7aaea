"""Readers of texts to be scored: utterance id -> text, in the formats of recognizers and corpora."""

from __future__ import annotations

import gzip
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from asr.errors import AsrError
from asr.files import printable
from asr.scoring import tables, timed
from asr.scoring.nist import speaker_of

FORMATS = ("trn", "kaldi", "tsv", "csv", "jsonl", "lines", "folder", "ctm", "stm")
LIMIT = 1_000_000
"""The most characters of one text. Longer texts usually mean a missing line break."""


class Row(NamedTuple):
    """One utterance: its line number (1 for a file of its own), id, text and other values by name."""

    line: int
    id: str
    text: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Transcripts:
    """Texts by utterance id in the order of the file, and their other values.

    `attributes` holds, for ids that have any, values by key: speaker, lang, audio, duration, and any other
    key of a manifest or column of a table. `format` is one of FORMATS. `segments` has the segments of an stm.
    """

    texts: dict[str, str]
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: str = "tsv"
    segments: tuple[timed.Segment, ...] = ()


def read_texts(path: str | os.PathLike[str], format: str | None = None) -> dict[str, str]:
    """Texts of a file by utterance id, unchanged and in the order of the file: see `read`."""
    return read(path, format).texts


def read(path: str | os.PathLike[str], format: str | None = None, *, hyp: bool = False) -> Transcripts:
    """Texts and attributes of a file or folder. Without `format` (one of FORMATS), it is detected.

    trn      `words (id)` per line, `;;` begins a comment; the speaker is the id up to its first -, or else _
    kaldi    `id words` per line; detected in a file `text`, *.text or *.txt if every line begins with an id,
             that is a word with a digit and with a letter or one of - _ . /
    tsv      the first line names the columns, `id` and `text` among them; quotes are ordinary characters
    csv      the same with commas, and with quotes as spreadsheets write them
    jsonl    an object per line with `id` and `text`, or NeMo's `audio_filepath` in place of `id`; with
             `hyp`, `pred_text` is the text if the first object has one
    lines    one text per line without ids, empty lines included; ids are line numbers; never detected
    folder   .txt files, also in subfolders; the id is the relative path without the suffix;
             bytes that are not UTF-8 are written as in Python source code
    ctm      one text per recording, of all its words (with stm references: see `read_pair`)
    stm      one text per segment

    The path `-` is standard input. Files compressed with gzip are decompressed. A byte order mark is ignored,
    and so are empty lines (except in `lines`). Raises AsrError with the file, and the line if there is one: a
    file that is missing, not UTF-8 or without any utterance, a line that is not of the format, an id that is
    empty or a duplicate, a text longer than LIMIT.
    """
    path = Path(path)
    _check_format(path, format)
    if format == "folder" or (format is None and path.is_dir()):
        return _collect(lambda: _folder(path), path, "folder")
    return _parse(read_file(path), path, format, hyp)


def read_pair(
    ref: str | os.PathLike[str],
    hyp: str | os.PathLike[str],
    ref_format: str | None = None,
    hyp_format: str | None = None,
) -> tuple[Transcripts, Transcripts]:
    """References and hypotheses with common ids. Words of a ctm go to the segments of an stm: `timed.assign`.

    If one side has the format "lines" and the other side has no format, the other side is read as "lines"
    too. Both must then have the same number of lines. Raises as `read`.
    """
    if hyp_format == "lines" and ref_format is None:
        ref_format = "lines"
    refs = read(ref, ref_format)
    return refs, read_hyp(hyp, refs, hyp_format)


def read_hyp(path: str | os.PathLike[str], refs: Transcripts, format: str | None = None) -> Transcripts:
    """Hypotheses for references that are already read: see `read_pair`."""
    path = Path(path)
    if refs.format == "lines":
        hyps = read(path, format or "lines", hyp=True)
        if hyps.format == "lines" and len(hyps.texts) != len(refs.texts):
            raise AsrError(
                f"{path}: {len(hyps.texts)} lines, but the references have {len(refs.texts)}; texts without "
                "ids match by line number, so write one line per reference, empty if there is no text"
            )
        return hyps
    if refs.format != "stm" or format not in (None, "ctm") or path.is_dir():
        return read(path, format, hyp=True)
    content = read_file(path)
    if (format or detect(path, content, hyp=True)) != "ctm":
        return _parse(content, path, format, hyp=True)
    return Transcripts(timed.assign(timed.ctm(content, path), refs.segments), format="ctm")


def _check_format(path: Path, format: str | None) -> None:
    if format is not None and format not in FORMATS:
        raise AsrError(f"{path}: unknown format {format!r}; choose one of {', '.join(FORMATS)}")


def _parse(content: str, path: Path, format: str | None, hyp: bool) -> Transcripts:
    format = format or detect(path, content, hyp)
    texts = _collect(lambda: _rows(content, path, format, hyp), path, format)
    return replace(texts, segments=tuple(timed.stm(content, path))) if format == "stm" else texts


def detect(path: Path, content: str, hyp: bool = False) -> str:
    """The format of a file, by content and suffix; "tsv" if there is no sign of another.

    Raises AsrError for text that may be Kaldi's or lines without ids.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if re.match(r'\s*\{\s*("|\}|$)', content) and suffix != ".trn":
        return "jsonl"
    if suffix in (".trn", ".ctm", ".stm", ".csv", ".tsv"):
        return suffix[1:]
    head = [line for _, line in tables.numbered(content[:10_000]) if not line.startswith(";;")][:20]
    first = head[0] if head else ""
    if {"id", "text"} <= set(first.split("\t")):
        return "tsv"
    if {"id", "text"} <= set(first.replace('"', "").split(",")):
        return "csv"
    if head and all(re.search(r"\(\S+\)\s*$", line) for line in head[: len(head) - 1] or head):
        return "trn"
    if not (head and (path.name.removesuffix(".gz") == "text" or suffix in (".text", ".txt"))):
        return "tsv"
    for number, line in tables.numbered(content):
        word = (line.split() or [""])[0]
        if line.strip() and not _ID.match(word):
            option = "--hyp-format" if hyp else "--ref-format"
            raise AsrError(
                f"{path}, line {number}: {word[:60]!r} does not look like an utterance id; use {option} "
                f"lines for one text per line without ids, or {option} kaldi if each line begins with its id"
            )
    return "kaldi"


_ID = re.compile(r"(?=\S*\d)(?=\S*[^\W\d]|\S*[-_./])")  # a digit, and a letter or a separator


def read_file(path: Path) -> str:
    """Content of a UTF-8 file without byte order mark; `-` is standard input; gzip is decompressed.

    Raises AsrError if it cannot be read, with the line that is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise AsrError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise AsrError(f"{path}: damaged gzip data ({error}); compress the file again") from None
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AsrError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _collect(read_rows: Callable[[], tables.Rows], path: Path, format: str) -> Transcripts:
    """The checks of all formats: empty and duplicate ids, texts that are too long, empty files."""
    texts: dict[str, str] = {}
    attributes: dict[str, dict[str, Any]] = {}
    for number, id, text, more in read_rows():
        if not id:
            raise AsrError(f"{path}, line {number}: the id is empty; give every utterance an id")
        if id in texts:
            # Parsed again only for the message: the line numbers of a million ids would take much memory.
            first = next((line for line, other, _, _ in read_rows() if other == id), number)
            hint = "; --ref-format lines and --hyp-format lines read text without ids" * (format == "kaldi")
            raise AsrError(
                f"{path}, line {number}: duplicate id {id!r}, also in line {first}; "
                f"ids must be unique: rename or delete one{hint}"
            )
        if len(text) > LIMIT:
            raise AsrError(
                f"{path}, line {number}: the text of {id[:60]!r} has {len(text):,} characters, more than "
                f"{LIMIT:,}; is a line break missing? Divide it into utterances"
            )
        texts[id] = text
        if more:
            attributes[id] = more
    if not texts:
        raise AsrError(f"{path}: no utterances; check that the program that writes it succeeded")
    return Transcripts(texts, attributes, format)


def _rows(content: str, path: Path, format: str, hyp: bool = False) -> tables.Rows:
    match format:
        case "stm":
            return (Row(s.line, s.id, s.text, s.attributes) for s in timed.stm(content, path))
        case "jsonl":
            return tables.json_lines(content, path, hyp)
    readers = {"trn": _trn, "kaldi": _kaldi, "tsv": tables.tsv, "csv": tables.csv_table, "lines": _lines}
    return (readers | {"ctm": timed.by_recording})[format](content, path)


def _lines(content: str, path: Path) -> Iterator[Row]:
    if not content:
        return
    for number, line in enumerate(content.removesuffix("\n").split("\n"), 1):
        yield Row(number, str(number), line.removesuffix("\r").strip(), {})


def _trn(content: str, path: Path) -> Iterator[Row]:
    for number, line in tables.numbered(content):
        if line.startswith(";;") or not line.strip():
            continue
        # An id can have parentheses: `hello (talk_(1).wav)`. A text need not end with a space.
        match = re.search(r"(?:^|\s)\((\S+)\)\s*$", line) or re.search(r"\(([^\s()]*)\)\s*$", line)
        if not match:
            shown = line if len(line) <= 60 else "..." + line[-60:]
            raise AsrError(f"{path}, line {number}: no (id) at the end of {shown!r}; trn is `words (id)`")
        id = match[1]
        speaker = speaker_of(id)
        yield Row(number, id, line[: match.start()].strip(), {"speaker": speaker} if speaker != "-" else {})


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
        id = printable(file.relative_to(path).with_suffix("").as_posix())
        yield Row(1, id, read_file(file).strip(), {})
