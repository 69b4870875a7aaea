"""Tables with a header line: TSV as in Common Voice (commonvoice.mozilla.org), and CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets
from asr.datasets.durations import find_audio
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
    columns. Quotes enclose fields in a CSV, and mean nothing in a TSV. A line that is too short adds a line
    to `bad`; durations are not known yet. Raises AsrError for missing columns or no table.
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
    columns = _lines(path)[:1]
    return bool(columns) and "path" in columns[0] and any(name in columns[0] for name in _TEXT)


def _lines(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise AsrError(f"{path}: not UTF-8 text; save the table as UTF-8") from None
    except OSError as error:
        raise AsrError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if path.suffix.lower() == ".csv":
        try:
            return list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise AsrError(f"{path}: not a CSV table ({error}); check its quotes") from None
    # Split by hand: quotes mean nothing in a TSV, and csv would glue lines between two of them.
    return [line.split("\t") for line in text.split("\n")]


def read_table(path: Path, bad: list[str], lang: str | None = None) -> list[Utterance]:
    """The utterances of one table, in the language `lang` where the table has no column for it."""
    columns, *rows = _lines(path) or [[]]
    text_column = next((name for name in _TEXT if name in columns), "")
    if "path" not in columns or not text_column:
        raise AsrError(
            f"{path}, line 1: needs columns path and sentence (or text), has {', '.join(columns) or 'none'}"
        )
    clips = path.parent / "clips"
    folder = clips if clips.is_dir() else path.parent
    utterances = []
    for number, fields in enumerate(rows, 2):
        if fields in ([], [""]):
            continue
        row = dict(zip(columns, fields, strict=False))
        if not row.get("path") or text_column not in row:
            bad.append(f"{path}, line {number}: no path or no text ({len(fields)} of {len(columns)} fields)")
            continue
        utterances.append(
            Utterance(
                str(Path(row["path"]).with_suffix("")),
                find_audio(row["path"], folder),
                row[text_column].strip(),
                speaker=_first(row, _SPEAKER),
                lang=_first(row, _LANG) or lang,
                extra={name: row[name] for name in _KEPT if row.get(name)},
            )
        )
    return utterances


def _first(row: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((row[name] for name in names if row.get(name)), None)
