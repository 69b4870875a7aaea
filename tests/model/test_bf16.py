"""Linear layers in bfloat16 whose weights are rounded once."""

from pathlib import Path

import pytest
import torch

from asr.model.bf16 import Bf16Linear
from asr.model_folder import load_model
from asr.transcription.precision import with_precision
from asr.transcription.recognizer import Recognizer

SAMPLES = Path(__file__).parents[2] / "data" / "samples"


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


def test_a_recording_is_transcribed_and_the_given_model_stays_as_it_is():
    bundle = load_model(None, "cpu")
    path = SAMPLES / "pi.wav"
    assert (
        Recognizer(bundle, precision="bf16").transcribe(path).text == (SAMPLES / "pi.txt").read_text().strip()
    )
    assert not any(isinstance(each, Bf16Linear) for each in bundle.network.modules())
    layers = list(with_precision(bundle, "bf16").network.modules())
    assert any(isinstance(each, Bf16Linear) for each in layers)
    assert not any(isinstance(each, torch.nn.Linear) for each in layers)
    assert with_precision(bundle, "float32") is with_precision(bundle, "auto") is bundle
