"""Encoder and decoder layers equal those of torch.nn with copied weights, and whole stacks too."""

import math

import pytest
import torch
from torch import nn

from asr.masks import length_mask
from asr.model.decoders.transformer import DecoderBlock, TransformerDecoder
from asr.model.encoders.transformer import EncoderBlock, TransformerEncoder
from asr.model.interfaces import Memory

D, HEADS, FFN = 16, 4, 40
NORMS = pytest.mark.parametrize("norm", ["pre", "post"])
ACTIVATIONS = pytest.mark.parametrize("activation", ["relu", "gelu"])


SIZES = dict(d_model=D, n_heads=HEADS, d_ffn=FFN, n_layers=2, dropout=0.0)


def encoder_config(**settings: str) -> TransformerEncoder.Config:
    return TransformerEncoder.Config(**SIZES, **settings)


def decoder_config(**settings: str) -> TransformerDecoder.Config:
    return TransformerDecoder.Config(**SIZES, **settings)


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights for which every term matters, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            parameter.data += 0.5
    return module.eval()


def copy_attention(ours: nn.Module, theirs: nn.MultiheadAttention) -> None:
    theirs.in_proj_weight.data = torch.cat([ours.query.weight, ours.key_value.weight]).detach()
    theirs.in_proj_bias.data = torch.cat([ours.query.bias, ours.key_value.bias]).detach()
    theirs.out_proj.load_state_dict(ours.out.state_dict())


def copy_feed_forward(ours: nn.Sequential, theirs: nn.Module) -> None:
    theirs.linear1.load_state_dict(ours[0].state_dict())
    theirs.linear2.load_state_dict(ours[-1].state_dict())


def torch_encoder_layer(block: EncoderBlock, norm: str, activation: str) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        D, HEADS, FFN, dropout=0.0, activation=activation, batch_first=True, norm_first=norm == "pre"
    ).eval()
    copy_attention(block.attention, layer.self_attn)
    copy_feed_forward(block.feed_forward, layer)
    layer.norm1.load_state_dict(block.attention_residual.norm.state_dict())
    layer.norm2.load_state_dict(block.feed_forward_residual.norm.state_dict())
    return layer


def torch_decoder_layer(block: DecoderBlock, norm: str, activation: str) -> nn.TransformerDecoderLayer:
    layer = nn.TransformerDecoderLayer(
        D, HEADS, FFN, dropout=0.0, activation=activation, batch_first=True, norm_first=norm == "pre"
    ).eval()
    copy_attention(block.self_attention, layer.self_attn)
    copy_attention(block.cross_attention, layer.multihead_attn)
    copy_feed_forward(block.feed_forward, layer)
    layer.norm1.load_state_dict(block.self_attention_residual.norm.state_dict())
    layer.norm2.load_state_dict(block.cross_attention_residual.norm.state_dict())
    layer.norm3.load_state_dict(block.feed_forward_residual.norm.state_dict())
    return layer


def sinusoids(size: int) -> torch.Tensor:
    """The formula of Vaswani et al. 2017, section 3.5, number by number."""
    table = torch.zeros(size, D)
    for position in range(size):
        for i in range(0, D, 2):
            angle = position / 10000 ** (i / D)
            table[position, i], table[position, i + 1] = math.sin(angle), math.cos(angle)
    return table


@torch.no_grad()
@NORMS
@ACTIVATIONS
def test_the_encoder_is_positions_and_torch_layers(norm, activation):
    encoder = randomize(TransformerEncoder(encoder_config(norm=norm, activation=activation)))
    x, lengths = torch.randn(3, 9, D), torch.tensor([9, 4, 1])
    mask = length_mask(lengths, 9)
    expected = x + sinusoids(9)
    for block in encoder.blocks:
        expected = torch_encoder_layer(block, norm, activation)(expected, src_key_padding_mask=~mask)
    if norm == "pre":
        expected = nn.functional.layer_norm(expected, (D,), encoder.norm.weight, encoder.norm.bias)
    found = encoder(x, lengths)
    assert torch.equal(found.lengths, lengths)
    torch.testing.assert_close(found.states[mask], expected[mask], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@NORMS
@ACTIVATIONS
def test_the_decoder_is_scaled_embeddings_positions_and_torch_layers(norm, activation):
    decoder = randomize(TransformerDecoder(decoder_config(norm=norm, activation=activation), 11))
    tokens = torch.randint(11, (2, 7))
    memory = Memory(torch.randn(2, 5, D), torch.tensor([5, 3]))
    padding = ~length_mask(memory.lengths, 5)
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1)
    expected = decoder.embed.weight[tokens] * math.sqrt(D) + sinusoids(7)
    for block in decoder.blocks:
        layer = torch_decoder_layer(block, norm, activation)
        expected = layer(expected, memory.states, tgt_mask=causal, memory_key_padding_mask=padding)
    if norm == "pre":
        expected = nn.functional.layer_norm(expected, (D,), decoder.norm.weight, decoder.norm.bias)
    expected = nn.functional.linear(expected, decoder.out.weight, decoder.out.bias)
    torch.testing.assert_close(decoder(tokens, memory), expected, rtol=1e-5, atol=2e-5)


@torch.no_grad()
@NORMS
def test_a_language_model_is_torch_encoder_layers_with_a_causal_mask(norm):
    decoder = randomize(TransformerDecoder(decoder_config(norm=norm), 11, cross_attention=False))
    tokens = torch.randint(11, (2, 7))
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1)
    expected = decoder.embed.weight[tokens] * math.sqrt(D) + sinusoids(7)
    for block in decoder.blocks:
        layer = nn.TransformerEncoderLayer(
            D, HEADS, FFN, dropout=0.0, batch_first=True, norm_first=norm == "pre"
        ).eval()
        copy_attention(block.self_attention, layer.self_attn)
        copy_feed_forward(block.feed_forward, layer)
        layer.norm1.load_state_dict(block.self_attention_residual.norm.state_dict())
        layer.norm2.load_state_dict(block.feed_forward_residual.norm.state_dict())
        expected = layer(expected, src_mask=causal)
    if norm == "pre":
        expected = nn.functional.layer_norm(expected, (D,), decoder.norm.weight, decoder.norm.bias)
    expected = nn.functional.linear(expected, decoder.out.weight, decoder.out.bias)
    torch.testing.assert_close(decoder(tokens, None), expected, rtol=1e-5, atol=2e-5)
