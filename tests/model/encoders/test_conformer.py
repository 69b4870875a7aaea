"""The Conformer encoder: padding, rotary positions, the phoneme head, and torchaudio's modules."""

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from asr.model.encoders.conformer import PHONEMES, ConformerBlock, ConformerEncoder
from asr.model.positions.interface import build_positions

D = 16


def config(**settings) -> ConformerEncoder.Config:
    sizes = dict(d_model=D, n_heads=2, d_ffn=24, dropout=0.0, conv_kernel=5, n_layers=3, half_rate_layers=3)
    return ConformerEncoder.Config(**sizes | dict(phonemes=7, phonemes_after=2) | settings)


def encoder(seed: int = 0, **settings) -> ConformerEncoder:
    torch.manual_seed(seed)
    model = ConformerEncoder(config(**settings)).eval()
    for parameter in model.parameters():
        parameter.data = (
            parameter * 1.5 if parameter.dim() > 1 else parameter + 0.2 * torch.randn_like(parameter)
        )
    return model


@torch.no_grad()
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 15), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from([(3, 3, 7), (2, 0, 0), (4, 1, 0)]),
)
def test_padding_changes_nothing(lengths, padding, sizes):
    layers, half, phonemes = sizes
    model = encoder(n_layers=layers, half_rate_layers=half, phonemes=phonemes, phonemes_after=max(1, half))
    x = torch.randn(len(lengths), max(lengths) + padding, D)  # after a row's end there is anything
    together = model(x, torch.tensor(lengths))
    assert together.states.shape == x.shape
    for row, length in enumerate(lengths):
        alone = model(x[row : row + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(together.states[row, :length], alone.states[0], rtol=1e-4, atol=1e-5)
        assert (PHONEMES in alone.intermediate) == bool(phonemes)
        if phonemes:
            logits, frames = together.intermediate[PHONEMES]
            assert frames.tolist() == lengths and logits.shape == (*x.shape[:2], phonemes)
            single = alone.intermediate[PHONEMES][0][0]
            torch.testing.assert_close(logits[row, :length], single, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_every_part_matters():
    """The output depends on the skip connection, the half-rate blocks, and the phoneme probabilities."""
    x, lengths = torch.randn(1, 10, D), torch.tensor([10])
    model = encoder()
    expected = model(x, lengths).states
    for name in (
        "half_rate.from_pairs",
        "half_rate.to_pairs",
        "half_rate.phoneme_condition",
        "half_rate.phoneme_head",
    ):
        part = model.get_submodule(name)
        kept = part.weight.clone()
        part.weight.zero_()
        assert not torch.allclose(model(x, lengths).states, expected, atol=1e-3), name
        part.weight.copy_(kept)
    model.half_rate.from_pairs.weight.zero_()
    model.half_rate.from_pairs.bias.zero_()  # only the skip connection is left
    other = model(x + torch.randn_like(x), lengths).states
    assert not torch.allclose(other, model(x, lengths).states, atol=1e-3)


@torch.no_grad()
def test_states_are_not_interchangeable():
    """Without positions self-attention alone would be the same for any order of the states."""
    block = ConformerBlock(config(conv_kernel=1))
    x, mask = torch.randn(1, 6, D), torch.ones(1, 6, dtype=torch.bool)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    angles = build_positions(config()).relation_of(x)
    torch.testing.assert_close(block(x[:, order], mask, None), block(x, mask, None)[:, order])
    assert not torch.allclose(block(x[:, order], mask, angles), block(x, mask, angles)[:, order], atol=1e-3)


@torch.no_grad()
def test_the_feed_forward_half_steps_equal_torchaudio():
    """torchaudio.models.Conformer's layer, from its public parts: x + 0.5 * ffn1(x), and so on."""
    block = ConformerBlock(config()).eval()
    layer = torchaudio.models.Conformer(D, 2, 24, 1, 5).conformer_layers[0].eval()
    theirs = layer.ffn1.sequential
    norm, first, _, _, second, _ = theirs
    norm.load_state_dict(block.first_feed_forward_residual.norm.state_dict())
    first.load_state_dict(block.first_feed_forward[0].state_dict())
    second.load_state_dict(block.first_feed_forward[-1].state_dict())
    x = torch.randn(2, 5, D)
    found = block.first_feed_forward_residual(x, lambda y: 0.5 * block.first_feed_forward(y))
    torch.testing.assert_close(found, x + 0.5 * layer.ffn1(x))


@torch.no_grad()
def test_the_convolution_module_equals_torchaudio_but_for_the_norm():
    """Our norm is over channels and theirs over the batch, so both norms are switched off."""
    block = ConformerBlock(config()).eval()
    theirs = torchaudio.models.Conformer(D, 2, 24, 1, 5).conformer_layers[0].conv_module.eval()
    ours = block.convolution
    ours.norm = nn.Identity()
    gate, _, depthwise, norm, _, out, _ = theirs.sequential
    norm.running_mean.zero_(), norm.running_var.fill_(1.0 - norm.eps)
    gate.weight.data, gate.bias = ours.gate.weight.data.unsqueeze(2), ours.gate.bias
    depthwise.weight.data, depthwise.bias = ours.depthwise.weight.data.squeeze(3), ours.depthwise.bias
    out.weight.data, out.bias = ours.out.weight.data.unsqueeze(2), ours.out.bias
    theirs.layer_norm = nn.Identity()
    x = torch.randn(2, 9, D)
    found = ours(x, torch.ones(2, 9, dtype=torch.bool))
    torch.testing.assert_close(found, theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"conv_kernel": 4}, "4 is even"), ({"phonemes_after": 4}, "more than half_rate_layers 3")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        config(**settings)
