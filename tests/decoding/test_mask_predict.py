"""Mask-predict: which tokens are masked in which pass, and what the hypotheses say."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from decoding_networks import MELS, SPECIAL, VOCABULARY, network, network_config
from helpers import EOS, PAD

from asr.decoding import DecodingOptions, build_decoder
from asr.decoding.mask_predict import mask_predict
from asr.errors import AsrError
from asr.model.decoders.mask_predict import MaskPredictDecoder
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import Memory

OPTIONS = DecodingOptions(decoder="mask-predict", iterations=3)


class Filling:
    """CTC with given probabilities, and a decoder whose answers a test writes down, pass by pass."""

    def __init__(self, path, answers):
        """`path` has (token, probability) of each state; an answer has them for each position."""
        self.ctc_log_probs, self.answers, self.seen = rows(path), [rows(each) for each in answers], []

    def encode(self, features, lengths):
        raise NotImplementedError

    def ctc(self, memory):
        return self.ctc_log_probs

    def fill(self, tokens, masked, lengths, memory):
        self.seen.append(masked[0].tolist())
        return self.answers[len(self.seen) - 1]

    def decode(self):
        states = self.ctc_log_probs.size(1)
        found = mask_predict(
            self, Memory(torch.zeros(1, states, 1), torch.tensor([states])), SPECIAL, OPTIONS
        )
        return found[0][0]


def rows(given):
    """Log-probabilities (1, S, V): the rest of each probability is shared by the other tokens."""
    found = torch.empty(1, len(given), VOCABULARY)
    for row, (token, probability) in zip(found[0], given, strict=True):
        row.fill_(math.log((1 - probability) / (VOCABULARY - 1)))
        row[token] = math.log(probability)
    return found


def test_doubtful_tokens_are_predicted_and_the_least_sure_ones_again():
    """Of four tokens, CTC is sure of the second. Three are masked, then two, then one."""
    path = [(4, 0.6), (PAD, 0.9), (5, 0.9), (5, 0.9995), (6, 0.7), (7, 0.5)]
    answers = [
        [(8, 0.9), (8, 0.99), (6, 0.5), (4, 0.6)],
        [(8, 0.9), (8, 0.99), (7, 0.8), (4, 0.7)],
        [(8, 0.9), (8, 0.99), (8, 0.9), (5, 0.95)],
    ]
    model = Filling(path, answers)
    found = model.decode()
    assert model.seen == [
        [True, False, True, True],
        [False, False, True, True],
        [False, False, False, True],
    ]
    assert found.tokens == (8, 5, 7, 5)
    product = 0.9 * 0.9995 * 0.8 * 0.95
    assert found.log_prob == pytest.approx(math.log(product), abs=1e-5)
    assert found.finished and found.confidence == pytest.approx(product ** (1 / 5), abs=1e-5)


def test_a_sure_text_and_an_empty_one_need_no_pass():
    sure = Filling([(4, 0.9999), (PAD, 0.9999), (4, 0.9999)], [])
    assert sure.decode().tokens == (4, 4) and not sure.seen
    silence = Filling([(PAD, 0.6), (PAD, 0.6)], [])
    assert silence.decode().tokens == () and silence.decode().log_prob == 0.0


def test_special_tokens_are_never_filled_in():
    model = Filling([(4, 0.5)], [[(EOS, 0.9)], [(PAD, 0.9)], [(PAD, 0.9)]])
    assert model.decode().tokens[0] not in (EOS, *SPECIAL.suppressed)


class FillingWithLengths(Filling):
    """As `Filling`, but the network predicts the length of the text."""

    def __init__(self, probabilities, answers):
        super().__init__([(4, 0.9999)] * 9, answers)
        self.lengths = torch.tensor([probabilities]).log()

    def predict_lengths(self, memory):
        return self.lengths


def test_a_predicted_length_has_priority_over_ctc_and_all_its_tokens_are_masked_first():
    answers = [
        [(4, 0.9), (5, 0.8), (6, 0.7)],
        [(4, 0.9), (7, 0.6), (8, 0.95)],
        [(4, 0.9), (6, 0.99), (8, 0.95)],
    ]
    model = FillingWithLengths([0.1, 0.1, 0.2, 0.6], answers)
    found = model.decode()
    assert model.seen == [[True] * 3, [False, True, True], [False, True, False]]
    assert found.tokens == (4, 6, 8) and found.finished
    assert found.log_prob == pytest.approx(math.log(0.9 * 0.99 * 0.95), abs=1e-5)


def test_predicted_lengths_in_a_batch_are_as_alone():
    """Rows that are shorter than the longest have finite scores."""
    model, memory = filling_network(length_head=9), Memory(torch.randn(3, 12, 16), torch.tensor([12, 9, 11]))
    lengths = torch.tensor([5, 2, 0])
    model.predict_lengths = lambda memory: torch.eye(9)[lengths[memory.states[:, 0, 0].long()]]
    memory.states[:, 0, 0] = torch.arange(3)
    for row, (found,) in enumerate(mask_predict(model, memory, SPECIAL, OPTIONS)):
        ((alone,),) = mask_predict(model, memory.select(torch.tensor([row])), SPECIAL, OPTIONS)
        assert found.tokens == alone.tokens and len(found.tokens) == lengths[row]
        assert found.log_prob == pytest.approx(alone.log_prob, abs=1e-4)


def test_a_predicted_length_of_zero_is_an_empty_text():
    assert FillingWithLengths([0.9, 0.1], []).decode().tokens == ()


@pytest.mark.parametrize("positions", ["none", "rotary"])
def test_masks_that_look_the_same_at_all_positions_are_refused(positions):
    with pytest.raises(ValueError, match=f"look the same with positions {positions}"):
        MaskPredictDecoder.Config(d_model=16, length_head=9, positions={"kind": positions})


def test_a_network_that_knows_no_length_is_refused():
    class Nothing:
        encode = fill = None

    memory = Memory(torch.zeros(1, 2, 1), torch.tensor([2]))
    with pytest.raises(AsrError, match="neither a length head nor a CTC head"):
        mask_predict(Nothing(), memory, SPECIAL, OPTIONS)


@pytest.fixture(scope="module")
def bundle():
    return SimpleNamespace(special=SPECIAL, network=filling_network(), metadata={})


def filling_network(**settings):
    torch.manual_seed(0)
    config = network_config().model_dump() | {
        "decoder": {"kind": "mask_predict", "n_layers": 1, "d_model": 16, **settings}
    }
    return EncoderDecoder(EncoderDecoder.Config.model_validate(config), MELS, VOCABULARY).eval()


@pytest.mark.parametrize("decoder", ["greedy", "beam", "rescoring"])
def test_decoders_that_go_token_by_token_are_refused(bundle, decoder):
    with pytest.raises(AsrError, match="fills all positions in parallel; use the decoder mask-predict"):
        build_decoder(bundle, DecodingOptions(decoder=decoder))


@pytest.mark.parametrize("option", ["beam", "hot_words", "language_model", "ctc_weight", "draft"])
def test_options_of_other_decoders_are_refused_for_the_default_decoder(bundle, option):
    values = {"beam": 2, "hot_words": ("a",), "language_model": "lm", "ctc_weight": 0.5, "draft": True}
    with pytest.raises(AsrError, match=f"{option}: the decoder 'mask-predict' has no such option"):
        build_decoder(bundle, DecodingOptions(**{option: values[option]}))


def test_mask_predict_is_refused_for_other_models():
    other = SimpleNamespace(special=SPECIAL, network=network(0), metadata={})
    with pytest.raises(AsrError, match="mask-predict: this model has no mask-predict decoder"):
        build_decoder(other, OPTIONS)


def test_logit_processors_are_refused(bundle):
    with pytest.raises(AsrError, match="logit processors do not apply"):
        build_decoder(bundle, OPTIONS, [lambda tokens, log_probs: log_probs])
