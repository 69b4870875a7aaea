"""One recording as one self-contained HTML page: all plots share a time axis, and the pointer shows values.

All text from files and vocabularies is escaped, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

import numpy as np
import soundfile

from asr.inspection.attention import Heads
from asr.inspection.gather import Inspection, Posteriors, Token
from asr.inspection.images import MAGMA, VIRIDIS, Scale, data_url, envelope, palette

WEIGHTS = Scale(0.0, 1.0, 2.0)  # colors follow the square root, so that small weights are visible
_COLUMNS = 1200  # of the waveform
_DENSE = 130  # more tokens than these have no room for their labels on the time axis


def page(inspection: Inspection) -> Iterator[str]:
    """The page in pieces."""
    assets = files("asr.inspection")
    style, script = (
        (assets / name).read_text(encoding="utf-8") for name in ("inspection.css", "inspection.js")
    )
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(inspection.audio)}</title><style>\n{style}</style></head>\n<body>\n"
    )
    yield _header(inspection)
    yield "<main>\n" + _time_section(inspection)
    if inspection.cross_attention:
        yield _heads_section(inspection, "cross", "Cross-attention of every head", inspection.cross_attention)
    if inspection.self_attention:
        yield _heads_section(inspection, "self", "Self-attention of the encoder", inspection.self_attention)
    if inspection.cross_attention or inspection.self_attention:
        yield _measures(inspection)
    yield _tokens(inspection)
    yield '</main>\n<div id="tip" role="status" hidden></div>\n<script type="application/json" id="data">'
    yield _data(inspection) + "</script>"
    yield f"\n<script>\n{script}</script></body></html>\n"


def _header(inspection: Inspection) -> str:
    begin, end = inspection.start, inspection.start + inspection.seconds
    part = f"{begin:.2f} to {end:.2f} s"
    if inspection.total is not None and inspection.total > inspection.seconds + 0.5:
        part += f" of {inspection.total:.2f} s: one segment is shown (--start and --duration choose another)"
    how = "Given text (teacher forcing)" if inspection.given else "Recognized text"
    missing = "".join(f"<li>{escape(each)}</li>" for each in inspection.lacks)
    times = f", times of tokens from {inspection.times_from}" if inspection.times_from else ""
    return (
        f"<header><h1>{escape(inspection.audio)}</h1><p>{part}. Model: {escape(inspection.model)}. "
        f"One state lasts {1000 * inspection.state_seconds:g} ms, one frame "
        f"{1000 * inspection.frame_seconds:g} ms.</p>"
        f'<p class="text" dir="auto">{escape(inspection.text) or "(no text)"}</p>'
        f"<p>{how}{times}.</p>"
        f'<audio id="audio" controls preload="auto" src="{_sound(inspection)}"></audio>'
        f"{f'<ul class=lacks>{missing}</ul>' if missing else ''}</header>\n"
    )


def _sound(inspection: Inspection) -> str:
    """The samples as FLAC inside a URL."""
    out = io.BytesIO()
    soundfile.write(out, inspection.samples.clip(-1, 1), inspection.sample_rate, format="FLAC")
    return "data:audio/flac;base64," + base64.b64encode(out.getvalue()).decode()


def _time_section(inspection: Inspection) -> str:
    """Panels with a common time axis, one above the other."""
    parts = ['<section id="time"><h2>On the time axis</h2>']
    parts.append(
        "<p>Move the pointer over a panel: the line marks the same time in all of them. A click plays from "
        "there.</p>"
    )
    parts.append(_panel("Waveform", "", _waveform(inspection), "wave"))
    if inspection.spoken:
        if words := _words(inspection.spoken):
            parts.append(_panel("Words", "", _row(inspection, words, "words"), "row"))
        numbered = [(t.label, t.start or 0.0, t.end or 0.0) for t in inspection.spoken]
        parts.append(_panel("Tokens", "", _row(inspection, numbered, "tokens"), "row"))
    parts.append(_features(inspection))
    parts += [_posterior_panel(inspection, number) for number in range(len(inspection.posteriors))]
    parts.append(_time_axis(inspection))
    if inspection.cross_attention:
        parts.append(_cross_panel(inspection))
        parts.append(_time_axis(inspection))
    return "\n".join(parts) + "</section>\n"


def _panel(title: str, axis: str, plot: str, kind: str, note: str = "", height: int | None = None) -> str:
    """A panel: its title above, its axis on the left, its plot on the right."""
    style = f' style="height:{height}px"' if height else ""
    return (
        f'<div class="panel"><h3>{title}<span>{note}</span></h3><div class="axis"{style}>{axis}</div>'
        f'<div class="plot {kind}"{style}>{plot}</div></div>'
    )


def _image(
    inspection: Inspection, values: np.ndarray, scale: Scale, stops: list[str], seconds: float, **data: object
) -> str:
    """An image on the time axis, a column for every `seconds`, with what the script needs to read it."""
    colors = "magma" if stops is MAGMA else "viridis"
    width = 100 * values.shape[1] * seconds / inspection.seconds
    attributes = "".join(f' data-{key}="{escape(str(value))}"' for key, value in data.items())
    return (
        f'<img class="matrix" alt="" draggable="false" style="width:{width:.3f}%" data-low="{scale.low:.6g}" '
        f'data-high="{scale.high:.6g}" data-power="{scale.power:g}" data-colors="{colors}" '
        f'data-seconds="{seconds:.6g}"{attributes} src="{data_url(values, scale, stops)}">'
    )


def _waveform(inspection: Inspection) -> str:
    """The lowest and highest sample of each column, as one shape."""
    low, high = envelope(inspection.samples, _COLUMNS)
    top = float(max(high.max(), -low.min(), 1e-6))
    points = [f"{x},{50 - 48 * y / top:.1f}" for x, y in enumerate(high)]
    points += [f"{x},{50 - 48 * y / top + 0.4:.1f}" for x, y in reversed(list(enumerate(low)))]
    return (
        f'<svg viewBox="0 0 {len(high)} 100" preserveAspectRatio="none" role="img" aria-label="Waveform">'
        f'<polygon points="{" ".join(points)}"/></svg>'
    )


def _words(tokens: Sequence[Token]) -> list[tuple[str, float, float]]:
    """Words with start and end, where tokens show spaces: a word begins after a space."""
    words: list[tuple[str, float, float]] = []
    begins = True
    for token in tokens:
        text = token.label.removeprefix("␣")
        begins = begins or text != token.label
        if text:
            label, start = ("", token.start) if begins else words.pop()[:2]
            words.append((label + text, start or 0.0, token.end or 0.0))
            begins = False
    return words if any("␣" in token.label for token in tokens) else []


def _row(inspection: Inspection, items: Sequence[tuple[str, float, float]], kind: str) -> str:
    """Labels at their times (start, end). Tokens have their position, by which the script finds them."""
    shown = []
    for number, (label, start, end) in enumerate(items):
        left = 100 * (start - inspection.start) / inspection.seconds
        width = 100 * (end - start) / inspection.seconds
        position = f' data-token="{number}"' if kind == "tokens" else ""
        shown.append(f'<i{position} style="left:{left:.3f}%;width:{width:.3f}%"><b>{escape(label)}</b></i>')
    dense = " dense" if kind == "tokens" and len(shown) > _DENSE else ""
    return f'<div class="{kind}{dense}">{"".join(shown)}</div>'


def _features(inspection: Inspection) -> str:
    low, high = np.percentile(inspection.features, [1, 99.5]).tolist()
    values = inspection.features.T[::-1]
    scale = Scale(low, high if high > low else low + 1)
    bins = values.shape[0]
    axis = ""
    if inspection.frequencies is not None:
        for hertz in (500, 1000, 2000, 4000):
            place = float(np.interp(hertz, inspection.frequencies, np.arange(bins)))
            if 1 < place < bins - 1:
                shown = f"{hertz // 1000} kHz" if hertz >= 1000 else f"{hertz} Hz"
                axis += f'<span style="top:{100 * (1 - (place + 0.5) / bins):.2f}%">{shown}</span>'
    image = _image(inspection, values, scale, MAGMA, inspection.frame_seconds, kind="features")
    title = f"Features: {escape(inspection.features_kind)}"
    note = "as the model receives them, normalized " + _legend(scale, "magma", (f"{low:.1f}", f"{high:.1f}"))
    return _panel(title, axis, image, "features", note, 150)


def _posterior_panel(inspection: Inspection, number: int) -> str:
    found: Posteriors = inspection.posteriors[number]
    title = "CTC posteriors" if found.name == "CTC" else f"CTC posteriors: {escape(found.name)}"
    left_out = f"{found.left_out} less likely symbols have no row " if found.left_out else ""
    image = _image(inspection, found.values, WEIGHTS, VIRIDIS, found.seconds, kind="posterior", number=number)
    return _panel(
        title, _row_labels(found.symbols), image, "rows", left_out + _legend(WEIGHTS, "viridis"),
        13 * len(found.symbols),
    )  # fmt: skip


def _row_labels(labels: Sequence[str]) -> str:
    height = 100 / len(labels)
    return "".join(
        f'<span style="top:{(row + 0.5) * height:.3f}%">{escape(label)}</span>'
        for row, label in enumerate(labels)
    )


def _cross_panel(inspection: Inspection) -> str:
    """The large image of the cross-attention: first the mean of all heads, then any head that is chosen."""
    mean = np.mean([heads.weights.mean(0) for heads in inspection.cross_attention], 0)
    labels = [token.label for token in inspection.tokens]
    image = _image(
        inspection, mean, WEIGHTS, VIRIDIS, inspection.state_seconds, kind="cross", name="mean of all heads"
    )
    boxes = "".join(
        f'<rect x="{(token.start - inspection.start) / inspection.seconds:.5f}" y="{row}" '
        f'width="{(token.end - token.start) / inspection.seconds:.5f}" height="1"/>'
        for row, token in enumerate(inspection.tokens)
        if token.start is not None and token.end is not None
    )
    overlay = (
        f'<svg class="boxes" viewBox="0 0 1 {len(labels)}" preserveAspectRatio="none">{boxes}</svg>'
        if inspection.times_from == "CTC"
        else ""
    )
    toggle = (
        ' <label><input type="checkbox" id="boxes" checked> boxes: times from CTC</label>' if overlay else ""
    )
    return _panel(
        'Cross-attention: <output id="cross-name">mean of all heads</output>',
        _row_labels(labels), image + overlay, "rows cross",
        f"rows: the token that is predicted {_legend(WEIGHTS, 'viridis')}{toggle}",
        max(60, 14 * len(labels)),
    )  # fmt: skip


def _legend(scale: Scale, colors: str, ends: tuple[str, str] | None = None) -> str:
    """A color bar with its values."""
    if ends is not None:
        return f'<span class="legend">{ends[0]} <i class="{colors}"></i> {ends[1]}</span>'
    ticks = "".join(
        f'<u style="left:{100 * ((value - scale.low) / (scale.high - scale.low)) ** (1 / scale.power):.1f}%">'
        f"{value:g}</u>"
        for value in (0, 0.05, 0.25, 0.5, 1)
    )
    return f'<span class="legend"><i class="{colors} wide">{ticks}</i></span>'


def _ticks(inspection: Inspection, side: str) -> str:
    """Ticks in seconds from the start of the file. `side` is "left" or "top", from which they are counted."""
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60) if inspection.seconds / s <= 12 or s == 60)
    first = math.ceil(inspection.start / step - 1e-9)
    last = math.floor((inspection.start + inspection.seconds) / step + 1e-9)
    return "".join(
        f'<span style="{side}:{100 * (i * step - inspection.start) / inspection.seconds:.3f}%">'
        f"{i * step:g}</span>"
        for i in range(first, last + 1)
    )


def _time_axis(inspection: Inspection) -> str:
    return (
        '<div class="panel time"><div class="axis"><span>seconds</span></div>'
        f'<div class="ticks">{_ticks(inspection, "left")}</div></div>'
    )


def _heads_section(inspection: Inspection, kind: str, title: str, layers: Sequence[Heads]) -> str:
    """Small images of all heads, a row for each layer; each can be chosen to be shown large."""
    parts = [f'<section id="{kind}"><h2>{title}</h2>']
    if kind == "cross":
        parts.append("<p>Time runs to the right, tokens downwards. Choose a head to see it above.</p>")
    else:
        parts.append(
            "<p>A row is the state that reads, from the first at the top; a column is the state that it "
            "reads. Colors follow the square root of the weight, from 0 to the largest weight of the head. A "
            'layer at a lower rate has fewer states. Choose a head to see it large.</p><div class="beside">'
            '<div class="large"><h3 id="self-name"></h3>'
            f'<div class="axis">{_ticks(inspection, "top")}</div>'
            f'<div class="plot square"></div><div class="ticks">{_ticks(inspection, "left")}</div>'
            f"<p>Seconds on both axes. {_legend(WEIGHTS, 'viridis', ('0', 'largest weight'))}</p></div>"
            '<div class="all">'
        )
    for heads in layers:
        shown = []
        for number, weights in enumerate(heads.weights, start=1):
            scale = WEIGHTS if kind == "cross" else Scale(0.0, float(weights.max()), 2.0)
            name = f"{heads.layer}, head {number}"
            image = _image(inspection, weights, scale, VIRIDIS, heads.seconds, kind=kind, name=name)
            entropy, diagonal = heads.entropy[number - 1], heads.diagonality[number - 1]
            shown.append(
                f'<button title="{escape(name)}">{image}<span>head {number}</span> '
                f"<span>entropy {entropy:.2f}</span> <span>diagonality {diagonal:.2f}</span>"
                f"{f' <span>largest {scale.high:.2f}</span>' if kind == 'self' else ''}</button>"
            )
        parts.append(f'<h3>{escape(heads.layer)}</h3><div class="heads">{"".join(shown)}</div>')
    return "\n".join(parts) + ("</div></div>" if kind == "self" else "") + "</section>\n"


def _measures(inspection: Inspection) -> str:
    """Entropy and diagonality of all heads, with their meaning."""
    parts = [
        "<section><h2>Entropy and diagonality</h2>"
        "<p><b>Entropy</b> says how spread the weights are: "
        "<code>H = &minus;(1/Q) &Sigma;<sub>q</sub> &Sigma;<sub>k</sub> a<sub>qk</sub> ln a<sub>qk</sub>"
        "</code>, the mean over the Q rows, in nats. It is 0 if every row has one weight of 1, and ln K if "
        "all K weights are equal. A row reads about e<sup>H</sup> states.</p>"
        "<p><b>Diagonality</b> says how near the weights are to the straight line from the first row and "
        "column to the last: <code>D = 1 &minus; (1/Q) &Sigma;<sub>q</sub> &Sigma;<sub>k</sub> "
        "a<sub>qk</sub> |k/(K&minus;1) &minus; q/(Q&minus;1)|</code>, with q and k counted from 0. It is 1 "
        "on the line, and "
        "about 0.67 if all weights are equal. For self-attention the line is each state itself. Speech with "
        "pauses does not follow a straight line, so cross-attention that is right stays below 1.</p>"
    ]
    for title, layers in (
        ("Cross-attention", inspection.cross_attention),
        ("Self-attention", inspection.self_attention),
    ):
        if layers:
            parts.append(_measure_table(title, layers))
    return "".join(parts) + "</section>\n"


def _measure_table(title: str, layers: Sequence[Heads]) -> str:
    count = max(len(heads.weights) for heads in layers)
    head = "".join(f"<th>{number}</th>" for number in range(1, count + 1))
    rows = []
    for heads in layers:
        most = math.log(max(2, heads.weights.shape[-1]))
        cells = "".join(_cell(value, value / most) for value in heads.entropy.tolist())
        cells += "<td></td>" * (count - len(heads.weights))
        cells += "".join(_cell(value, value) for value in heads.diagonality.tolist())
        cells += "<td></td>" * (count - len(heads.weights))
        rows.append(f'<tr><th>{escape(heads.layer)}</th>{cells}<td class="n">{most:.2f}</td></tr>')
    return (
        f'<div class="scroll"><table class="measures"><caption>{title}</caption><thead><tr><th></th>'
        f'<th colspan="{count}">entropy of head</th><th colspan="{count}">diagonality of head</th>'
        f"<th></th></tr><tr><th></th>{head}{head}<th>ln K</th></tr></thead><tbody>"
        f"{''.join(rows)}</tbody></table></div>"
    )


def _cell(value: float, share: float) -> str:
    return f'<td class="n" style="--share:{min(1, max(0, share)):.2f}">{value:.2f}</td>'


def _tokens(inspection: Inspection) -> str:
    """The table of tokens."""
    rows = []
    for number, token in enumerate(inspection.tokens):
        frame = state = ""
        if token.start is not None:
            state = f"{round((token.start - inspection.start) / inspection.state_seconds)}"
            frame = f"{round((token.start - inspection.start) / inspection.frame_seconds)}"
        cells = (
            str(number), f"<b>{escape(token.label)}</b>", str(token.id), _number(token.start),
            _number(token.end), state, frame, _number(token.probability, 3), _number(token.posterior, 3),
        )  # fmt: skip
        rows.append(f'<tr data-token="{number}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    names = (
        "position", "token", "id", "start (s)", "end (s)", "first state", "first frame",
        "decoder's probability", "highest CTC posterior",
    )  # fmt: skip
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        '<section><h2>Tokens</h2><div class="scroll"><table class="list"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>\n"
    )


def _number(value: float | None, digits: int = 2) -> str:
    return "&ndash;" if value is None else f"{value:.{digits}f}"


def _data(inspection: Inspection) -> str:
    """What the script needs, as JSON inside HTML."""
    values = {
        "start": inspection.start,
        "seconds": inspection.seconds,
        "frame": inspection.frame_seconds,
        "state": inspection.state_seconds,
        "frequencies": None if inspection.frequencies is None else inspection.frequencies.round().tolist(),
        "tokens": [[token.label, token.start, token.end] for token in inspection.tokens],
        "symbols": [found.symbols for found in inspection.posteriors],
        "colors": {"viridis": palette(VIRIDIS).tolist(), "magma": palette(MAGMA).tolist()},
    }
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
