"""The joint loss against its definition."""

from __future__ import annotations

import pytest
import torch
from helpers import sections

from asr.model.encoder_decoder import EncoderDecoder
from asr.tokenizers import SpecialTokens
from asr.training.losses import joint_loss

V, PAD, BOS, EOS = 9, 0, 1, 2
SPECIAL = SpecialTokens((BOS,), EOS, PAD, PAD, (PAD, BOS), V)


def loss(network, features, lengths, tokens, token_lengths, ctc_weight=0.3, smoothing=0.1, noise=0.0):
    memory = network.encode(features, lengths)
    return joint_loss(network, memory, tokens, token_lengths, SPECIAL, ctc_weight, smoothing, noise)


@pytest.fixture
def network() -> EncoderDecoder:
    torch.manual_seed(0)
    config = EncoderDecoder.Config(
        **sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4)
    )
    return EncoderDecoder(config, 8, V).eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    features, lengths = torch.randn(2, 40, 8), torch.tensor([40, 22])
    features[1, 22:] = 0
    return features, lengths, torch.tensor([[4, 5, 5, 8], [7, 6, 0, 0]]), torch.tensor([4, 2])


def test_attention_loss_is_smoothed_cross_entropy_of_what_follows(network, batch):
    features, lengths, tokens, token_lengths = batch
    found = loss(network, *batch, 0.0)
    memory = network.encode(features, lengths)
    expected = 0.0
    for row in range(2):
        text = tokens[row, : token_lengths[row]].tolist()
        given = torch.tensor([[BOS, *text]])
        log_probs = network.decode(given, memory.select(torch.tensor([row]))).detach().log_softmax(-1)[0]
        for position, targets in enumerate([*text, EOS]):
            expected += -(0.9 * log_probs[position, targets] + 0.1 * log_probs[position].mean())
    assert float(found.total) == pytest.approx(float(expected), rel=1e-5)
    assert float(found.ctc) == 0


def test_ctc_loss_sums_over_all_alignments(network):
    """Three encoder states, one token: of the 2^3 paths of blank and token, those that collapse to it."""
    torch.manual_seed(2)
    features, lengths = torch.randn(1, 12, 8), torch.tensor([12])
    found = loss(network, features, lengths, torch.tensor([[5]]), torch.tensor([1]), 1.0)
    probabilities = network.ctc(network.encode(features, lengths))[0].exp()  # (3, V)
    paths = [(5, 0, 0), (0, 5, 0), (0, 0, 5), (5, 5, 0), (0, 5, 5), (5, 5, 5)]
    total = sum(probabilities[0, a] * probabilities[1, b] * probabilities[2, c] for a, b, c in paths)
    assert float(found.total) == pytest.approx(-float(total.log()), rel=1e-4)


def test_the_total_is_the_weighted_sum_of_both_losses(network, batch):
    found = loss(network, *batch)
    assert float(found.total) == pytest.approx(
        0.7 * float(found.attention) + 0.3 * float(found.ctc), rel=1e-5
    )


def test_text_longer_than_its_frames_gives_a_finite_loss_and_gradient(network):
    features, lengths = torch.randn(1, 8, 8), torch.tensor([8])  # 2 encoder states
    tokens = torch.tensor([[4, 4, 5, 6, 7]])
    found = loss(network, features, lengths, tokens, torch.tensor([5]))
    found.total.backward()
    assert torch.isfinite(found.total) and float(found.ctc) == 0
    assert found.unalignable.tolist() == [True]
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_sum_over_rows_equals_the_batch(network, batch):
    """Losses are sums, divided by the tokens of the group. So accumulation equals a larger batch."""
    features, lengths, tokens, token_lengths = batch
    whole = loss(network, *batch)
    parts = [
        loss(network, *(each[i : i + 1] for each in (features, lengths, tokens, token_lengths)))
        for i in range(2)
    ]
    assert float(sum(p.total for p in parts)) == pytest.approx(float(whole.total), rel=1e-5)


def test_token_noise_changes_decoder_inputs_and_never_targets(network, batch):
    """With all input tokens replaced, the first prediction, from BOS alone, keeps its loss."""
    features, lengths = batch[0][:1], batch[1][:1]
    torch.manual_seed(3)
    one = loss(network, features, lengths, torch.tensor([[5]]), torch.tensor([1]), 0.0)
    same = loss(network, features, lengths, torch.tensor([[5]]), torch.tensor([1]), 0.0, noise=1.0)
    assert float(one.total) == float(same.total)  # there is no other token to choose

    clean = loss(network, *batch)
    noisy = loss(network, *batch, noise=0.9)
    assert float(clean.attention) != float(noisy.attention) and float(clean.ctc) == float(noisy.ctc)


def test_token_noise_on_empty_texts(network):
    nothing = torch.zeros(1, 0, dtype=torch.long)
    found = loss(network, torch.randn(1, 40, 8), torch.tensor([40]), nothing, torch.tensor([0]), noise=0.5)
    assert torch.isfinite(found.total)


def test_a_blank_is_needed_between_equal_tokens(network):
    """16 frames give 4 encoder states: enough for four tokens, but not for three with two repetitions."""
    features, lengths = torch.randn(3, 16, 8), torch.tensor([16, 16, 16])
    tokens = torch.tensor([[4, 5, 4, 5], [4, 4, 4, 0], [4, 4, 5, 5]])
    found = loss(network, features, lengths, tokens, torch.tensor([4, 3, 2]))
    assert network.encode(features, lengths).lengths.tolist() == [4, 4, 4]
    assert found.unalignable.tolist() == [False, True, False]


def test_the_prompt_comes_first_and_is_never_predicted(network, batch):
    """A prompt of three tokens, and padding that has the id of EOS, as in Whisper's vocabulary."""
    features, lengths, tokens, token_lengths = batch
    special = SpecialTokens((7, 1, 3), EOS, pad=EOS, blank=0, suppressed=(), vocabulary_size=V)
    memory = network.encode(features, lengths)
    found = joint_loss(network, memory, tokens, token_lengths, special, ctc_weight=0.0)
    expected = 0.0
    for row in range(2):
        text = tokens[row, : token_lengths[row]].tolist()
        one = memory.select(torch.tensor([row]))
        log_probs = network.decode(torch.tensor([[7, 1, 3, *text]]), one).detach().log_softmax(-1)[0, 2:]
        expected -= sum(float(log_probs[i, token]) for i, token in enumerate([*text, EOS]))
    assert float(found.total) == pytest.approx(expected, rel=1e-5)
