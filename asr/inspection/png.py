"""The same numbers as figures, for papers and slides, and the panel that TensorBoard shows too.

It needs matplotlib (the extra `plots`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.errors import AsrError
from asr.files import atomic_write
from asr.inspection.attention import Heads
from asr.inspection.gather import Inspection, Posteriors
from asr.inspection.images import envelope

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# matplotlib takes a character from the first of these fonts that has it and is installed.
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Arial Unicode MS")
MOST_LABELS = 60  # labels; with more rows, only every second, third ... row has one


def check_matplotlib() -> None:
    """Raises AsrError when matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise AsrError("figures need matplotlib; pip install matplotlib") from None


def write_figures(inspection: Inspection, folder: Path) -> list[Path]:
    """Write the figures of what the model has: overview.png, cross_attention.png, self_attention.png.

    Raises AsrError without matplotlib, and when a file cannot be written.
    """
    check_matplotlib()
    figures = {"overview": overview(inspection)}
    if inspection.cross_attention:
        figures["cross_attention"] = cross_attention(inspection)
    if inspection.self_attention:
        figures["self_attention"] = self_attention(inspection)
    written = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        with atomic_write(path, "wb") as out:
            figure.savefig(out, format="png", dpi=110)
        written.append(path)
    return written


def installed_fonts() -> list[str]:
    """The fonts for texts of any script. A character that none of them has is drawn as a box."""
    from matplotlib import font_manager

    warnings.filterwarnings("ignore", "Glyph .* missing from font")  # one warning for each would fill a log
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in FONTS if name in installed]


def show_weights(
    panel: Axes, weights: np.ndarray, extent: tuple[float, float, float, float], highest: float = 1.0
) -> AxesImage:
    """Attention weights (Q, K) as an image, with (left, right, bottom, top) in data coordinates.

    The color scale follows the square root of the weights, so that figures can be compared and small weights
    are visible.
    """
    from matplotlib.colors import PowerNorm

    return panel.imshow(
        weights, norm=PowerNorm(0.5, 0, highest), aspect="auto", interpolation="nearest", extent=extent
    )


def label_rows(panel: Axes, labels: Sequence[str], fonts: Sequence[str]) -> None:
    """Labels of the rows of an image."""
    step = -(-len(labels) // MOST_LABELS)
    panel.set_yticks(
        range(0, len(labels), step),
        list(labels)[::step],
        fontfamily=list(fonts),
        parse_math=False,
        fontsize=7,
    )


def overview(inspection: Inspection) -> Figure:
    """Waveform, features, posteriors and the mean of the cross-attention on one time axis."""
    rows = [2.0, 3.0, *(0.6 + 0.14 * len(p.symbols) for p in inspection.posteriors)]
    if inspection.cross_attention:
        rows.append(max(2.0, 0.13 * len(inspection.tokens)))
    figure = _figure(12, min(40.0, 1.0 + sum(rows)))
    panels = iter(figure.subplots(len(rows), 1, sharex=True, height_ratios=rows, squeeze=False)[:, 0])
    fonts, start, end = installed_fonts(), inspection.start, inspection.start + inspection.seconds
    wave = next(panels)
    lowest, highest = envelope(inspection.samples, 2000)
    wave.fill_between(np.linspace(start, end, len(lowest)), lowest, highest, linewidth=0.4)
    wave.set(ylabel="waveform", xlim=(start, end))
    top = 1.02
    for token in inspection.spoken:
        assert token.start is not None and token.end is not None
        wave.axvline(token.start, color="0.8", linewidth=0.5, zorder=0)
        if len(inspection.spoken) <= 2 * MOST_LABELS:
            wave.text(
                (token.start + token.end) / 2, top, token.label, transform=wave.get_xaxis_transform(),
                ha="center", fontsize=8, fontfamily=fonts, parse_math=False,
            )  # fmt: skip
    features = next(panels)
    low, high = np.percentile(inspection.features, [1, 99.5])
    image = features.imshow(
        inspection.features.T, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high,
        extent=(start, start + len(inspection.features) * inspection.frame_seconds, -0.5,
                inspection.features.shape[1] - 0.5),
    )  # fmt: skip
    features.set_ylabel(f"{inspection.features_kind}, bins")
    figure.colorbar(image, ax=features, label="normalized", pad=0.01)
    for found in inspection.posteriors:
        _posteriors(next(panels), found, start, fonts)
    if inspection.cross_attention:
        panel, mean = next(panels), np.mean([h.weights.mean(0) for h in inspection.cross_attention], 0)
        shown = show_weights(panel, mean, _extent(mean, start, inspection.state_seconds))
        label_rows(panel, [token.label for token in inspection.tokens], fonts)
        panel.set_ylabel("cross-attention, mean")
        figure.colorbar(shown, ax=panel, label="weight", pad=0.01)
    figure.axes[len(rows) - 1].set(xlabel="seconds", xlim=(start, end))
    _title(figure, f"{inspection.audio}: {inspection.text}", fonts)
    return figure


def cross_attention(inspection: Inspection) -> Figure:
    """The cross-attention of every head: a row for each layer, a column for each head."""
    layers, fonts = inspection.cross_attention, installed_fonts()
    labels = [token.label for token in inspection.tokens]
    figure = _figure(*_size(layers, 3.2, max(1.8, min(9.0, 0.11 * len(labels)))))
    image = None
    for heads, number, panel in _grid(figure, layers):
        extent = _extent(heads.weights[number], inspection.start, heads.seconds)
        image = show_weights(panel, heads.weights[number], extent)
        if number == 0:
            label_rows(panel, labels, fonts)
    figure.colorbar(image, ax=figure.axes, label="attention weight", aspect=60, pad=0.01)  # type: ignore[arg-type]
    figure.supxlabel("seconds")
    _title(figure, f"Cross-attention: {inspection.text}", fonts)
    return figure


def self_attention(inspection: Inspection) -> Figure:
    """The self-attention of every head of the encoder. Colors end at each head's largest weight."""
    layers, start = inspection.self_attention, inspection.start
    figure = _figure(*_size(layers, 2.6, 2.6))
    for heads, number, panel in _grid(figure, layers):
        weights = heads.weights[number]
        end = start + weights.shape[0] * heads.seconds
        highest = float(weights.max())
        show_weights(panel, weights, (start, end, end, start), highest)
        panel.set_title(f"{panel.get_title()}, to {highest:.2f}", fontsize=8)
    figure.supxlabel("seconds: the state that is read")
    figure.supylabel("seconds: the state that reads")
    _title(figure, f"Self-attention: {inspection.text}", installed_fonts())
    return figure


def _posteriors(panel: Axes, found: Posteriors, start: float, fonts: Sequence[str]) -> None:
    image = show_weights(panel, found.values, _extent(found.values, start, found.seconds))
    label_rows(panel, found.symbols, fonts)
    panel.set_ylabel(found.name)
    figure: Any = panel.figure
    figure.colorbar(image, ax=panel, label="probability", pad=0.01)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _size(layers: Sequence[Heads], width: float, height: float) -> tuple[float, float]:
    heads = max(len(each.weights) for each in layers)
    return 1.5 + width * heads, 1.0 + height * len(layers)


def _grid(figure: Figure, layers: Sequence[Heads]) -> Iterator[tuple[Heads, int, Axes]]:
    """A panel for each head, with a title."""
    count = max(len(heads.weights) for heads in layers)
    panels = figure.subplots(len(layers), count, sharex=True, sharey=True, squeeze=False)
    for heads, row in zip(layers, panels, strict=True):
        for number, panel in enumerate(row):
            if number >= len(heads.weights):
                panel.set_axis_off()
                continue
            panel.set_title(f"{heads.layer}, head {number + 1}", fontsize=8)
            yield heads, number, panel


def _extent(values: np.ndarray, start: float, seconds: float) -> tuple[float, float, float, float]:
    """Columns at their times, rows at 0, 1, 2 ... downwards."""
    return start, start + values.shape[1] * seconds, values.shape[0] - 0.5, -0.5


def _title(figure: Figure, title: str, fonts: Sequence[str]) -> None:
    shown = title if len(title) <= 100 else f"{title[:97]}..."
    figure.suptitle(shown, fontfamily=list(fonts), parse_math=False)
