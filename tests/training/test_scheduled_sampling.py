"""Scheduled sampling: what the decoder reads in training, for decoders of both kinds."""

from pathlib import Path

import pytest
import torch
from helpers import BOS, EOS, sections

from asr.config import Config
from asr.model.decoders.lstm import LSTMDecoder
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import Memory
from asr.training import losses
from asr.training.loop import train
from asr.training.scheduled_sampling import decode_sampled
from asr.training.settings import ScheduledSamplingConfig

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"
LSTM = {"encoder": {"kind": "pyramidal_lstm"}, "decoder": {"kind": "lstm", "dropout": 0.0}}


@pytest.fixture(params=["transformer", "lstm"])
def network(request):
    torch.manual_seed(0)
    parts = LSTM if request.param == "lstm" else {}
    section = sections(d_model=16, n_heads=2, d_ffn=24, dropout=0.0) | {"dropout": 0.0}
    section = {"d_model": 16, "front_end": {"channels": 3}, **parts} if parts else section
    model = EncoderDecoder(EncoderDecoder.Config.model_validate(section), 12, 9)
    with torch.no_grad():  # it predicts token 7 with near certainty, whatever it reads
        model.decoder.out.weight.mul_(0.1)
        model.decoder.out.bias[7] = 30.0
    return model


@pytest.fixture
def memory(network):
    return network.encode(torch.randn(3, 40, 12), torch.tensor([40, 33, 20]))


def test_a_share_of_one_reads_predictions_alone_and_none_reads_the_text(network, memory):
    tokens = torch.randint(EOS + 1, 7, (3, 6))
    tokens[:, 0] = BOS
    predicted = tokens.clone()
    predicted[:, 1:] = 7
    torch.testing.assert_close(
        decode_sampled(network, tokens, memory, 1, share=1.0), network.decode(predicted, memory)
    )
    torch.testing.assert_close(
        decode_sampled(network, tokens, memory, 1, share=0.0), network.decode(tokens, memory)
    )


def test_predictions_that_are_not_finite_give_a_loss_that_is_not(network, memory):
    """Training skips such a step; it must not end there."""
    tokens = torch.randint(EOS + 1, 7, (3, 6))
    with torch.no_grad():
        network.decoder.out.bias[5] = torch.nan
    assert decode_sampled(network, tokens, memory, 1, share=1.0).isnan().any()


def test_the_prompt_is_never_replaced(network, memory):
    tokens = torch.randint(EOS + 1, 7, (3, 6))
    predicted = tokens.clone()
    predicted[:, 3:] = 7
    torch.testing.assert_close(
        decode_sampled(network, tokens, memory, 3, share=1.0), network.decode(predicted, memory)
    )


def test_the_same_seed_draws_the_same_and_gradients_flow(network, memory):
    tokens = torch.randint(EOS + 1, 9, (3, 6))
    torch.manual_seed(5)
    first = decode_sampled(network, tokens, memory, 1, share=0.5)
    torch.manual_seed(5)
    torch.testing.assert_close(decode_sampled(network, tokens, memory, 1, share=0.5), first, rtol=0, atol=0)
    first.sum().backward()
    assert network.decoder.embed.weight.grad.abs().sum() > 0


class Counting:
    """A decoder without weights: after token n it predicts n + 1."""

    def decode(self, tokens, memory):
        self.read = tokens
        return 100.0 * torch.nn.functional.one_hot((tokens + 1) % 20, 20).float()


def test_two_passes_replace_each_token_by_the_prediction_for_its_own_position():
    network, tokens = Counting(), torch.tensor([[1, 5, 9, 13]])
    decode_sampled(network, tokens, None, 1, share=1.0)
    assert network.read.tolist() == [[1, 2, 6, 10]]


def test_a_recurrent_decoder_goes_on_after_its_own_last_prediction(monkeypatch):
    decoder, read = LSTMDecoder(LSTMDecoder.Config(d_model=8), 20), []

    def count(self, tokens, state):
        read.append(tokens.tolist())
        return 100.0 * torch.nn.functional.one_hot(tokens + 1, 20).float(), None

    monkeypatch.setattr(LSTMDecoder, "_advance", count)
    monkeypatch.setattr(LSTMDecoder, "_predict", lambda self, output: output)
    memory = Memory(torch.randn(1, 6, 8), torch.tensor([6]))
    sampled = torch.tensor([[False, True, True, True]])
    decoder.decode_sampled(torch.tensor([[1, 5, 9, 13]]), memory, sampled)
    assert read == [[1], [2], [3], [4]]


def test_training_uses_the_share_of_its_step_and_validation_none(tmp_path, monkeypatch):
    shares = []

    def record(network, tokens, memory, prompt_size, share):
        shares.append(share)
        return decode_sampled(network, tokens, memory, prompt_size, share)

    monkeypatch.setattr(losses, "decode_sampled", record)
    config = Config.model_validate(
        {
            "model": sections(d_model=16, n_heads=2, d_ffn=24),
            "data": {"train": [SAMPLES], "dev": [SAMPLES], "first": 2},
            "train": {
                "steps": 4,
                "validate_every": 2,
                "scheduled_sampling": {"probability": 0.5, "start": 1, "end": 3},
            },
        }
    )
    assert train(config, tmp_path / "run", device="cpu") == 0
    assert shares == pytest.approx([0.25, 0.5])  # steps 2 and 3; there is none before


def test_the_share_rises_linearly_between_its_two_steps():
    schedule = ScheduledSamplingConfig(probability=0.4, start=10, end=30)
    assert [schedule.at(step) for step in (0, 10, 15, 20, 30, 99)] == pytest.approx(
        [0, 0, 0.1, 0.2, 0.4, 0.4]
    )
    assert ScheduledSamplingConfig(probability=0.4, start=5, end=5).at(6) == 0.4


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="end 3 is before start 9"):
        ScheduledSamplingConfig(start=9, end=3)
    with pytest.raises(ValueError, match="scheduled_sampling needs a decoder"):
        Config.model_validate({"train": {"ctc_weight": 1.0, "scheduled_sampling": {}}})
