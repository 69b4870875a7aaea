"""A score as one self-contained HTML page: figures, plots, confusions, every utterance aligned."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from asr.files import printable
from asr.scoring import breakdown
from asr.scoring.breakdown import Confusions, Group
from asr.scoring.report import described, p_value
from asr.scoring.wer import Score, UtteranceScore

if TYPE_CHECKING:
    from asr.scoring.significance import Comparison, Interval

_MOST_BARS = 40
_OPERATIONS = {"substitute": "s", "delete": "d", "insert": "i"}


class Names(NamedTuple):
    """Paths of the texts and of the page; links to audio are relative to the page."""

    ref: Path
    hyp: Path
    page: Path


class Second(NamedTuple):
    """A second system on the same references, and its comparison with the first."""

    hyp: Path
    score: Score
    comparison: Comparison


def page(
    score: Score,
    names: Names,
    by: Sequence[str],
    interval: Interval | None = None,
    second: Second | None = None,
) -> Iterator[str]:
    """The page in pieces. `by` are keys to plot the error rate by; keys that no utterance has are left out.

    Audio is the file of the attribute `audio` (NeMo: `audio_filepath`), relative to the folder of the
    references, from `start` (`offset`) for `duration` seconds. All text from files is escaped.
    """
    ref, systems = _name(names.ref), _name(names.hyp) + (f" and {_name(second.hyp)}" if second else "")
    assets = files("asr.scoring")
    style = (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{systems} against {ref}</title><style>\n{style}</style></head>"
        f"<body>\n<header><h1>{systems} <span>against {ref}</span></h1>"
        "</header>\n<main>\n"
    )
    yield from _figures(score, interval)
    if second:
        yield _comparison(second, names)
    plots = [
        _plot(key, breakdown.groups(score, key), score.tokens.rate)
        for key in by
        if key == "length" or any(key in values for values in score.attributes.values())
    ]
    yield f'<section class="plots">{"".join(plots)}</section>\n'
    yield _confusions(breakdown.confusions(score))
    yield from _utterances(score, names, second)
    yield f"</main>\n<script>\n{script}</script></body></html>\n"


def _figures(score: Score, interval: Interval | None) -> Iterator[str]:
    unit = {"words": "Word error rate", "chars": "Character error rate", "mixed": "Mixed error rate"}
    c = score.tokens
    span = f", 95% interval {_percent(interval.low)} to {_percent(interval.high)}" if interval else ""
    yield (
        f'<section class="figures"><div class="first"><b>{_percent(c.rate)}</b>'
        f"<span>{unit[score.measure.unit]}{span}<br>{escape(described(score))}"
        "</span></div>"
    )
    rates = [("WER", score.wer), ("CER", score.cer), ("MER", score.mer), ("WIL", score.wil)]
    rates.append(("Sentence error", score.sentence_error_rate))
    counts = [("Hits", c.hits), ("Substitutions", c.substitutions), ("Deletions", c.deletions)]
    counts += [("Insertions", c.insertions), ("Utterances", len(score.utterances))]
    counts += [("No hypothesis", len(score.missing)), ("No reference", len(score.extra))]
    shown = [(name, _percent(rate)) for name, rate in rates]
    shown += [(name, f"{n:,}") for name, n in counts if n or name in ("Hits", "Utterances")]
    for name, value in shown:
        yield f"<div><b>{value}</b><span>{name}</span></div>"
    yield "</section>\n"


def _comparison(second: Second, names: Names) -> str:
    found, apart = second.comparison, second.comparison.difference
    rows = [
        ("A", _name(names.hyp), _percent(found.first)),
        ("B", _name(second.hyp), _percent(found.second)),
        ("A &minus; B", f"95% interval {apart.low:+.2%} to {apart.high:+.2%}", f"{apart.rate:+.2%}"),
        ("A is better", "probability, bootstrap", f"{found.probability_first_better:.3f}"),
    ]
    tests = [(found.mapsswe, "matched pairs"), (found.sign, "by block"), (found.wilcoxon, "by block")]
    rows += [(test.name, f"{kind}, n = {test.n}", p_value(test.p)) for test, kind in tests]
    body = "".join(
        f'<tr><th>{name}</th><td>{note}</td><td class="n">{escape(value)}</td></tr>'
        for name, note, value in rows
    )
    return (
        "<section><h2>Comparison of two systems</h2>"
        f'<table class="comparison"><tbody>{body}</tbody></table></section>\n'
    )


def _utterances(score: Score, names: Names, second: Second | None) -> Iterator[str]:
    """The table of all utterances, the one with most errors first."""
    columns = [("errors", "Errors"), ("rate", "Rate"), ("length", "Length")]
    legend = "(reference&rarr;hypothesis); * is no word."
    others = {}
    if second:
        columns += [("other", "Errors of B"), ("apart", "A &minus; B")]
        legend += f" A is {_name(names.hyp)}, B is {_name(second.hyp)}."
        others = {utterance.id: utterance for utterance in second.score.utterances}
    heads = "".join(
        f'<th class="n"{" aria-sort=descending" if key == "errors" else ""}>'
        f'<button data-key="{key}">{name}</button></th>'
        for key, name in columns
    )
    yield (
        f'<section><h2 id="utterances">Utterances</h2><p>{legend}</p>'
        '<p class="tools"><input id="find" type="search" placeholder="Find in id and text" '
        'aria-label="Find in id and text"> '
        '<label><input id="wrong" type="checkbox"> with errors only</label> '
        '<span id="shown"></span></p><div class="scroll"><table class="utterances"><thead><tr>'
        f'<th><button data-key="id">Id</button></th>{heads}<th>Alignment</th></tr></thead><tbody>\n'
    )
    for utterance in sorted(score.utterances, key=lambda u: -u.tokens.errors):
        yield _utterance(utterance, score, names, others.get(utterance.id))
    yield "</tbody></table></div></section>\n"


def _plot(key: str, groups: Sequence[Group], overall: float) -> str:
    """Horizontal bars, the highest rate first unless by length; a line marks the overall rate."""
    shown = list(groups)
    if key != "length":
        shown.sort(key=lambda group: -group.rate)
    left = f", the {_MOST_BARS} highest of {len(shown)}" if len(shown) > _MOST_BARS else ""
    shown = shown[:_MOST_BARS]
    most = max([overall, *(g.rate for g in shown if math.isfinite(g.rate))], default=0) or 1.0
    most = most if math.isfinite(most) else 1.0
    height = 24 * len(shown)
    name = escape("reference length" if key == "length" else key)
    parts = [
        f"<figure><figcaption>Error rate by {name}{left} "
        '<span class="n">(number of utterances), dashed: all</span></figcaption>'
        f'<svg viewBox="0 0 480 {height}" role="img" aria-label="Error rate by {name}">'
    ]
    for i, group in enumerate(shown):
        wide = 250 * min(group.rate / most, 1.0)
        label = group.name if len(group.name) <= 14 else group.name[:13] + "…"
        tip = f"{group.name}: {group.counts.errors} errors in {group.counts.reference_length}, "
        parts.append(
            f'<g transform="translate(0 {24 * i})"><title>{escape(tip)}{group.utterances} utterances</title>'
            f'<text x="104" y="16" text-anchor="end">{escape(label)}</text>'
            f'<rect x="112" y="4" width="{max(wide, 1):.1f}" height="16" rx="2"/>'
            f'<text x="372" y="16">{_percent(group.rate)}'
            f'<tspan class="n"> ({group.utterances})</tspan></text></g>'
        )
    if math.isfinite(overall):
        x = 112 + 250 * overall / most
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>')
    return "".join(parts) + "</svg></figure>"


def _confusions(found: Confusions) -> str:
    """Tables of errors; each count is a link that shows the utterances with the error."""
    columns: list[tuple[str, list[tuple[str, str | None, str | None, int]]]] = [
        ("Substitutions", [("s", ref, hyp, n) for ref, hyp, n in found.substitutions]),
        ("Deletions", [("d", ref, None, n) for ref, n in found.deletions]),
        ("Insertions", [("i", None, hyp, n) for hyp, n in found.insertions]),
    ]
    tables = []
    for name, rows in columns:
        body = "".join(
            f'<tr><td class="n"><a href="#utterances" data-find="({_shown(ref)}&rarr;{_shown(hyp)})" '
            f'title="Show the utterances">{n:,}</a></td><td>{_mark(kind, ref, hyp)}</td></tr>'
            for kind, ref, hyp, n in rows
        )
        empty = '<tr><td colspan="2">none</td></tr>'
        tables.append(f"<table><caption>{name}</caption><tbody>{body or empty}</tbody></table>")
    return (
        "<section><h2>Most frequent errors</h2><p>(reference&rarr;hypothesis). A number shows the utterances "
        f'with this error.</p><div class="confusions">{"".join(tables)}</div></section>\n'
    )


def _utterance(utterance: UtteranceScore, score: Score, names: Names, other: UtteranceScore | None) -> str:
    c = utterance.tokens
    rate = f"{c.rate:.6f}" if math.isfinite(c.rate) else "1e9"
    text, data, cells = f'<div class="a">{_alignment(utterance)}</div>', "", ""
    if other:
        apart = c.errors - other.tokens.errors
        text += f'<div class="b">{_alignment(other)}</div>'
        data = f' data-other="{other.tokens.errors}" data-apart="{apart}"'
        cells = f'<td class="n">{other.tokens.errors}</td><td class="n">{f"{apart:+}" if apart else 0}</td>'
    play = ""
    if link := _audio(score.attributes.get(utterance.id, {}), names):
        play = f' <button class="play" data-audio="{escape(link)}" aria-label="Play">&#9654;</button>'
    return (
        f'<tr data-errors="{c.errors}" data-rate="{rate}" data-length="{c.reference_length}"{data}>'
        f'<td class="id">{escape(utterance.id)}{play}</td><td class="n">{c.errors}</td>'
        f'<td class="n">{_percent(c.rate)}</td><td class="n">{c.reference_length}</td>{cells}'
        f"<td>{text}</td></tr>\n"
    )


def _alignment(utterance: UtteranceScore) -> str:
    joiner = "" if utterance.measure.unit == "chars" else " "
    return joiner.join(
        escape(ref or hyp or "") if operation == "equal" else _mark(_OPERATIONS[operation], ref, hyp)
        for operation, ref, hyp in utterance.alignment
    )


def _mark(kind: str, ref: str | None, hyp: str | None) -> str:
    return f'<span class="{kind}">(<del>{_shown(ref)}</del>&rarr;<ins>{_shown(hyp)}</ins>)</span>'


def _shown(token: str | None) -> str:
    return "*" if token is None else "␣" if token == " " else escape(token)


def _audio(attributes: object, names: Names) -> str:
    """Link to an utterance's audio, relative to the page; a media fragment selects the part of a file."""
    values = attributes if isinstance(attributes, dict) else {}
    audio = values.get("audio", values.get("audio_filepath"))
    if not isinstance(audio, str) or "://" in audio:
        return ""  # a self-contained page does not load from the network
    folder = os.path.abspath(names.page.parent)  # noqa: PTH100  resolve() would follow links
    link = quote(Path(os.path.relpath(names.ref.parent / audio, folder)).as_posix(), errors="surrogateescape")
    start, duration = _seconds(values.get("start", values.get("offset"))), _seconds(values.get("duration"))
    if start:
        end = f",{start + duration:.3f}" if duration is not None else ""
        link += f"#t={start:.3f}{end}"
    return link


def _seconds(value: object) -> float | None:
    """A number of seconds, which tables give as text; None if the value is no number."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _name(path: Path) -> str:
    return escape(printable(path.name))


def _percent(rate: float) -> str:
    return f"{rate:.2%}" if math.isfinite(rate) else "&infin;"
