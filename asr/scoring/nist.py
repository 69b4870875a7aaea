"""A score as sclite prints it: `sys` and `raw` tables by speaker, `pra` alignments."""

from __future__ import annotations

import statistics
import unicodedata
from collections.abc import Iterator, Mapping

from asr.scoring.align import Counts
from asr.scoring.wer import Score, UtteranceScore

_COLUMNS = ("# Snt", "# Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err")


def speaker_of(id: str) -> str:
    """The speaker in an utterance id, by sclite's rule for `spu_id`: the part before the first `-`, or else
    `_`.

    sclite rejects an id with neither; here the speaker of such an id is "-".
    """
    for separator in "-_":
        speaker, found, _ = id.partition(separator)
        if found:
            return speaker
    return "-"


def sys(score: Score, title: str = "hyp", speakers: Mapping[str, str] | None = None) -> str:
    """Percentages by speaker. Sum/Avg is over all words; Mean, S.D. and Median are over speakers.

    speakers maps utterance ids to speakers, in place of `speaker_of`.
    """
    rows = _by_speaker(score, speakers)
    body = {name: _percentages(*row) for name, row in rows.items()}
    total = _percentages(*_sum(rows))
    return _table("SYSTEM SUMMARY PERCENTAGES by SPEAKER", title, body, ("Sum/Avg", total))


def raw(score: Score, title: str = "hyp", speakers: Mapping[str, str] | None = None) -> str:
    """The same table with numbers of words and utterances in place of percentages."""
    rows = _by_speaker(score, speakers)
    body = {name: _numbers(*row) for name, row in rows.items()}
    return _table("SYSTEM SUMMARY COUNTS by SPEAKER", title, body, ("Sum", _numbers(*_sum(rows))))


def pra(score: Score, title: str = "hyp") -> Iterator[str]:
    """Lines with every utterance aligned: texts as they are, `***` for no word, errors by letter in `Eval`.

    sclite changes the case: hits are lower case, errors upper case. Here the case of the texts is kept.
    """
    yield from ("", "", "\t\tDUMP OF SYSTEM ALIGNMENT STRUCTURE", "", f"System name:   {title}", "")
    for utterance in score.utterances:
        yield from _aligned(utterance)


def _aligned(utterance: UtteranceScore) -> Iterator[str]:
    c = utterance.words
    yield f"id: ({utterance.id})"
    yield f"Scores: (#C #S #D #I) {c.hits} {c.substitutions} {c.deletions} {c.insertions}"
    lines: tuple[list[str], list[str], list[str]] = ([], [], [])
    for operation, ref, hyp in utterance.alignment:
        wide = max(_width(ref or ""), _width(hyp or ""))
        wrong = operation != "equal"
        for line, word in zip(lines, (ref, hyp), strict=False):
            shown = ("*" if wrong else " ") * wide if word is None else word
            line.append(shown + " " * (wide - _width(shown)))
        lines[2].append((operation[0].upper() if wrong else "").ljust(wide))
    for head, line in zip(("REF: ", "HYP: ", "Eval:"), lines, strict=True):
        yield f"{head} {' '.join(line)}".rstrip()
    yield ""


def _width(text: str) -> int:
    """Columns on a terminal: Chinese and Japanese characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


_Row = tuple[int, int, Counts]  # utterances, utterances with an error, counts of words


def _by_speaker(score: Score, speakers: Mapping[str, str] | None) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for utterance in score.utterances:
        speaker = speaker_of(utterance.id) if speakers is None else speakers.get(utterance.id, "-")
        n, wrong, counts = rows.get(speaker, (0, 0, Counts()))
        rows[speaker] = n + 1, wrong + (utterance.words.errors > 0), counts + utterance.words
    return rows


def _sum(rows: Mapping[str, _Row]) -> _Row:
    n, wrong = sum(row[0] for row in rows.values()), sum(row[1] for row in rows.values())
    return n, wrong, sum((row[2] for row in rows.values()), Counts())


def _numbers(n: int, wrong: int, c: Counts) -> list[float]:
    return [n, c.reference_length, c.hits, c.substitutions, c.deletions, c.insertions, c.errors, wrong]


def _percentages(n: int, wrong: int, c: Counts) -> list[float]:
    words = _numbers(n, wrong, c)
    # sclite also shows 0.0 for the rates of a speaker without reference words.
    return [
        *words[:2],
        *(100 * x / words[1] if words[1] else 0.0 for x in words[2:7]),
        100 * wrong / n if n else 0.0,
    ]


def _table(heading: str, title: str, body: Mapping[str, list[float]], total: tuple[str, list[float]]) -> str:
    columns = [list(column) for column in zip(*body.values(), strict=True)]
    over = {
        "Mean": [statistics.fmean(column) for column in columns],
        "S.D.": [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns],
        "Median": [statistics.median(column) for column in columns],
    }
    percent = total[0] == "Sum/Avg"
    # Numbers of utterances and words are integers; rates and statistics over speakers have one decimal.
    rows = [(name, _cells(row, 2 if percent else 8)) for name, row in [*body.items(), total]]
    rows += [(name, _cells(row, 0)) for name, row in over.items() if body]
    first = max(len("Median"), *(_width(name) for name, _ in rows))
    wide = [max(len(cell) for cell in column) for column in zip(_COLUMNS, *(c for _, c in rows), strict=True)]

    def line(name: str, cells: tuple[str, ...] | list[str]) -> str:
        shown = [cell.rjust(w) for cell, w in zip(cells, wide, strict=True)]
        return f"| {name}{' ' * (first - _width(name))} | {' '.join(shown[:2])} | {'  '.join(shown[2:])} |"

    header = line("SPKR", _COLUMNS)
    inner = len(header) - 2
    single = "|" + "".join("+" if c == "|" else "-" for c in header[1:-1]) + "|"
    double = "|" + "=" * inner + "|"
    lines = [heading.center(inner + 2).rstrip(), "", "," + "-" * inner + ".", "|" + title.center(inner) + "|"]
    lines += ["|" + "-" * inner + "|", header]
    for name, cells in rows[: len(body)]:
        lines += [single, line(name, cells)]
    lines += [double, line(*rows[len(body)]), double]
    lines += [line(name, cells) for name, cells in rows[len(body) + 1 :]]
    return "\n".join([*lines, "`" + "-" * inner + "'"])


def _cells(row: list[float], whole: int) -> list[str]:
    return [f"{x:.0f}" if i < whole else f"{x:.1f}" for i, x in enumerate(row)]
