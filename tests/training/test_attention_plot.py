"""Plots of the cross-attention: the weights, the axes and the chosen utterance."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import sections
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asr.config import Config
from asr.datasets.batching import Example
from asr.datasets.corpus import Corpus
from asr.datasets.loading import Loader
from asr.datasets.manifest import read_manifest
from asr.model_folder import load_model
from asr.training import attention_plot
from asr.training.attention_plot import attention_of, choose_utterance, draw, plot_attention
from asr.training.loop import train

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"
ONE = [Example((0,), (0.0, 0.0), 1.0, (0, 0, 0))]


def loader(utterances, bundle):
    config = bundle.config
    return Loader(Corpus.of(utterances), bundle.tokenizer, config.features.sample_rate, config.data)


@pytest.fixture(scope="module")
def digits():
    return load_model("digits", "cpu")


def test_a_panel_shows_the_weights_of_a_layer_on_axes_of_tokens_and_seconds():
    pytest.importorskip("matplotlib")
    weights = torch.rand(3, 4, 8)
    figure = draw(weights, ["a", "$", "_", "EOS"], 0.32, "id: a$ \u673a")
    *panels, colors = figure.axes
    assert len(panels) == 3 and colors.get_ylabel() == "attention weight"
    for panel, layer in zip(panels, weights, strict=True):
        (image,) = panel.get_images()
        assert np.allclose(image.get_array(), layer)
        assert tuple(image.get_extent()) == (0, 0.32, 3.5, -0.5) and image.norm(0.25) == pytest.approx(0.5)
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["a", "$", "_", "EOS"]
    figure.canvas.draw()  # a dollar sign does not begin a formula


def test_the_shipped_model_attends_along_a_diagonal(digits):
    batch = loader(read_manifest(SAMPLES)[:1], digits).load(ONE)
    weights, labels, seconds, title = attention_of(digits, batch)
    rows = len(batch.texts[0]) + 1
    assert weights.shape[1] == len(labels) == rows and labels[-1] == "EOS"
    assert seconds == pytest.approx(batch.amount) and title.endswith(batch.texts[0])
    places = weights.argmax(-1)  # (n_layers, rows)
    assert max(np.corrcoef(np.arange(rows), layer)[0, 1] for layer in places.numpy()) > 0.9


def test_padded_tokens_have_no_rows(digits):
    utterances = read_manifest(SAMPLES)[:1]
    plain = attention_of(digits, loader(utterances, digits).load(ONE))
    data = digits.config.data.model_copy(update={"pad_tokens": 16})
    rate = digits.config.features.sample_rate
    padded = Loader(Corpus.of(utterances), digits.tokenizer, rate, data).load(ONE)
    assert padded.tokens.size(1) == 16
    weights, labels, *_ = attention_of(digits, padded)
    assert labels == plain[1] and len(labels) == len(utterances[0].text or "") + 1
    torch.testing.assert_close(weights, plain[0])


def test_there_is_no_plot_without_cross_attention_or_without_matplotlib(digits, monkeypatch):
    source = loader(read_manifest(SAMPLES)[:1], digits)
    pytest.importorskip("matplotlib")
    assert plot_attention(digits, source) is not None
    assert plot_attention(replace(digits, network=torch.nn.Linear(1, 1)), source) is None
    original = builtins.__import__

    def without_matplotlib(name, *given, **named):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    assert plot_attention(digits, source) is None


def test_the_utterance_is_the_readable_one_nearest_the_median(digits, tmp_path):
    utterances = sorted(read_manifest(SAMPLES), key=lambda u: u.duration)[:5]
    chosen = choose_utterance(loader(utterances, digits))
    assert chosen.ids == [utterances[2].id] and chosen.waveforms.size(0) == 1
    broken = replace(utterances[2], audio=tmp_path / "gone.wav")
    silent = replace(utterances[2], id="silent", text="")
    chosen = choose_utterance(loader([*utterances[:2], broken, silent, *utterances[3:]], digits))
    assert chosen.ids in ([utterances[1].id], [utterances[3].id])
    assert choose_utterance(loader([broken], digits)) is None


def test_there_is_no_dropout_in_the_plot(tiny_model):
    bundle = load_model(tiny_model, "cpu")
    batch = loader(read_manifest(SAMPLES)[:1], bundle).load(ONE)
    bundle.network.train()
    assert torch.equal(attention_of(bundle, batch)[0], attention_of(bundle, batch)[0])


def test_every_validation_draws_the_attention(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(attention_plot, "plot_attention", plot_attention)  # other tests of training draw none
    config = {
        "model": sections(d_model=16, n_heads=2, d_ffn=16),
        "data": {"train": [SAMPLES], "dev": [SAMPLES], "first": 2},
        "train": {"steps": 1, "validate_every": 1},
    }
    assert train(Config.model_validate(config), tmp_path / "run", device="cpu") == 0
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    assert [image.step for image in board.Reload().Images("dev/attention")] == [1]
