"""Tables and JSON lines of texts: one utterance per row, other columns kept as its attributes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr.datasets.manifest import default_id
from asr.errors import AsrError

# Readers yield (line number, id, text, attributes).
Rows = Iterator[tuple[int, str, str, dict[str, Any]]]


def numbered(content: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty. Not `splitlines`: that also splits at U+2028 and form feeds."""
    for number, line in enumerate(content.split("\n"), 1):
        if line := line.removesuffix("\r"):
            yield number, line


def tsv(content: str, path: Path) -> Rows:
    """Rows of a table with tabs. Raises AsrError for a header without id and text, and uneven rows."""
    # Split by hand: with quoting off, the csv module adds only a limit on the length of a field.
    return _table(((number, line.split("\t")) for number, line in numbered(content)), path, "tabs")


def csv_table(content: str, path: Path) -> Rows:
    """Rows of a table with commas and quotes (RFC 4180). Raises as `tsv`, and for broken quotes."""
    return _table(_csv_rows(content, path), path, "commas")


def _csv_rows(content: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    # All rows are read at once, because the limit holds for the whole process, and must not change for others
    # while this table is used.
    rows, limit = [], csv.field_size_limit(max(len(content), 1))
    try:
        reader = csv.reader(io.StringIO(content, newline=""), strict=True)
        start = 1
        for fields in reader:
            if fields:
                rows.append((start, fields))
            start = reader.line_num + 1  # a quoted field may go over several lines
    except csv.Error as error:
        raise AsrError(f"{path}, line {reader.line_num}: broken CSV ({error}); correct the quotes") from None
    finally:
        csv.field_size_limit(limit)
    return iter(rows)


def _table(rows: Iterator[tuple[int, list[str]]], path: Path, separator: str) -> Rows:
    number, names = next(rows, (1, []))
    if names and (names.count("id") != 1 or names.count("text") != 1):
        header = " ".join(names)
        shown = header if len(header) <= 60 else header[:60] + "..."
        raise AsrError(
            f"{path}, line {number}: the columns 'id' and 'text', once each, are needed, not {shown!r}; "
            f"name them in the first line, separated by {separator}, or name another format: "
            "--ref-format and --hyp-format, with `lines` for one text per line without ids"
        )
    if not names:
        return
    id_at, text_at = names.index("id"), names.index("text")
    others = [(i, name) for i, name in enumerate(names) if i not in (id_at, text_at)]
    for number, fields in rows:
        if len(fields) != len(names):  # one field too many is a tab inside a text: half of it would be lost
            raise AsrError(
                f"{path}, line {number}: number of fields is {len(fields)}, the first line has {len(names)}; "
                f"separate fields by {separator}, and use none inside a text"
            )
        yield number, fields[id_at], fields[text_at], {name: fields[i] for i, name in others if fields[i]}


def json_lines(content: str, path: Path, hyp: bool) -> Rows:
    """Rows of JSON lines. With `hyp`, NeMo's `pred_text` is the text if the first object has one."""
    key = ""
    for number, line in numbered(content):
        if not line.strip():
            continue
        record = _object(line, path, number)
        key = key or ("pred_text" if hyp and "pred_text" in record else "text")
        id, text = record.get("id"), record.get(key)
        if id is None:  # NeMo has other names for the recording and its start
            id = record.get("audio", record.get("audio_filepath"))
            start = record.get("start", record.get("offset"))
            if isinstance(id, str) and isinstance(start, int | float):
                id = default_id(id, start)
        if not (isinstance(id, str) and isinstance(text, str)):
            raise AsrError(
                f"{path}, line {number}: no strings 'id' and {key!r} in it; "
                "each line must be an object with both (or 'audio' or 'audio_filepath' in place of 'id')"
            )
        skipped = ("id", "text", "pred_text")
        plain = (str, int, float)
        yield number, id, text, {k: v for k, v in record.items() if k not in skipped and isinstance(v, plain)}


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record, dict):
            for key in ("id", "audio", "audio_filepath", "text", "pred_text"):
                str(record.get(key)).encode()  # half of a surrogate pair, "\\ud83d", cannot be printed
    except (ValueError, RecursionError) as error:
        raise AsrError(
            f"{path}, line {number}: broken JSON ({getattr(error, 'msg', error)}); "
            "correct the line: each holds one whole object"
        ) from None
    if not isinstance(record, dict):
        raise AsrError(
            f"{path}, line {number}: no strings 'id' and 'text' in it; each line must be an object"
        )
    return record
