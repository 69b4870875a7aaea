"""Attention equals the formula of the paper, head by head."""

import math

import pytest
import torch

from asr.model.attention import MultiHeadAttention
from asr.model.blocks import BlockSection


def attention(d_model=12, n_heads=3, seed=0):
    torch.manual_seed(seed)
    layer = MultiHeadAttention(BlockSection(kind="test", d_model=d_model, n_heads=n_heads))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer.eval()


def naive(layer, x, source, allowed):
    """softmax(Q K^T / sqrt d) V for each head; `allowed` (B, T, S) is true for keys that are not masked."""
    d_model = x.size(-1)
    d_head = d_model // layer.n_heads
    weight_k, weight_v = layer.key_value.weight.split(d_model)
    bias_k, bias_v = layer.key_value.bias.split(d_model)
    heads = []
    for head in range(layer.n_heads):
        rows = slice(head * d_head, (head + 1) * d_head)
        q = x @ layer.query.weight[rows].T + layer.query.bias[rows]  # (B, T, d_head)
        k = source @ weight_k[rows].T + bias_k[rows]  # (B, S, d_head)
        v = source @ weight_v[rows].T + bias_v[rows]
        similarity = q @ k.transpose(1, 2) / math.sqrt(d_head)  # (B, T, S)
        weights = similarity.masked_fill(~allowed, -math.inf).softmax(-1)
        heads.append(weights @ v)
    return torch.cat(heads, dim=-1) @ layer.out.weight.T + layer.out.bias


@pytest.mark.parametrize(("d_model", "n_heads"), [(12, 1), (12, 3), (16, 8)])
def test_every_head_equals_the_formula(d_model, n_heads):
    layer = attention(d_model, n_heads)
    x, source = torch.randn(2, 5, d_model), torch.randn(2, 7, d_model)
    found = layer.attend(x, *layer.project(source))
    torch.testing.assert_close(found, naive(layer, x, source, torch.ones(2, 5, 7, dtype=torch.bool)))


def test_masked_keys_have_no_effect():
    layer = attention()
    x, lengths = torch.randn(3, 6, 12), torch.tensor([6, 4, 1])
    seen = torch.arange(6) < lengths.unsqueeze(1)  # (B, S)
    found = layer(x, seen[:, None, None, :])
    torch.testing.assert_close(found, naive(layer, x, x, seen.unsqueeze(1).expand(3, 6, 6)))

    changed = torch.where(seen.unsqueeze(2), x, 1e4)
    torch.testing.assert_close(layer(changed, seen[:, None, None, :])[seen], found[seen])


def test_causal_attention_sees_itself_and_what_came_before():
    layer = attention()
    x = torch.randn(2, 6, 12)
    found = layer(x, causal=True)
    past = torch.ones(6, 6, dtype=torch.bool).tril().expand(2, 6, 6)
    torch.testing.assert_close(found, naive(layer, x, x, past))
    for length in range(1, 7):
        torch.testing.assert_close(layer(x[:, :length], causal=True), found[:, :length])


def test_keys_and_values_projected_apart_equal_those_projected_together():
    layer = attention()
    x, source = torch.randn(2, 3, 12), torch.randn(2, 8, 12)
    keys, values = layer.project(source)
    assert keys.shape == values.shape == (2, 3, 8, 4)  # (B, n_heads, S, d_head)
    parts = [layer.project(source[:, i : i + 1]) for i in range(8)]
    one_by_one = (torch.cat([part[j] for part in parts], dim=2) for j in (0, 1))
    torch.testing.assert_close(layer.attend(x, *one_by_one), layer.attend(x, keys, values))


def test_dropout_of_attention_weights_is_for_training_only():
    torch.manual_seed(0)
    layer = MultiHeadAttention(BlockSection(kind="test", d_model=12, n_heads=3, attention_dropout=0.5))
    x = torch.randn(1, 6, 12)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_weights_equal_those_of_attend():
    """The fused kernel shows no weights: those of `weights`, applied to the values, give what it gives."""
    layer = attention(16, 4)
    x, source, lengths = torch.randn(3, 5, 16), torch.randn(3, 7, 16), torch.tensor([7, 4, 1])
    mask = (torch.arange(7) < lengths.unsqueeze(1))[:, None, None, :]
    keys, values = layer.project(source)
    for seen in (None, mask):
        weights = layer.weights(x, keys, seen)  # (3, 4, 5, 7)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 5))
        found = layer.out((weights @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(found, layer.attend(x, keys, values, seen))
    assert (weights.masked_select(~mask) == 0).all()
