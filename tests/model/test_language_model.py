"""A language model has the same probabilities step by step, in parallel and in any batch."""

import pytest
import torch
from helpers import BOS

from asr.datasets.text import padded
from asr.model.language_model import LanguageModel
from asr.tokenizers import SpecialTokens

V = 11


@pytest.fixture(params=["pre", "post"])
def network(request):
    torch.manual_seed(3)
    config = LanguageModel.Config(d_model=16, n_heads=2, d_ffn=24, n_layers=3, norm=request.param)
    model = LanguageModel(config, V).eval()
    for parameter in model.parameters():
        parameter.data *= 1.5  # predictions that differ clearly
    return model


@pytest.fixture
def tokens():
    """Texts of several lengths, from BOS on: (5, 14)."""
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(4, V, (length,), generator=generator).tolist() for length in (12, 3, 0, 7, 1)]
    return padded(texts, SpecialTokens((BOS,), 2, 0, 0, (), V))


@torch.no_grad()
def test_steps_equal_the_parallel_pass(network, tokens):
    expected = network(tokens).log_softmax(-1)
    state = network.start(len(tokens), tokens.size(1))
    for position in range(tokens.size(1)):
        found = network.step(tokens[:, position], state)
        torch.testing.assert_close(found, expected[:, position], atol=1e-5, rtol=0)


@torch.no_grad()
def test_rows_can_be_reordered_repeated_and_dropped(network, tokens):
    state = network.start(len(tokens), tokens.size(1))
    for position in range(4):
        network.step(tokens[:, position], state)
    rows = torch.tensor([4, 0, 0, 2, 1, 3, 3])
    state = state.reorder(rows.unsqueeze(0))
    expected = network(tokens).log_softmax(-1)
    torch.testing.assert_close(network.step(tokens[rows, 4], state), expected[rows, 4], atol=1e-5, rtol=0)
    again = torch.tensor([6, 1, 0, 3, 4, 4, 2])  # as many rows, some of them in the same position
    rows, state = rows[again], state.reorder(again.unsqueeze(0))
    torch.testing.assert_close(network.step(tokens[rows, 5], state), expected[rows, 5], atol=1e-5, rtol=0)


@torch.no_grad()
def test_no_position_depends_on_later_ones(network, tokens):
    other = tokens.clone()
    other[:, 6:] = 5
    torch.testing.assert_close(network(tokens)[:, :6], network(other)[:, :6], atol=1e-5, rtol=0)
    assert not torch.allclose(network(tokens)[:, 6:], network(other)[:, 6:], atol=1e-3)


@torch.no_grad()
def test_a_batch_equals_single_texts(network, tokens):
    together = network(tokens)
    for row, length in enumerate((14, 5, 2, 9, 3)):
        alone = network(tokens[row : row + 1, :length])
        torch.testing.assert_close(alone[0], together[row, :length], atol=1e-5, rtol=0)


def test_a_full_state_is_an_error(network):
    state = network.start(1, 2)
    with torch.no_grad():
        for _ in range(2):
            network.step(torch.tensor([BOS]), state)
        with pytest.raises(IndexError, match="capacity for 2"):
            network.step(torch.tensor([BOS]), state)
