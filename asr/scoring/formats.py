"""Reading texts to be scored: id -> text, from TSV or JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from asr.errors import AsrError

# Readers yield (line number, id, text) and leave what all formats share (ids that are empty or stand twice,
# files with nothing in them) to `read_texts`.
_Rows = Iterator[tuple[int, str, str]]


def read_texts(path: str | os.PathLike[str]) -> dict[str, str]:
    """Texts of a file by utterance id, in the order of the file, exactly as they stand there.

    The format is recognised by content. JSON lines (first character `{`: manifests, transcripts) need the
    string keys `id` and `text`. Anything else is read as TSV whose first line names the columns, `id` and
    `text` among them; quotes are ordinary characters. Other keys and columns are ignored, as are empty
    lines and a byte order mark.

    Raises AsrError naming the file, and the line where there is one: a file that is missing, not UTF-8 or
    without any utterance, no `id` or `text`, a wrong number of fields, broken JSON, an id that is empty or
    occurs twice.
    """
    path = Path(path)
    content = _read(path)
    rows = _json_lines(content, path) if content.lstrip().startswith("{") else _tsv(content, path)
    texts: dict[str, str] = {}
    first_line: dict[str, int] = {}
    for number, id, text in rows:
        if not id:
            raise AsrError(f"{path}, line {number}: the id is empty; give every utterance an id")
        if id in texts:
            raise AsrError(
                f"{path}, line {number}: id {id!r} stands already in line {first_line[id]}; "
                "ids must be unique: rename or delete one"
            )
        texts[id], first_line[id] = text, number
    if not texts:
        raise AsrError(f"{path}: no utterances in it; check that what should have written it has succeeded")
    return texts


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AsrError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AsrError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _lines(content: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty. Not `splitlines`: that also splits at U+2028 and form feeds."""
    for number, line in enumerate(content.split("\n"), 1):
        if line := line.removesuffix("\r"):
            yield number, line


def _tsv(content: str, path: Path) -> _Rows:
    # Split by hand: with quoting off, the csv module adds only a limit on the length of a field.
    lines = _lines(content)
    number, header = next(lines, (1, ""))
    names = header.split("\t")
    if header and (names.count("id") != 1 or names.count("text") != 1):
        shown = header if len(header) <= 60 else header[:60] + "..."
        raise AsrError(
            f"{path}, line {number}: the columns 'id' and 'text', once each, are needed, not {shown!r}; "
            "name them in the first line, separated by tabs (or give JSON lines)"
        )
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(names):  # one field too many is a tab inside a text: half of it would be lost
            raise AsrError(
                f"{path}, line {number}: number of fields is {len(fields)}, the first line has {len(names)}; "
                "separate fields by one tab, and have no tab inside a text"
            )
        yield number, fields[names.index("id")], fields[names.index("text")]


def _json_lines(content: str, path: Path) -> _Rows:
    for number, line in _lines(content):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            pair = (record.get("id"), record.get("text")) if isinstance(record, dict) else ()
            for value in pair:
                str(value).encode()  # half of a surrogate pair, "\\ud83d", is JSON but cannot be printed
        except (ValueError, RecursionError) as error:
            raise AsrError(
                f"{path}, line {number}: broken JSON ({getattr(error, 'msg', error)}); "
                "mend the line: each holds one whole object"
            ) from None
        match pair:
            case (str(id), str(text)):
                yield number, id, text
            case _:
                raise AsrError(
                    f"{path}, line {number}: no strings 'id' and 'text' in it; "
                    "each line must be an object with both"
                )
