"""The joint loss against its definition."""

from __future__ import annotations

import pytest
import torch
from helpers import sections

from asr.config import TrainConfig
from asr.model.encoder_decoder import EncoderDecoder
from asr.tokenizers import BOS, EOS
from asr.training.losses import joint_loss

V = 9


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
    found = joint_loss(network, *batch, TrainConfig(ctc_weight=0.0, label_smoothing=0.1))
    memory = network.encode(features, lengths)
    expected = 0.0
    for row in range(2):
        text = tokens[row, : token_lengths[row]].tolist()
        given = torch.tensor([[BOS, *text]])
        log_probs = network.decode(given, memory.select(torch.tensor([row]))).detach().log_softmax(-1)[0]
        for position, wanted in enumerate([*text, EOS]):
            expected += -(0.9 * log_probs[position, wanted] + 0.1 * log_probs[position].mean())
    assert float(found.total) == pytest.approx(float(expected), rel=1e-5)
    assert float(found.ctc) == 0


def test_ctc_loss_sums_over_all_alignments(network):
    """Three encoder states, one token: of the 2^3 paths of blank and token, those that collapse to it."""
    torch.manual_seed(2)
    features, lengths = torch.randn(1, 12, 8), torch.tensor([12])
    found = joint_loss(
        network, features, lengths, torch.tensor([[5]]), torch.tensor([1]), TrainConfig(ctc_weight=1.0)
    )
    probabilities = network.ctc(network.encode(features, lengths))[0].exp()  # (3, V)
    paths = [(5, 0, 0), (0, 5, 0), (0, 0, 5), (5, 5, 0), (0, 5, 5), (5, 5, 5)]
    total = sum(probabilities[0, a] * probabilities[1, b] * probabilities[2, c] for a, b, c in paths)
    assert float(found.total) == pytest.approx(-float(total.log()), rel=1e-4)


def test_total_weighs_the_two(network, batch):
    found = joint_loss(network, *batch, TrainConfig(ctc_weight=0.3))
    assert float(found.total) == pytest.approx(
        0.7 * float(found.attention) + 0.3 * float(found.ctc), rel=1e-5
    )


def test_text_longer_than_its_frames_gives_a_finite_loss_and_gradient(network):
    features, lengths = torch.randn(1, 8, 8), torch.tensor([8])  # 2 encoder states
    tokens = torch.tensor([[4, 4, 5, 6, 7]])
    found = joint_loss(network, features, lengths, tokens, torch.tensor([5]), TrainConfig(ctc_weight=0.3))
    found.total.backward()
    assert torch.isfinite(found.total) and float(found.ctc) == 0
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_sum_over_rows_equals_the_batch(network, batch):
    """What makes accumulation equal the larger batch: losses are sums, divided by the tokens of the group."""
    features, lengths, tokens, token_lengths = batch
    whole = joint_loss(network, *batch, TrainConfig())
    parts = [
        joint_loss(
            network,
            features[i : i + 1],
            lengths[i : i + 1],
            tokens[i : i + 1],
            token_lengths[i : i + 1],
            TrainConfig(),
        )
        for i in range(2)
    ]
    assert float(sum(p.total for p in parts)) == pytest.approx(float(whole.total), rel=1e-5)


def test_token_noise_changes_what_is_given_and_never_what_is_wanted(network, batch):
    """With all given tokens drawn anew the first prediction, from BOS alone, keeps its loss."""
    features, lengths = batch[0][:1], batch[1][:1]
    torch.manual_seed(3)
    one = joint_loss(
        network, features, lengths, torch.tensor([[5]]), torch.tensor([1]), TrainConfig(ctc_weight=0.0)
    )
    same = joint_loss(
        network, features, lengths, torch.tensor([[5]]), torch.tensor([1]), TrainConfig(ctc_weight=0.0), 1.0
    )
    assert float(one.total) == float(same.total)  # the only other token there is, is the token itself

    clean = joint_loss(network, *batch, TrainConfig())
    noisy = joint_loss(network, *batch, TrainConfig(), 0.9)
    assert float(clean.attention) != float(noisy.attention) and float(clean.ctc) == float(noisy.ctc)


def test_token_noise_on_silence_alone(network):
    nothing = torch.zeros(1, 0, dtype=torch.long)
    found = joint_loss(
        network, torch.randn(1, 40, 8), torch.tensor([40]), nothing, torch.tensor([0]), TrainConfig(), 0.5
    )
    assert torch.isfinite(found.total)
