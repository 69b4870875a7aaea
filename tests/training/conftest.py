"""What holds for all tests of training."""

from functools import partial

import pytest

from asr.decoding import DecodingOptions

MAX_TOKENS = 10  # a model that has learned nothing writes 60


@pytest.fixture(scope="module", autouse=True)
def fast_validation(no_attention_plots):
    """Runs draw no cross-attention, except in test_attention_plot.py, and decode the beginnings of texts."""
    with pytest.MonkeyPatch.context() as patch:
        short = partial(DecodingOptions, max_tokens=MAX_TOKENS)
        patch.setattr("asr.training.recognition.DecodingOptions", short)
        yield


@pytest.fixture
def whole_texts(monkeypatch):
    """Validation decodes whole texts, as outside of tests."""
    monkeypatch.setattr("asr.training.recognition.DecodingOptions", DecodingOptions)
