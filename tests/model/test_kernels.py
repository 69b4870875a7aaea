import pytest
import torch
from torch.nn.functional import conv2d, scaled_dot_product_attention

from asr.model.blocks import Dropout
from asr.model.front_ends.convolution import ConvolutionFrontEnd
from asr.model.kernels import Linear, attention, linear


@pytest.mark.parametrize(("d_in", "d_out"), [(24, 40), (40, 24), (16, 5), (16, 9000)])
@pytest.mark.parametrize("rows", [0, 1, 63, 300])  # oneDNN takes over between 63 and 300; 9,000 outputs: at 1
def test_a_linear_layer_and_its_gradients_are_torchs(rows: int, d_in: int, d_out: int) -> None:
    torch.manual_seed(0)
    layer = Linear(d_in, d_out)
    x = torch.randn(3, rows, d_in, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)
    direction = torch.randn(3, rows, d_out)
    expected = torch.nn.functional.linear(*inputs)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    for found, targets in zip(
        torch.autograd.grad(layer(x), inputs, direction),
        torch.autograd.grad(expected, inputs, direction),
        strict=True,
    ):
        torch.testing.assert_close(found, targets, rtol=1e-4, atol=1e-3)


def test_a_frozen_weight_gets_no_gradient_and_those_below_it_do() -> None:
    x, layer = torch.randn(300, 8, requires_grad=True), Linear(8, 8)
    layer.weight.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None and x.grad is not None and x.grad.abs().sum() > 0


def test_the_output_of_a_linear_layer_can_be_changed_in_place() -> None:
    layer, x = Linear(8, 8), torch.randn(2, 300, 8)
    changed = layer(x).relu_()
    changed.sum().backward()
    torch.testing.assert_close(layer.bias.grad, (changed > 0).float().sum((0, 1)), rtol=1e-4, atol=1e-3)


def test_a_linear_layer_without_bias() -> None:
    x, weight = torch.randn(300, 8), torch.randn(4, 8)
    torch.testing.assert_close(linear(x, weight, None), x @ weight.t(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "masked", "causal"])
def test_attention_in_bfloat16_equals_float32_up_to_rounding(kind: str) -> None:
    torch.manual_seed(0)
    rows, columns = (9, 9) if kind == "causal" else (5, 9)
    q, k, v = (torch.randn(3, 2, n, 8) for n in (rows, columns, columns))
    q, k, v = (each.bfloat16().requires_grad_() for each in (q, k, v))
    mask = None
    if kind == "masked":
        mask = (torch.arange(columns) < torch.tensor([9, 4, 1])[:, None])[:, None, None]
    found = attention(q, k, v, mask, kind == "causal", 0.0)
    expected = scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, is_causal=kind == "causal")
    torch.testing.assert_close(found.float(), expected, rtol=0.03, atol=0.03)
    direction = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(found, (q, k, v), direction.bfloat16()),
        torch.autograd.grad(expected, (q, k, v), direction),
        strict=True,
    ):
        torch.testing.assert_close(one.float(), other.float(), rtol=0.05, atol=0.05)


def test_a_bias_of_scores_in_bfloat16_is_added() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, n, 8).bfloat16() for n in (5, 9, 9))
    bias = torch.randn(3, 2, 5, 9).masked_fill(torch.arange(9) > 6, -torch.inf).bfloat16()
    expected = scaled_dot_product_attention(q.float(), k.float(), v.float(), bias.float())
    torch.testing.assert_close(attention(q, k, v, bias, False, 0.0).float(), expected, rtol=0.03, atol=0.03)


def test_masked_keys_have_no_effect_in_bfloat16() -> None:
    q, k, v = (torch.randn(1, 2, 6, 8).bfloat16() for _ in range(3))
    mask = (torch.arange(6) < 4)[None, None, None]
    short = attention(q, k[:, :, :4], v[:, :, :4], None, False, 0.0)
    k[:, :, 4:], v[:, :, 4:] = 1e4, 1e4
    torch.testing.assert_close(attention(q, k, v, mask, False, 0.0), short, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("frames", [1, 2, 17, 40])
def test_the_first_convolution_as_a_product_is_a_convolution(frames: int) -> None:
    torch.manual_seed(0)
    front_end, features = (
        ConvolutionFrontEnd(ConvolutionFrontEnd.Config(channels=6, d_model=8), 10),
        torch.randn(3, frames, 10),
    )
    first = front_end.convolutions[0]
    expected = conv2d(features.unsqueeze(1), first.weight, first.bias, stride=2, padding=1)
    with torch.no_grad():
        torch.testing.assert_close(front_end._first(features), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(front_end._first(features).float(), expected, rtol=0.03, atol=0.03)
    lengths = torch.tensor([frames, max(1, frames - 1), max(1, frames // 2)])
    with torch.no_grad():
        evaluated = front_end(features, lengths)[0]
    torch.testing.assert_close(evaluated, front_end(features, lengths)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_its_dtype_and_its_gradient_is_its_mask(dtype: torch.dtype) -> None:
    x = torch.ones(1000, dtype=dtype, requires_grad=True)
    dropped = Dropout(0.5)(x)
    assert dropped.dtype == dtype
    dropped.sum().backward()
    assert set(dropped.tolist()) == {0.0, 2.0}
    torch.testing.assert_close(x.grad, dropped.detach())
