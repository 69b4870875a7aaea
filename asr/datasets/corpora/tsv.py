"""Tables with a header line: TSV as in Common Voice (commonvoice.mozilla.org), and CSV."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, read_text
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

_TEXT = ("sentence", "text")
_SPEAKER = ("client_id", "speaker")
_LANG = ("locale", "lang")
_KEPT = ("gender", "age", "accents")  # kept in `extra`


def read_tsv(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """One TSV or CSV file, or those of a folder; a split is named after its file.

    Needs the columns `path` (relative to the file, or to `clips/` beside it) and `sentence` or `text`. Of a
    folder, train.tsv, dev.tsv and test.tsv are read where there are any, otherwise every table with those
    columns. Quotes enclose fields in a CSV, and mean nothing in a TSV. A line that is too short, or whose
    recording is missing, adds a line to `bad`; durations are not known yet. Raises AsrError for missing
    columns or no table.
    """
    if not source.is_dir():
        return {source.stem: read_table(source, bad)} if subsets.wants(source.stem) else {}
    official = [source / name for name in ("train.tsv", "dev.tsv", "test.tsv") if (source / name).exists()]
    files = official or [
        path for path in sorted((*source.glob("*.tsv"), *source.glob("*.csv"))) if _is_corpus(path)
    ]
    if not files:
        raise AsrError(f"{source}: no TSV or CSV file with columns path and sentence (or text); give one")
    return {path.stem: read_table(path, bad) for path in files if subsets.wants(path.stem)}


def _is_corpus(path: Path) -> bool:
    columns = _rows(path)[0][1]
    return "path" in columns and any(name in columns for name in _TEXT)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The fields of each row with the number of its first line; an empty file gives one empty row."""
    text = read_text(path)
    if path.suffix.lower() != ".csv":
        # Split by hand: quotes mean nothing in a TSV, but the csv module would join the lines between two
        # quotes.
        return [(number, line.split("\t")) for number, line in enumerate(text.split("\n"), 1)]
    reader, rows, number = csv.reader(io.StringIO(text, newline="")), [], 1
    try:
        for fields in reader:
            rows.append((number, fields))
            number = reader.line_num + 1  # a field between quotes can have several lines
    except csv.Error as error:
        raise AsrError(f"{path}, line {number}: not a CSV table ({error}); check its quotes") from None
    return rows or [(1, [])]


def read_table(path: Path, bad: list[str], lang: str | None = None) -> list[Utterance]:
    """The utterances of one table, in the language `lang` where the table has no column for it."""
    (_, columns), *rows = _rows(path)
    text_column = next((name for name in _TEXT if name in columns), "")
    if "path" not in columns or not text_column:
        raise AsrError(
            f"{path}, line 1: needs columns path and sentence (or text), has {', '.join(columns) or 'none'}"
        )
    utterances = []
    for number, fields in rows:
        if fields in ([], [""]):
            continue
        row = dict(zip(columns, fields, strict=False))
        if not row.get("path") or text_column not in row:
            bad.append(f"{path}, line {number}: no path or no text ({len(fields)} of {len(columns)} fields)")
            continue
        # Only these two places are tried, because a file of the same name elsewhere would be another
        # recording.
        places = (path.parent / "clips" / row["path"], path.parent / row["path"])
        audio = next((place for place in places if os.path.isfile(place)), None)  # noqa: PTH113  see find_audio
        if audio is None:
            bad.append(
                f"{path}, line {number}: no recording {row['path']!r} beside the table or in its clips/"
            )
            continue
        utterances.append(
            Utterance(
                str(Path(row["path"]).with_suffix("")),
                audio,
                row[text_column].strip(),
                speaker=_first(row, _SPEAKER),
                lang=_first(row, _LANG) or lang,
                extra={name: row[name] for name in _KEPT if row.get(name)},
            )
        )
    return utterances


def _first(row: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((row[name] for name in names if row.get(name)), None)
