"""Relative positions against their formulas and other implementations, and local attention."""

import math

import pytest
import torch
from helpers import import_speechbrain

from asr.model import local_attention
from asr.model.attention import self_attention
from asr.model.blocks import EncoderSection
from asr.model.encoders.transformer import TransformerEncoder
from asr.model.positions.interface import build_positions
from asr.model.positions.relative import align

D, HEADS, D_HEAD = 16, 4, 4
KINDS = ["none", "rotary", "relative", {"kind": "shaw", "max_distance": 3}]


def layer_of(positions, window=None):
    """Self-attention with weights for which every term matters, and its positions."""
    config = EncoderSection(kind="test", d_model=D, n_heads=HEADS, positions=positions, window=window)
    torch.manual_seed(0)
    layer = self_attention(config).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer, build_positions(config)


def distance_key(layer, positions, distance):
    """The key of a distance i - j, for every head: (HEADS, D_HEAD)."""
    if positions == "relative":
        row = torch.zeros(D)
        for k in range(D // 2):
            angle = distance / 10000 ** (2 * k / D)
            row[2 * k], row[2 * k + 1] = math.sin(angle), math.cos(angle)
        return (layer.distance.weight @ row).view(HEADS, D_HEAD)
    return layer.table[max(-3, min(3, distance)) + 3].expand(HEADS, D_HEAD)


@torch.no_grad()
@pytest.mark.parametrize("positions", KINDS[2:], ids=["relative", "shaw"])
def test_scores_equal_the_formula_of_the_paper(positions):
    """Number by number: ((q + u) k + (q + v) r) / sqrt(d), where Shaw has neither u nor v."""
    layer, table = layer_of(positions)
    x = torch.randn(2, 6, D)
    queries = layer.query(x).view(2, 6, HEADS, D_HEAD)
    keys, values = (each.view(2, 6, HEADS, D_HEAD) for each in layer.key_value(x).chunk(2, dim=2))
    u, v = getattr(layer, "content_bias", torch.zeros(1)), getattr(layer, "distance_bias", torch.zeros(1))
    scores = torch.zeros(2, HEADS, 6, 6)
    for i in range(6):
        for j in range(6):
            with_key = ((queries[:, i] + u) * keys[:, j]).sum(-1)
            with_distance = ((queries[:, i] + v) * distance_key(layer, positions, i - j)).sum(-1)
            scores[:, :, i, j] = (with_key + with_distance) / math.sqrt(D_HEAD)
    expected = layer.out(torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), values).flatten(2))
    torch.testing.assert_close(layer(x, relation=table.relation_of(x)), expected, rtol=1e-5, atol=1e-5)


def test_align_moves_every_row():
    rows, size = 3, 5
    by_distance = torch.arange(rows * (rows + size - 1)).view(1, 1, rows, -1)
    found = align(by_distance, size)[0, 0]
    for i in range(rows):
        assert found[i].tolist() == by_distance[0, 0, i, rows - 1 - i :][:size].tolist()


@torch.no_grad()
def test_relative_positions_equal_speechbrain():
    attention = import_speechbrain("speechbrain.nnet.attention")
    layer, positions = layer_of("relative")
    theirs = attention.RelPosMHAXL(D, HEADS).eval()
    theirs.scale = 1 / math.sqrt(D_HEAD)  # theirs is that of one head alone
    for bias in (layer.query.bias, layer.key_value.bias):
        bias.zero_()  # theirs has none
    keys, values = layer.key_value.weight.chunk(2)
    heads = [w.view(HEADS, D_HEAD, D) for w in (layer.query.weight, keys, values)]
    theirs.in_proj_weight.data = torch.cat(heads, dim=1).flatten(0, 1)  # q, k, v of each head together
    theirs.out_proj.load_state_dict(layer.out.state_dict())
    theirs.linear_pos.load_state_dict(layer.distance.state_dict())
    theirs.pos_bias_u.data = layer.content_bias.reshape(D_HEAD, HEADS)  # reshaped back when it is used
    theirs.pos_bias_v.data = layer.distance_bias.reshape(D_HEAD, HEADS)
    x, valid = torch.randn(2, 7, D), torch.arange(7) < torch.tensor([[7], [4]])
    relation = positions.relation_of(x)
    past = attention.RelPosEncXL(D)(x)[0, :7]  # the sinusoids of distances ahead have another sign there
    torch.testing.assert_close(relation[0][:7], past, rtol=1e-5, atol=1e-5)
    expected, _ = theirs(x, x, x, relation[0].unsqueeze(0), key_padding_mask=~valid)
    found = layer(x, valid[:, None, None], relation=relation)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def copy_to_wav2vec2(layer, theirs):
    keys, values = layer.key_value.weight.chunk(2)
    key_bias, value_bias = layer.key_value.bias.chunk(2)
    theirs.linear_q.load_state_dict(layer.query.state_dict())
    theirs.linear_k.load_state_dict({"weight": keys, "bias": key_bias})
    theirs.linear_v.load_state_dict({"weight": values, "bias": value_bias})
    theirs.linear_out.load_state_dict(layer.out.state_dict())


@torch.no_grad()
def test_relative_positions_equal_the_conformer_of_wav2vec2():
    transformers = pytest.importorskip("transformers")
    modeling = transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer
    config = transformers.Wav2Vec2ConformerConfig(
        hidden_size=D, num_attention_heads=HEADS, position_embeddings_type="relative"
    )
    config._attn_implementation = "eager"
    theirs = modeling.Wav2Vec2ConformerSelfAttention(config).eval()
    layer, positions = layer_of("relative")
    copy_to_wav2vec2(layer, theirs)
    theirs.linear_pos.load_state_dict(layer.distance.state_dict())
    theirs.pos_bias_u.data, theirs.pos_bias_v.data = layer.content_bias.data, layer.distance_bias.data
    x = torch.randn(2, 7, D)
    table = modeling.Wav2Vec2ConformerRelPositionalEmbedding(config)(x)
    expected = theirs(x, relative_position_embeddings=table)[0]
    found = layer(x, relation=positions.relation_of(x))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_shaw_positions_equal_wav2vec2_bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2BertConfig(
        hidden_size=D,
        num_attention_heads=HEADS,
        position_embeddings_type="relative_key",
        left_max_position_embeddings=3,
        right_max_position_embeddings=3,
    )
    config._attn_implementation = "eager"
    theirs = transformers.models.wav2vec2_bert.modeling_wav2vec2_bert.Wav2Vec2BertSelfAttention(config).eval()
    layer, positions = layer_of({"kind": "shaw", "max_distance": 3})
    copy_to_wav2vec2(layer, theirs)
    theirs.distance_embedding.weight.data = layer.table.flip(0)  # theirs counts from the query to the key
    x = torch.randn(2, 9, D)
    found = layer(x, relation=positions.relation_of(x))
    torch.testing.assert_close(found, theirs(x)[0], rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------------------------------- local attention


@torch.no_grad()
@pytest.mark.parametrize("positions", KINDS, ids=["none", "rotary", "relative", "shaw"])
@pytest.mark.parametrize("window", [1, 4])
def test_local_attention_is_attention_with_a_mask(positions, window, monkeypatch):
    """In blocks and at once, for sequences that fill their last block and others."""
    local, table = layer_of(positions, window)
    full, _ = layer_of(positions)
    monkeypatch.setattr(local_attention, "MIN_BLOCK", 3)
    for size in (1, 9, 12, 20, 23):
        lengths = torch.tensor([size, (size + 1) // 2, 1])
        x, valid = torch.randn(3, size, D), torch.arange(size) < lengths.unsqueeze(1)
        place = torch.arange(size)
        near = (place.unsqueeze(1) - place).abs() <= window
        allowed = (near & valid.unsqueeze(1)).unsqueeze(1) | torch.eye(size, dtype=torch.bool)
        relation = table.relation_of(x)
        expected = full(x, allowed, relation=relation)
        found = local(x, valid[:, None, None], relation=relation)
        torch.testing.assert_close(found[valid], expected[valid], rtol=1e-5, atol=1e-5)
        assert found.isfinite().all()
        with torch.autocast("cpu", torch.bfloat16):  # states without a valid state near them, too
            rough = local(x, valid[:, None, None], relation=relation)
        assert rough.isfinite().all()
        torch.testing.assert_close(rough[valid].float(), expected[valid], rtol=0.1, atol=0.2)


@torch.no_grad()
@pytest.mark.parametrize("positions", KINDS, ids=["none", "rotary", "relative", "shaw"])
def test_a_state_outside_the_window_changes_nothing(positions):
    """Two blocks with a window of 3 reach 6 states: over 200 states, far more than one block of queries."""
    config = TransformerEncoder.Config(
        d_model=D, n_heads=HEADS, d_ffn=24, n_layers=2, positions=positions, window=3
    )
    torch.manual_seed(0)
    encoder, x = TransformerEncoder(config).eval(), torch.randn(1, 200, D)
    expected = encoder(x, torch.tensor([200])).states
    for changed in (0, 31, 32, 100, 199):
        other = x.clone()
        other[0, changed] = 1e3 * torch.randn(D)
        found = encoder(other, torch.tensor([200])).states
        outside = (torch.arange(200) - changed).abs() > 6
        assert torch.equal(found[0, outside], expected[0, outside])
        inside = ~outside
        assert ((found[0, inside] - expected[0, inside]).abs().amax(1) > 1e-4).all()


def test_gradients_of_local_attention_are_those_of_a_mask(monkeypatch):
    monkeypatch.setattr(local_attention, "MIN_BLOCK", 3)
    (local, table), (full, _) = layer_of("relative", 2), layer_of("relative")
    x, place = torch.randn(2, 17, D, requires_grad=True), torch.arange(17)
    near = ((place.unsqueeze(1) - place).abs() <= 2)[None, None]
    weights = torch.randn(2, 17, D)
    gradients = []
    for layer, mask in ((local, torch.ones(2, 1, 1, 17, dtype=torch.bool)), (full, near)):
        loss = (layer(x, mask, relation=table.relation_of(x)) * weights).sum()
        gradients.append(torch.autograd.grad(loss, (x, *layer.parameters())))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
