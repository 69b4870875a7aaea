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
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 15), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from(
        [
            dict(n_layers=3, half_rate_layers=3, phonemes=7, phonemes_after=3),
            dict(n_layers=2, half_rate_layers=0, phonemes=0, positions="relative", window=2),
            dict(n_layers=4, half_rate_layers=2, quarter_rate_layers=1, phonemes=0, positions="relative"),
            dict(n_layers=2, half_rate_layers=1, phonemes=0, positions="shaw", activation="swiglu"),
        ]
    ),
)
def test_padding_changes_nothing(lengths, padding, sizes):
    phonemes = sizes["phonemes"]
    model = encoder(**sizes)
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


def copy_block(block: ConformerBlock, layer: nn.Module) -> None:
    """Weights of a block into a layer of torchaudio. The norm in the convolution is switched off in both."""
    for ours, residual, theirs in (
        (block.first_feed_forward, block.first_feed_forward_residual, layer.ffn1.sequential),
        (block.second_feed_forward, block.second_feed_forward_residual, layer.ffn2.sequential),
    ):
        theirs[0].load_state_dict(residual.norm.state_dict())
        theirs[1].load_state_dict(ours[0].state_dict())
        theirs[4].load_state_dict(ours[-1].state_dict())
    attention = block.attention
    layer.self_attn_layer_norm.load_state_dict(block.attention_residual.norm.state_dict())
    layer.self_attn.in_proj_weight.data = torch.cat([attention.query.weight, attention.key_value.weight])
    layer.self_attn.in_proj_bias.data = torch.cat([attention.query.bias, attention.key_value.bias])
    layer.self_attn.out_proj.load_state_dict(attention.out.state_dict())
    ours, convolution = block.convolution, layer.conv_module
    ours.norm = nn.Identity()
    convolution.layer_norm.load_state_dict(block.convolution_residual.norm.state_dict())
    gate, _, depthwise, norm, _, out, _ = convolution.sequential
    norm.running_mean.zero_(), norm.running_var.fill_(1.0 - norm.eps)
    gate.weight.data, gate.bias = ours.gate.weight.data.unsqueeze(2), ours.gate.bias
    depthwise.weight.data, depthwise.bias = ours.depthwise.weight.data.squeeze(3), ours.depthwise.bias
    out.weight.data, out.bias = ours.out.weight.data.unsqueeze(2), ours.out.bias
    layer.final_layer_norm.load_state_dict(block.norm.state_dict())


@torch.no_grad()
def test_an_encoder_without_positions_equals_torchaudio():
    """torchaudio.models.Conformer has no positions, and does not mask the convolution: rows of one length."""
    model = encoder(n_layers=3, half_rate_layers=0, phonemes=0, positions="none")
    theirs = torchaudio.models.Conformer(D, 2, 24, 3, 5).eval()
    for block, layer in zip(model.blocks, theirs.conformer_layers, strict=True):
        copy_block(block, layer)
    x, lengths = torch.randn(2, 9, D), torch.tensor([9, 9])
    torch.testing.assert_close(model(x, lengths).states, theirs(x, lengths)[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_quarter_rate_blocks_are_inside_those_at_half_rate():
    model = encoder(half_rate_layers=3, quarter_rate_layers=2, phonemes=0)
    assert len(model.half_rate.inner.blocks) == 2 and model.half_rate.inner.inner is None
    sizes = []
    for blocks in (model.blocks, model.half_rate.blocks, model.half_rate.inner.blocks, model.last_blocks):
        blocks[0].register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].size(1)))
    x, lengths = torch.randn(1, 11, D), torch.tensor([11])
    expected = model(x, lengths).states
    assert sizes == [11, 6, 3, 11]
    model.half_rate.inner.from_pairs.weight.mul_(0.5)
    assert not torch.allclose(model(x, lengths).states, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"half_rate_layers": 0, "quarter_rate_layers": 1, "phonemes": 0}, "needs half_rate_layers"),
        ({"conv_kernel": 4}, "4 is even"),
        ({"phonemes_after": 4}, "more than half_rate_layers 3"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        config(**settings)
