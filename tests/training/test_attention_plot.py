"""Pictures of attention: what is drawn where, in whatever script, and which utterance is chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.config import Config
from asr.datasets.corpus import Corpus
from asr.datasets.loading import Loader
from asr.datasets.manifest import read_manifest
from asr.model_folder import load_model
from asr.training import attention_plot
from asr.training.attention_plot import LEFT, TOP, choose_utterance, draw, draw_attention

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "manifest.jsonl"


def loader(utterances, bundle):
    return Loader(Corpus.of(utterances), bundle.tokenizer, bundle.config, train=False)


@pytest.fixture(scope="module")
def digits():
    return load_model(None, "cpu")


def brightness(image, layers):
    """The panels of an image, as the sum of their colours: (layers, height, width)."""
    height = image.shape[0] - TOP - attention_plot.BOTTOM
    width = (image.shape[1] - LEFT - attention_plot.RIGHT) // layers - attention_plot.GAP
    panels = [
        image[TOP : TOP + height, LEFT + i * (width + attention_plot.GAP) :][:, :width] for i in range(layers)
    ]
    return np.stack(panels).astype(int).sum(-1)


def test_a_weight_is_drawn_where_its_character_and_its_second_are():
    weights = torch.zeros(3, 4, 8)
    for layer, row, state in ((0, 0, 0), (1, 2, 5), (2, 3, 7)):
        weights[layer, row, state] = 1.0
    panels = brightness(draw(weights, ["a", "b", "c", "end"], 0.32, "id: abc"), 3)
    _, height, width = panels.shape
    for panel, (row, state) in zip(panels, ((0, 0), (2, 5), (3, 7)), strict=True):
        y, x = (panel == panel.max()).nonzero()
        assert row / 4 <= y.min() / height and (y.max() + 1) / height <= (row + 1) / 4
        assert (
            abs(x.min() / width - state / 8) < 1 / width
            and abs((x.max() + 1) / width - (state + 1) / 8) < 0.02
        )
        dark = np.delete(panel.reshape(4, height // 4, width), row, axis=0)
        assert (dark == dark[0, 0, 0]).all()


def test_brighter_is_more_and_the_scale_is_the_same_in_all_pictures():
    found = [
        brightness(draw(torch.full((1, 2, 3), w), ["a", "end"], 1.0, ""), 1)[0, 3, 3]
        for w in (0, 0.1, 0.5, 1)
    ]
    assert found == sorted(set(found))
    alone = brightness(draw(torch.full((1, 2, 3), 0.1), ["a", "end"], 1.0, ""), 1)[0, 3, 3]
    beside = torch.full((1, 2, 3), 0.1)
    beside[0, 1] = 1.0
    assert brightness(draw(beside, ["a", "end"], 1.0, ""), 1)[0, 3, 3] == alone


@settings(max_examples=25)
@given(
    st.integers(1, 7), st.text(st.characters(exclude_categories=["Cs"]), max_size=130), st.floats(0.02, 60.0)
)
def test_whatever_is_said_there_is_a_picture(layers, text, seconds):
    states = max(1, round(seconds * 25))
    weights = torch.rand(layers, len(text) + 1, states).softmax(-1)
    image = draw(weights, [*text, "end"], seconds, f"id: {text}")
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert image.shape[1] < 2000 and image.shape[0] < 2200
    assert (image[:, -2:] == 255).all()  # nothing runs over the right edge


def test_a_character_that_no_font_has_shows_its_code_point(monkeypatch):
    monkeypatch.setattr(attention_plot, "FONTS", ())
    attention_plot._fonts.cache_clear()
    attention_plot._font_of.cache_clear()
    try:
        assert [text for _, text in attention_plot._runs("a机é")] == ["a", "U+673A", "U+00E9"]
    finally:
        attention_plot._fonts.cache_clear()
        attention_plot._font_of.cache_clear()


def test_the_shipped_model_listens_along_a_diagonal(digits):
    """In the plot, not in the weights: the brightest second of each row moves on from row to row."""
    batch = loader(read_manifest(SAMPLES)[:1], digits).load(choose_plan())
    image = draw_attention(digits, batch)
    panels = brightness(image, digits.config.model.decoder_layers)
    rows = len(batch.texts[0]) + 1
    best = 0.0
    for panel in panels:
        middle = panel[(np.arange(rows) * 2 + 1) * panel.shape[0] // (2 * rows)]  # (rows, width)
        best = max(best, np.corrcoef(np.arange(rows), middle.argmax(1))[0, 1])
    assert best > 0.9


def choose_plan():
    return [attention_plot.Example((0,), (0.0, 0.0), 1.0, (0, 0, 0))]


def test_a_model_that_cannot_show_its_attention_has_no_picture(digits):
    class Other(torch.nn.Module):
        pass

    batch = loader(read_manifest(SAMPLES)[:1], digits).load(choose_plan())
    assert draw_attention(replace(digits, network=Other()), batch) is None


def test_the_utterance_is_the_readable_one_nearest_the_median(digits, tmp_path):
    utterances = sorted(read_manifest(SAMPLES), key=lambda u: u.duration)[:5]
    chosen = choose_utterance(loader(utterances, digits))
    assert chosen.ids == [utterances[2].id] and chosen.waveforms.size(0) == 1
    broken = replace(utterances[2], audio=tmp_path / "gone.wav")
    silent = replace(utterances[2], id="silent", text="")
    chosen = choose_utterance(loader([*utterances[:2], broken, silent, *utterances[3:]], digits))
    assert chosen.ids in ([utterances[1].id], [utterances[3].id])
    assert choose_utterance(loader([broken], digits)) is None


def test_no_dropout_in_the_picture(tiny_model):
    bundle = load_model(tiny_model, "cpu")
    assert Config().model.dropout > 0
    batch = loader(read_manifest(SAMPLES)[:1], bundle).load(choose_plan())
    bundle.network.train()
    assert np.array_equal(draw_attention(bundle, batch), draw_attention(bundle, batch))
