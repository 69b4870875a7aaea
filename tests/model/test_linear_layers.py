"""Linear layers in float32 whose weights are ordered once for oneDNN."""

import copy
from pathlib import Path

import pytest
import torch

from asr.model import kernels
from asr.model.bf16 import Bf16Linear, is_supported
from asr.model.int8 import Int8Linear
from asr.model.linear_layers import SMALL, Float32Linear, to_float32_linear
from asr.model_folder import load_model
from asr.transcription.precision import with_precision
from asr.transcription.recognizer import Recognizer

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits"
needs_packing = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"), reason="this torch has no oneDNN"
)


@needs_packing
@pytest.mark.parametrize(
    ("d_in", "d_out"), [(24, 40), (40, 24), (SMALL // 16, 16), (512, 256), (16, kernels.OUTPUTS)]
)
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2), (5, 60), (0,), (2, 0)])
def test_products_are_those_of_a_linear_layer(d_in, d_out, shape):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(d_in, d_out), torch.randn(*shape, d_in)
    with torch.no_grad():
        torch.testing.assert_close(Float32Linear(layer.weight, layer.bias)(x), layer(x), rtol=1e-4, atol=1e-4)
        without_bias = torch.nn.functional.linear(x, layer.weight)
        torch.testing.assert_close(Float32Linear(layer.weight, None)(x), without_bias, rtol=1e-4, atol=1e-4)


@needs_packing
def test_the_input_may_be_stored_in_any_order():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(512, 256), torch.randn(512, 9)
    with torch.no_grad():
        found = Float32Linear(layer.weight, layer.bias)(x.t())
        torch.testing.assert_close(found, layer(x.t()), rtol=1e-4, atol=1e-4)


@needs_packing
@pytest.mark.parametrize("model", ["digits", "english"])
def test_a_recognizer_has_them_and_the_callers_model_keeps_its_own(model, monkeypatch):
    monkeypatch.setattr(kernels, "ONEDNN", True)
    bundle = load_model(model, "cpu")
    before = copy.deepcopy(bundle.network.state_dict())
    recognizer = Recognizer(bundle)
    layers = list(recognizer.bundle.network.modules())
    assert any(isinstance(each, Float32Linear) for each in layers)
    assert not any(isinstance(each, torch.nn.Linear) for each in layers)
    assert not any(isinstance(each, Float32Linear) for each in bundle.network.modules())
    after = bundle.network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    if model == "digits":
        expected = (SAMPLES / "pi.txt").read_text().strip()
        assert recognizer.transcribe(SAMPLES / "pi.wav").text == expected


@needs_packing
def test_the_model_of_a_recognizer_can_have_another_recognizer(monkeypatch):
    monkeypatch.setattr(kernels, "ONEDNN", True)
    first = Recognizer("digits", "cpu")
    second = Recognizer(first.bundle)
    expected = first.transcribe(SAMPLES / "pi.wav").text
    assert second.transcribe(SAMPLES / "pi.wav").text == expected != ""
    for precision, kind in (("int8", Int8Linear), ("bf16", Bf16Linear)):
        if precision == "int8" or is_supported():
            other = Recognizer(first.bundle, precision=precision)
            assert any(isinstance(each, kind) for each in other.bundle.network.modules())
            assert not any(isinstance(each, Float32Linear) for each in other.bundle.network.modules())
            assert other.transcribe(SAMPLES / "pi.wav").text == expected


@needs_packing
def test_packed_weights_can_be_unpacked():
    layer = torch.nn.Linear(512, 256)
    packed = Float32Linear(layer.weight, layer.bias)
    assert torch.equal(packed.weight, layer.weight) and torch.equal(packed.bias, layer.bias)


def test_other_weights_are_shared_with_the_callers_model():
    bundle = load_model("digits", "cpu")
    own = {each.data_ptr() for each in bundle.network.parameters()}
    used = {each.data_ptr() for each in with_precision(bundle, "float32").network.parameters()}
    assert used and used <= own


def test_where_onednn_is_not_faster_the_layers_stay(monkeypatch):
    monkeypatch.setattr(kernels, "ONEDNN", False)
    network = load_model("digits", "cpu").network
    to_float32_linear(network)
    assert not any(isinstance(each, Float32Linear) for each in network.modules())
