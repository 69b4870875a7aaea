"""A plot of what the decoder listens to: the cross-attention of one utterance, all layers side by side."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from asr.datasets.batching import Example
from asr.datasets.loading import Batch, Loader
from asr.model.interfaces import ShowsAttention
from asr.model_folder import Bundle
from asr.tokenizers import BOS

TRIES = 20  # utterances that are read before the attention_plot is given up
FONT = 13  # pixels
LEFT, TOP, GAP, BOTTOM, RIGHT = 62, 48, 14, 40, 64  # pixels around and between the panels
INK, PAPER, FAINT = (40, 40, 40), (255, 255, 255), (150, 150, 150)
# Pillow's own font has ASCII alone; those that follow are taken where the machine has them.
FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "Arial Unicode.ttf")
# Every eighth of viridis (Smith and van der Walt 2015), between which colours are interpolated.
VIRIDIS = np.frombuffer(
    bytes.fromhex("440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725"), np.uint8
).reshape(-1, 3)


def choose_utterance(loader: Loader) -> Batch | None:
    """The utterance to draw, alone in a batch: neither long nor short, the same in every sitting.

    Its duration is the nearest to the set's median; one that cannot be read, or has no text, gives way to the
    next. None when none will do.
    """
    durations = loader.corpus.durations
    distance = np.abs(durations - np.median(durations))
    for index in np.argsort(distance, kind="stable")[:TRIES].tolist():
        batch = loader.load([Example((index,), (0.0, 0.0), 1.0, (0, 0, index))])
        if batch.ids and batch.texts[0]:
            return batch
    return None


@torch.inference_mode()
def draw_attention(bundle: Bundle, batch: Batch) -> np.ndarray | None:
    """The cross-attention on the one utterance of a batch while its own text is spelt to the decoder.

    An image (height, width, 3) of uint8, or None where the model cannot show its attention. The weights are
    means over the heads. The bundle is left in evaluation mode.
    """
    network, device = bundle.eval().network, bundle.device
    if not isinstance(network, ShowsAttention):
        return None
    ids = batch.tokens[0]
    memory = network.encode(*bundle.features(batch.waveforms.to(device), batch.lengths.to(device)))
    given = torch.cat([ids.new_tensor([BOS]), ids]).unsqueeze(0).to(device)  # (1, U)
    weights = network.cross_attention(given, memory)[0].mean(1)  # (n_layers, U, S)
    labels = [bundle.tokenizer.decode([i]) for i in ids.tolist()] + ["end"]
    seconds = float(batch.lengths[0]) / bundle.features.config.sample_rate
    return draw(weights, labels, seconds, f"{batch.ids[0]}: {batch.texts[0]}")


def draw(weights: Tensor, labels: Sequence[str], seconds: float, title: str) -> np.ndarray:
    """Weights (n_layers, U, S) as an image (height, width, 3), one panel for each layer.

    Down the side stand the `labels` of the tokens said at each row, along the bottom `seconds` of audio. The
    brightness is the root of the weight, so that pictures of different steps compare and small weights show.
    """
    layers, rows, states = weights.shape
    height = max(100, rows * max(FONT + 1, min(20, 480 // rows)))
    width = max(150, min(9 * states, 1300 // layers))
    image = Image.new("RGB", (LEFT + layers * (width + GAP) + RIGHT, TOP + height + BOTTOM), PAPER)
    pen = ImageDraw.Draw(image)
    while _length(_runs(title)) > image.width - LEFT - GAP:
        title = title.removesuffix("...")[:-1] + "..."
    _write(pen, (LEFT, 4), title, anchor="la")

    for row, label in enumerate(labels):
        y = TOP + (row + 0.5) * height / rows
        _write(pen, (LEFT - 8, y), "_" if label == " " else label, anchor="rm")
    for layer, panel in enumerate(weights.float().cpu().numpy()):
        left = LEFT + layer * (width + GAP)
        _write(pen, (left + width / 2, TOP - 8), f"layer {layer + 1}", anchor="ms")
        image.paste(_coloured(panel, width, height), (left, TOP))
        _draw_seconds(pen, left, TOP + height, width, seconds)
    _draw_scale(image, pen, image.width - RIGHT + 4, height)
    return np.asarray(image)


def _coloured(weights: np.ndarray, width: int, height: int) -> Image.Image:
    """Weights in [0, 1] of any shape (rows, columns) as an image of that size."""
    level = np.sqrt(weights.clip(0, 1)) * (len(VIRIDIS) - 1)
    colour = [np.interp(level, np.arange(len(VIRIDIS)), channel) for channel in VIRIDIS.T]
    return Image.fromarray(np.stack(colour, -1).round().astype(np.uint8)).resize(
        (width, height), Image.Resampling.BOX
    )


def _draw_seconds(pen: ImageDraw.ImageDraw, left: float, y: float, width: int, seconds: float) -> None:
    """The axis below a panel, with a mark every 1, 2 or 5 x 10^k seconds, so that the numbers have room."""
    room = max(2, width // 40) / seconds  # marks for each second, at most
    every = next(m * 10.0**k for k in range(-3, 6) for m in (1, 2, 5) if m * 10.0**k * room >= 1)
    for mark in range(int(seconds / every + 1e-6) + 1):
        x = left + min(width - 1, mark * every / seconds * width)
        pen.line([(x, y), (x, y + 4)], fill=INK)
        _write(pen, (x, y + 6), f"{mark * every:g}", anchor="ma")
    _write(pen, (left + width / 2, y + 22), "seconds", anchor="ma", fill=FAINT)


def _draw_scale(image: Image.Image, pen: ImageDraw.ImageDraw, left: int, height: int) -> None:
    """What the colours mean, from 0 at the bottom to 1 at the top."""
    shown = min(height, 200)
    column = np.linspace(1, 0, shown)[:, None]
    image.paste(_coloured(column**2, 12, shown), (left, TOP))
    for weight in (1.0, 0.5, 0.2, 0.05, 0.0):
        y = TOP + (1 - weight**0.5) * (shown - 1)
        _write(pen, (left + 16, y), f"{weight:g}", anchor="lm", fill=FAINT)


def _write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    anchor: str,
    fill: tuple[int, int, int] = INK,
) -> None:
    """Text whose beginning, middle or end (anchor l, m, r) is at a place."""
    runs = _runs(text)
    x = place[0] - {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * _length(runs)
    for font, run in runs:
        pen.text((round(x), place[1]), run, font=font, fill=fill, anchor="l" + anchor[1])
        x += font.getlength(run)


def _runs(text: str) -> list[tuple[ImageFont.FreeTypeFont, str]]:
    """Each character with a font that has it; one that none has as U+ and its code point."""
    return [(font, c) if (font := _font_of(c)) else (_fonts()[0], f"U+{ord(c):04X}") for c in text]


def _length(runs: list[tuple[ImageFont.FreeTypeFont, str]]) -> float:
    return sum(font.getlength(run) for font, run in runs)


@functools.cache
def _fonts() -> list[ImageFont.FreeTypeFont]:
    basic = ImageFont.Layout.BASIC  # the other engine shapes whole words, and refuses some characters
    own = ImageFont.load_default(FONT)
    assert isinstance(own, ImageFont.FreeTypeFont)  # as always when a size is asked for
    found = [own.font_variant(layout_engine=basic)]
    for name in FONTS:
        try:
            found.append(ImageFont.truetype(name, FONT, layout_engine=basic))
        except OSError:
            continue
    return found


@functools.cache
def _font_of(character: str) -> ImageFont.FreeTypeFont | None:
    """The first font that has the character; one without it draws what it draws for no character at all."""
    for font in _fonts() if character.isprintable() else []:
        if bytes(font.getmask(character)) != bytes(font.getmask("\U0010ffff")):
            return font
    return None
