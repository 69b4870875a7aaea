"""The results of `asr data check`: a table for the terminal, and a page with plots."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np

from asr.datasets.check import DataCheck, ManifestCheck, printable_character
from asr.files import atomic_write

_HEAD = ("manifest", "utterances", "hours", "speakers", "shortest", "median", "longest")
_SHOWN = 5  # lines of each kind of problem in the terminal
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .1rem .7rem; text-align: right; }
td:first-child, th:first-child { text-align: left; overflow-wrap: anywhere; }
svg { width: 30rem; max-width: 100%; height: 10rem; } rect { fill: #4a78b5; }
text { font-size: 9px; fill: currentColor; } summary { cursor: pointer; }
.characters span { display: inline-block; min-width: 7rem; }
"""


def text_report(result: DataCheck) -> str:
    """Lines for a terminal: a row for each manifest, its characters, and the problems with examples."""
    rows: list[tuple[str, ...]] = [_HEAD]
    rows += [(str(part.path), *_row(part)) for part in result.manifests]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    for part in result.manifests:
        shown = " ".join(f"{printable_character(c)} {n}" for c, n in part.characters.most_common())
        lines += ["", f"{part.path}: {len(part.characters)} characters: {shown}"]
    for kind, found in result.problems.items():
        lines += ["", f"{kind}: {len(found)}", *(f"  {line}" for line in found[:_SHOWN])]
        if len(found) > _SHOWN:
            lines.append(f"  ... and {len(found) - _SHOWN} more (--json names all)")
    return "\n".join(lines if result.problems else [*lines, "", "no problem found"])


def write_page(result: DataCheck, path: Path) -> None:
    """An HTML page: the table, histograms of durations and rates of speech, characters, all problems."""
    head = "".join(f"<th>{name}" for name in _HEAD)
    rows = "".join(
        f"<tr><td>{html.escape(str(part.path))}" + "".join(f"<td>{cell}" for cell in _row(part))
        for part in result.manifests
    )
    parts = [f"<table><tr>{head}{rows}</table>"]
    for part in result.manifests:
        characters = "".join(
            f"<span>{html.escape(printable_character(c))} {n}</span>"
            for c, n in part.characters.most_common()
        )
        parts += [
            f"<h2>{html.escape(str(part.path))}</h2>",
            histogram(part.durations, "seconds"),
            histogram(part.rates, "characters per second"),
            f"<p class=characters>{characters}</p>",
        ]
    for kind, found in result.problems.items():
        items = "".join(f"<li>{html.escape(line)}" for line in found)
        parts.append(
            f"<details><summary>{html.escape(kind)}: {len(found)}</summary><ul>{items}</ul></details>"
        )
    if not result.problems:
        parts.append("<p>No problem found.</p>")
    with atomic_write(path) as out:
        out.write(
            f"<!doctype html><meta charset=utf-8><title>Data</title><style>{_STYLE}</style>\n"
            "<h1>Data</h1>\n" + "\n".join(parts) + "\n"
        )


def histogram(values: list[float], unit: str, bins: int = 40) -> str:
    """An SVG with the counts of values in equal intervals; empty without values."""
    if not values:
        return ""
    counts, edges = np.histogram(values, bins)
    top = int(counts.max())
    bars = "".join(
        f'<rect x="{10 * i}" y="{100 - 100 * n / top:.1f}" width="9" height="{100 * n / top:.1f}">'
        f"<title>{edges[i]:.2f} to {edges[i + 1]:.2f} {unit}: {n}</title></rect>"
        for i, n in enumerate(counts.tolist())
    )
    last = 10 * bins
    return (
        f'<svg viewBox="0 -10 {last} 125"><text x="0" y="-2">{top} utterances</text>{bars}'
        f'<text x="0" y="111">{edges[0]:.2f}</text>'
        f'<text x="{last}" y="111" text-anchor="end">{edges[-1]:.2f} {unit}</text></svg>'
    )


def _row(part: ManifestCheck) -> tuple[str, ...]:
    quantiles = part.quantiles
    times = (f"{quantiles[name]:.2f} s" if quantiles else "-" for name in ("shortest", "median", "longest"))
    return (
        str(len(part.utterances)),
        f"{sum(part.durations) / 3600:.2f}",
        str(len(part.speakers)),
        *times,
    )
