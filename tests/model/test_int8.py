"""Weights of 8 bits: near those of float32, independent of the batch, and smaller."""

from pathlib import Path

import pytest
import torch
from helpers import sections

from asr.errors import AsrError
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.int8 import Int8Linear, to_int8
from asr.model_folder import load_model
from asr.transcription.recognizer import Recognizer

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits"


def test_products_are_near_those_of_float32():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 7, 64), torch.randn(48, 64), torch.randn(48)
    weight[5] *= 100  # each output has its own scale
    x[1, 2] *= 1000  # each row too
    expected = torch.nn.functional.linear(x, weight)
    found = Int8Linear(weight, bias)(x) - bias
    sizes = x.norm(dim=-1, keepdim=True) * weight.norm(dim=-1)  # (3, 7, 48)
    error = ((found - expected) / sizes).norm(dim=(0, 1)) / (expected / sizes).norm(dim=(0, 1))
    assert error.min() > 1e-3 and error.max() < 0.03
    error = ((found - expected) / sizes).norm(dim=2) / (expected / sizes).norm(dim=2)
    assert error.max() < 0.03
    assert torch.equal(Int8Linear(weight, None)(torch.zeros(1, 64)), torch.zeros(1, 48))


def test_a_row_does_not_depend_on_the_rows_beside_it():
    torch.manual_seed(0)
    layer, x = Int8Linear(torch.randn(8, 16), torch.randn(8)), torch.randn(5, 16)
    x[3] *= 50
    assert all(torch.equal(layer(x[i : i + 1])[0], layer(x)[i]) for i in range(5))


@pytest.mark.parametrize("tied", [True, False])
def test_every_linear_layer_of_a_network_is_replaced(tied):
    torch.manual_seed(0)
    values = sections(d_model=32, n_heads=2, d_ffn=64, decoder_layers=2)
    values["decoder"] |= {"tie_embedding": tied, "key_bias": False}
    network = EncoderDecoder(EncoderDecoder.Config.model_validate(values), 80, 30).eval()
    features, lengths, tokens = torch.randn(2, 60, 80), torch.tensor([60, 44]), torch.tensor([[1, 5, 6]] * 2)

    def logits():
        with torch.no_grad():
            return network.decode(tokens, network.encode(features, lengths))

    expected = logits()
    to_int8(network)
    assert not any(isinstance(each, torch.nn.Linear) for each in network.modules())
    found = logits()
    assert isinstance(network.decoder.out, Int8Linear)
    assert 1e-4 < (found - expected).norm() / expected.norm() < 0.05
    with pytest.raises(AsrError, match="int8 works only on a CPU"):
        to_int8(EncoderDecoder(EncoderDecoder.Config.model_validate(values), 80, 30).to("meta"))


def test_a_batch_is_near_single_recordings():
    """Not equal: the last bits of sums depend on the shape of a batch, and change roundings."""
    network = EncoderDecoder(
        EncoderDecoder.Config.model_validate(sections(d_model=32, n_heads=2)), 80, 30
    ).eval()
    to_int8(network)
    features, lengths = torch.randn(3, 90, 80), torch.tensor([90, 44, 61])
    for row, length in enumerate(lengths.tolist()):
        features[row, length:] = 0
    with torch.no_grad():
        together = network.encode(features, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = network.encode(features[row : row + 1, :length], lengths[row : row + 1]).states[0]
            found = together.states[row, : len(alone)]
            assert (found - alone).norm() < 0.02 * alone.norm()


def test_a_recording_is_transcribed_and_the_given_model_stays_as_it_is():
    bundle = load_model("digits", "cpu")
    path = SAMPLES / "pi.wav"
    texts = [Recognizer(bundle, precision=each).transcribe(path).text for each in ("int8", "float32")]
    assert texts[0] == texts[1] == (SAMPLES / "pi.txt").read_text().strip()
    assert any(isinstance(each, torch.nn.Linear) for each in bundle.network.modules())
    with pytest.raises(AsrError, match="precision 'int4': unknown"):
        Recognizer(bundle, precision="int4")
