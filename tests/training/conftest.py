"""What holds for all tests of training."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def fast_validation(no_attention_plots):
    """Runs draw no cross-attention, except in test_attention_plot.py."""
