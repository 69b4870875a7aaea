"""Matrices as small images: 256 colors, from which a page can read the values again."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

# Ten colors of matplotlib's viridis and magma, dark to light; the colors between them are interpolated.
VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"]
MAGMA = ["000004", "180f3d", "440f76", "721f81", "9e2f7f", "cd4071", "f1605d", "fd9668", "feca8d", "fcfdbf"]


@dataclass(frozen=True)
class Scale:
    """How values become colors: value = low + (high - low) * (index / 255) ** power, index from 0 to 255."""

    low: float
    high: float
    power: float = 1.0

    def index(self, values: np.ndarray) -> np.ndarray:
        """The index of the color of each value, uint8. Values outside the range get its ends."""
        shares = (np.asarray(values, np.float64) - self.low) / ((self.high - self.low) or 1.0)
        indices: np.ndarray = np.rint(255 * np.clip(shares, 0, 1) ** (1 / self.power)).astype(np.uint8)
        return indices


def palette(stops: list[str]) -> np.ndarray:
    """256 colors (256, 3), uint8, from colors such as "440154"."""
    colors = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in stops])
    places = np.linspace(0, len(stops) - 1, 256)
    channels = [np.interp(places, range(len(stops)), channel) for channel in colors.T]
    return np.rint(np.stack(channels, 1)).astype(np.uint8)


def envelope(samples: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest sample in each column of a drawing, `columns` of them at most."""
    edges = np.linspace(0, len(samples), min(columns, len(samples)) + 1).astype(int)[:-1]
    return np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)


def data_url(values: np.ndarray, scale: Scale, stops: list[str]) -> str:
    """A matrix (rows, columns) as a PNG inside a URL, one pixel for each value."""
    image = Image.fromarray(scale.index(values))  # mode L
    image.putpalette(palette(stops).tobytes())  # and now P
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
