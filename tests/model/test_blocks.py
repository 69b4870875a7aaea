"""Dropout, residual connections and feed-forward layers."""

import math

import pytest
import torch

from asr.model.blocks import BlockSection, Dropout, Residual, feed_forward, final_norm

# ------------------------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_dropout_has_its_rate_and_scale(p):
    torch.manual_seed(0)
    size = 200_003  # not a multiple of the eight bytes of one random number
    found = Dropout(p)(torch.ones(size))
    dropped = found == 0
    rate = round(p * 256) / 256
    assert abs(rate - p) < 1 / 256
    assert abs(float(dropped.float().mean()) - rate) < 5 * math.sqrt(rate * (1 - rate) / size)
    torch.testing.assert_close(found[~dropped], torch.full_like(found[~dropped], 1 / (1 - rate)))
    assert abs(float(found.mean()) - 1) < 5 * math.sqrt(rate / (1 - rate) / size)


def test_elements_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (Dropout(0.25)(torch.ones(1000, 400)) == 0).float()
    for lag in (1, 2, 7, 8, 64, 400):
        pairs = dropped.flatten()[:-lag] * dropped.flatten()[lag:]
        assert abs(float(pairs.mean()) - 0.0625) < 0.0025
    assert not torch.equal(dropped[0], dropped[1])


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4, 1), (0, 4)])
def test_dropout_works_for_any_shape_and_layout(shape):
    x = torch.randn(shape) + 10
    found = Dropout(0.5)(x)
    assert found.shape == x.shape
    assert ((found == 0) | (found == 2 * x)).all()
    if x.dim() == 2:
        turned = Dropout(0.5)(x.T)
        assert ((turned == 0) | (turned == 2 * x.T)).all()


def test_dropout_in_evaluation_and_with_rate_0_changes_nothing():
    x = torch.randn(50, 50)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()


def test_gradients_flow_through_kept_elements():
    torch.manual_seed(0)
    x = torch.randn(1000, requires_grad=True)
    found = Dropout(0.25)(x)
    found.sum().backward()
    assert torch.equal(x.grad == 0, found == 0)
    torch.testing.assert_close(x.grad[found != 0], torch.full_like(x.grad[found != 0], 4 / 3))


def test_the_seed_decides_what_is_dropped():
    x = torch.ones(1000)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(Dropout(0.5)(x))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


# ------------------------------------------------------------------------------------------------ residual


def test_the_position_of_the_norm_follows_the_configuration():
    x = torch.randn(2, 3, 8) * 5 + 1

    def normed(y):
        return torch.nn.functional.layer_norm(y, (8,))

    pre = Residual(BlockSection(kind="test", d_model=8, n_heads=2, norm="pre")).eval()
    torch.testing.assert_close(pre(x, lambda y: 3 * y), x + 3 * normed(x))
    post = Residual(BlockSection(kind="test", d_model=8, n_heads=2, norm="post")).eval()
    torch.testing.assert_close(post(x, lambda y: 3 * y), normed(4 * x))

    torch.testing.assert_close(final_norm(BlockSection(kind="test", norm="pre", d_model=8))(x), normed(x))
    assert torch.equal(final_norm(BlockSection(kind="test", norm="post", d_model=8))(x), x)


def test_dropout_is_on_the_sublayer_only():
    x = torch.randn(1, 50, 8)
    pre, post = (
        Residual(BlockSection(kind="test", d_model=8, n_heads=2, dropout=1.0, norm=norm))
        for norm in ("pre", "post")
    )
    assert torch.equal(pre(x, lambda y: y + 1), x)
    torch.testing.assert_close(post(x, lambda y: y + 1), torch.nn.functional.layer_norm(x, (8,)))


# -------------------------------------------------------------------------------------------- feed-forward


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "swiglu"])
def test_the_feed_forward_layer_equals_its_formula(activation):
    layer = feed_forward(
        BlockSection(kind="test", d_model=8, n_heads=2, d_ffn=5, activation=activation)
    ).eval()
    x = torch.randn(2, 3, 8)
    hidden = x @ layer[0].weight.T + layer[0].bias
    if activation == "swiglu":  # W2 (SiLU(W x) * V x), Shazeer 2020
        hidden = hidden[..., :5] * torch.sigmoid(hidden[..., :5]) * hidden[..., 5:]
    else:
        hidden = {
            "relu": lambda h: h.clamp_min(0),
            "gelu": lambda h: h * 0.5 * (1 + torch.erf(h / math.sqrt(2))),
            "silu": lambda h: h * torch.sigmoid(h),
        }[activation](hidden)
    torch.testing.assert_close(layer(x), hidden @ layer[-1].weight.T + layer[-1].bias)
