"""Linear layers in bfloat16 whose weights are rounded once."""

from pathlib import Path

import pytest
import torch

from asr.model import bf16
from asr.model.bf16 import Bf16Linear
from asr.model_folder import load_model
from asr.transcription.precision import with_precision
from asr.transcription.recognizer import Recognizer

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits"


needs_bf16 = pytest.mark.skipif(not bf16.is_supported(), reason="the processor has no bfloat16 for oneDNN")


@needs_bf16
@pytest.mark.parametrize("rows", [1, 8, 300])
def test_products_are_those_of_autocast(rows):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(64, 48), torch.randn(2, rows, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
    found = Bf16Linear(layer.weight, layer.bias)(x)
    assert found.dtype == torch.bfloat16 and found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    without_bias = Bf16Linear(layer.weight, None)(x)
    torch.testing.assert_close(without_bias + layer.bias, expected.float(), rtol=0.02, atol=0.02)


def transcribed(bundle):
    return Recognizer(bundle, precision="bf16").transcribe(SAMPLES / "pi.wav").text


@needs_bf16
def test_a_recording_is_transcribed_and_the_given_model_stays_as_it_is():
    bundle = load_model("digits", "cpu")
    assert transcribed(bundle) == (SAMPLES / "pi.txt").read_text().strip()
    assert not any(isinstance(each, Bf16Linear) for each in bundle.network.modules())
    layers = list(with_precision(bundle, "bf16").network.modules())
    assert any(isinstance(each, Bf16Linear) for each in layers)
    assert not any(isinstance(each, torch.nn.Linear) for each in layers)
    for precision in ("float32", "auto"):
        layers = list(with_precision(bundle, precision).network.modules())
        assert not any(isinstance(each, Bf16Linear) for each in layers)


def test_a_processor_without_bfloat16_computes_with_autocast(monkeypatch):
    """oneDNN refuses to order the weights there."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    bundle = load_model("digits", "cpu")
    layers = list(with_precision(bundle, "bf16").network.modules())
    assert not any(isinstance(each, Bf16Linear) for each in layers)
    assert transcribed(bundle) == (SAMPLES / "pi.txt").read_text().strip()
