"""Dropout, residual connections and positions."""

import math

import numpy as np
import pytest
import torch

from asr.model.blocks import BlockSection, Dropout, Residual, SinusoidalPositions, final_norm

# ------------------------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_the_rate_and_the_scale_of_dropout(p):
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
def test_any_shape_and_layout(shape):
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


def test_gradients_flow_through_what_was_kept():
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


def test_where_the_norm_is():
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


# ----------------------------------------------------------------------------------------------- positions


def formula(position, d_model):
    """Section 3.5 of the paper, as it stands there."""
    row = np.zeros(d_model)
    for i in range(d_model // 2):
        angle = position / 10000 ** (2 * i / d_model)
        row[2 * i], row[2 * i + 1] = math.sin(angle), math.cos(angle)
    return row


def test_positions_equal_the_paper_s_formula():
    positions = SinusoidalPositions(16, dropout=0.0)
    expected = np.stack([formula(p, 16) for p in range(300)])
    np.testing.assert_allclose(positions(torch.zeros(1, 300, 16))[0], expected, atol=1e-4)
    np.testing.assert_allclose(positions(torch.zeros(1, 5, 16), offset=200)[0], expected[200:205], atol=1e-4)


def test_positions_have_no_upper_limit():
    small, large = SinusoidalPositions(8, 0.0, size=3), SinusoidalPositions(8, 0.0, size=5000)
    x = torch.randn(2, 50, 8)
    assert torch.equal(small(x), large(x))
    assert torch.equal(small(x[:, :1], offset=4000), large(x[:, :1], offset=4000))
    assert torch.equal(small(x), large(x))
    assert not list(small.state_dict())  # the table follows from d_model, and its size may change


def test_a_table_that_grew_while_decoding_serves_training_afterwards():
    positions = SinusoidalPositions(8, 0.1, size=3)
    with torch.inference_mode():
        positions(torch.zeros(1, 10, 8))
    x = torch.randn(1, 10, 8, requires_grad=True)
    positions(x).sum().backward()
    assert x.grad is not None and x.grad.any()
