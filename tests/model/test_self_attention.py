"""The weights of the encoder's self-attention are those of the forward pass, for every kind of encoder."""

import pytest
import torch

from asr.kinds import ENCODERS, POSITIONS
from asr.model.attention import MultiHeadAttention
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import ShowsSelfAttention

MELS, VOCABULARY = 12, 9
BLOCKS = {"n_heads": 2, "d_ffn": 24}
SIZES = {
    "conformer": BLOCKS | {"n_layers": 3, "half_rate_layers": 2},
    "transformer": BLOCKS | {"n_layers": 2},
}


def network(kind, **settings):
    torch.manual_seed(0)
    encoder = {"kind": kind} | SIZES.get(kind, {}) | settings
    config = {"d_model": 16, "front_end": {"channels": 3}, "encoder": encoder}
    model = EncoderDecoder(EncoderDecoder.Config.model_validate(config | {"decoder": None}), MELS, VOCABULARY)
    for parameter in model.parameters():
        parameter.data *= 1.5
    return model.eval()


def attentions(model):
    found = {
        name: each for name, each in model.encoder.named_modules() if isinstance(each, MultiHeadAttention)
    }
    return {name.removesuffix(".attention"): each for name, each in found.items()}


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, {}) for kind in ENCODERS),
        *(("transformer", {"positions": each}) for each in POSITIONS),
        ("transformer", {"window": 2, "positions": "relative"}),
    ],
)
def test_the_weights_reproduce_the_output_of_every_layer(kind, settings):
    model = network(kind, **settings)
    if not attentions(model):
        assert not isinstance(model, ShowsSelfAttention)
        return
    assert isinstance(model, ShowsSelfAttention)
    seen = {}
    for name, each in attentions(model).items():
        each.register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, (module, inputs[0], output))
        )
    lengths = torch.tensor([90, 41])
    features = torch.randn(2, 90, MELS)
    expected = model.encode(features, lengths)
    weights = model.self_attention(features, lengths)
    assert list(weights) == list(seen)  # in the order in which the layers work
    for name, found in weights.items():
        module, x, output = seen[name]
        values = module.project(x)[1]  # (B, n_heads, S', d_head)
        sums = module.out((found @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(sums, output, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:3]))
        rate = round(expected.states.size(1) / found.size(3))
        valid = -(-int(expected.lengths[1]) // rate)
        assert (found[1, :, :valid, valid:] == 0).all() and (found[1, :, :valid, :valid] > 0).any()
    assert torch.equal(model.encode(features, lengths).states, expected.states)  # nothing is left behind
    assert all(each.record is None for each in attentions(model).values())


@torch.no_grad()
def test_positions_are_part_of_the_weights():
    """Without its rotations the Conformer would attend otherwise."""
    model = network("conformer")
    features, lengths = torch.randn(1, 60, MELS), torch.tensor([60])
    rotated = model.self_attention(features, lengths)["blocks.0"]
    model.encoder.positions.inverse_frequency.zero_()
    assert not torch.allclose(rotated, model.self_attention(features, lengths)["blocks.0"], atol=1e-3)
