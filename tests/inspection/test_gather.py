"""The numbers of an inspection: attention, times, posteriors, measures, for models of every form."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from inspection_helpers import model, recording
from torch import nn

from asr.decoding import DecodingOptions
from asr.errors import AsrError
from asr.inspection.gather import gather
from asr.inspection.measures import diagonality, entropy
from asr.transcription.recognizer import Recognizer

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits"
CONFORMER = {"kind": "conformer", "n_layers": 2, "half_rate_layers": 1, "phonemes": 4, "phonemes_after": 1}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return recording(tmp_path_factory.mktemp("audio") / "a.wav")


@pytest.fixture(scope="module")
def attention_model():
    return model()


def test_entropy_and_diagonality_of_known_weights():
    uniform = np.full((2, 5, 40), 1 / 40)
    assert entropy(uniform) == pytest.approx([math.log(40)] * 2)
    assert entropy(np.eye(6)) == 0 and diagonality(np.eye(6)) == 1
    assert diagonality(np.eye(6)[::-1]) == pytest.approx(1 - np.abs(np.linspace(-1, 1, 6)).mean())
    assert diagonality(np.full((300, 300), 1 / 300)) == pytest.approx(2 / 3, abs=0.01)
    halves = np.array([[0.5, 0.5, 0, 0], [0, 0, 1, 0]])
    assert entropy(halves) == pytest.approx(math.log(2) / 2)
    assert diagonality(halves) == pytest.approx(1 - (0.5 / 3 + 1 / 3) / 2)
    assert diagonality(np.ones((1, 1))) == 1


def test_an_attention_model_shows_all_it_has(attention_model, sound):
    found = gather(attention_model, sound, reference="one two")
    assert found.text == "one two" and found.given and found.lacks == ()
    assert [token.label for token in found.tokens] == [*"one␣two", "EOS"]
    assert [token.id for token in found.tokens[:-1]] == attention_model.tokenizer.encode("one two")
    states = math.ceil((len(found.samples) // 160 + 1) / 4)
    assert found.state_seconds == pytest.approx(0.04) and found.seconds == pytest.approx(1.5)
    assert [heads.weights.shape for heads in found.cross_attention] == [(2, 8, states)] * 2
    assert [heads.weights.shape for heads in found.self_attention] == [(2, states, states)] * 2
    for heads in (*found.cross_attention, *found.self_attention):
        assert np.allclose(heads.weights.sum(-1), 1, atol=1e-5)
        assert heads.entropy.shape == heads.diagonality.shape == (2,)
    (ctc,) = found.posteriors
    assert ctc.values.shape == (len(ctc.symbols), states) and ctc.symbols[0] == "blank"
    assert len(ctc.symbols) + ctc.left_out == len(attention_model.tokenizer)


@torch.no_grad()
def test_the_probabilities_are_those_of_the_decoder_after_the_text(attention_model, sound):
    found = gather(attention_model, sound, reference="fox")
    network, special = attention_model.network, attention_model.special
    features = attention_model.features(torch.from_numpy(found.samples)[None], torch.tensor([24000]))
    memory = network.encode(*features)
    ids = attention_model.tokenizer.encode("fox")
    logits = network.decode(torch.tensor([[*special.prompt, *ids]]), memory)[0].softmax(-1)
    expected = [float(row[id]) for row, id in zip(logits, [*ids, special.eos], strict=True)]
    assert [token.probability for token in found.tokens] == pytest.approx(expected, rel=1e-4)
    ctc = network.ctc(memory)[0].exp()
    for token in found.spoken:
        span = slice(round(token.start / 0.04), round(token.end / 0.04))
        assert token.posterior == pytest.approx(float(ctc[span, token.id].max()), rel=1e-4)


@pytest.mark.parametrize(("ctc", "source"), [(0.3, "CTC"), (0, "cross-attention")])
def test_times_increase_and_lie_inside_the_recording(ctc, source, sound):
    found = gather(model(ctc_weight=ctc), sound, reference="seven six one")
    assert found.times_from == source and len(found.spoken) == 13
    ends = [0.0, *(token.end for token in found.spoken)]
    for token, earlier in zip(found.spoken, ends, strict=False):
        assert earlier - 1e-9 <= token.start < token.end <= 1.52 + 1e-9
    assert any("less exact" in line for line in found.lacks) == (ctc == 0)


def test_what_is_recognized_is_what_transcription_says(tiny_model, sound):
    from asr.model_folder import load_model

    bundle = load_model(tiny_model, "cpu")
    expected = Recognizer(bundle, options=DecodingOptions()).transcribe(sound)
    found = gather(bundle, sound)
    assert found.text == expected.text != "" and not found.given
    assert bundle.tokenizer.decode([token.id for token in found.spoken]).strip() == expected.text


def test_ctc_alone_shows_phonemes_and_layers_at_half_the_rate(sound):
    bundle = model(encoder=CONFORMER, ctc_weight=1, phonemes="abʃ")
    found = gather(bundle, sound, reference="six")
    assert found.cross_attention == () and found.times_from == "CTC"
    assert found.lacks == (
        "No cross-attention: this model has no decoder, and reads its text from CTC alone.",
    )
    full, _, half = found.self_attention
    assert full.weights.shape[1] == 38 and half.weights.shape[1] == 19
    assert (full.seconds, half.seconds) == pytest.approx((0.04, 0.08)) and "half_rate" in half.layer
    phonemes = found.posteriors[1]
    assert phonemes.name == "phonemes" and phonemes.symbols == ("blank", *"abʃ")
    assert np.allclose(phonemes.values.sum(0), 1, atol=1e-5)
    assert all(token.probability is None and token.posterior is not None for token in found.tokens)


def test_a_network_without_attention_says_what_it_lacks(attention_model, sound):
    class Plain(nn.Module):
        """Only `encode`, a CTC head, and no attention anywhere."""

        frames_per_state = 2.0

        def __init__(self):
            super().__init__()
            self.project = nn.Linear(80, len(attention_model.tokenizer))

        def encode(self, features, lengths):
            from asr.model.interfaces import Memory

            return Memory(self.project(features[:, ::2]), (lengths + 1) // 2)

        def ctc(self, memory):
            return memory.states.log_softmax(-1)

    from dataclasses import replace

    found = gather(replace(attention_model, network=Plain()), sound)
    assert found.self_attention == found.cross_attention == () and len(found.posteriors) == 1
    assert found.state_seconds == pytest.approx(0.02)
    assert len(found.lacks) == 2 and "No self-attention" in found.lacks[1]


def test_the_rate_of_states_is_right_for_short_recordings(attention_model, tmp_path):
    for seconds in (0.03, 0.07, 0.1, 0.3):
        found = gather(attention_model, recording(tmp_path / "b.wav", seconds), reference="")
        assert found.state_seconds == pytest.approx(0.04), seconds
        assert [token.label for token in found.tokens] == ["EOS"]
    patches = model(front_end={"kind": "patches", "frames": 2, "bins": 16})
    found = gather(patches, recording(tmp_path / "b.wav", 0.1), reference="")
    assert found.state_seconds == pytest.approx(2 * 0.01 / 5)


def test_as_few_positions_as_the_recording_needs_are_enough(sound):
    few = {"n_layers": 2, "positions": {"kind": "learned", "max_length": 40}}
    assert gather(model(encoder=few), sound, reference="one").state_seconds == pytest.approx(0.04)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_the_padding_of_a_window_is_left_out(ctc_weight, tmp_path):
    bundle = model(
        ctc_weight=ctc_weight,
        features={"kind": "whisper_log_mel", "window_seconds": 8.0},
        front_end={"kind": "convolution1d"},
        decoder={"n_layers": 2, "alignment_heads": [[1, 0]]},
    )
    text = "one" if ctc_weight else None  # CTC of random weights writes more than the recording has room for
    found = gather(bundle, recording(tmp_path / "short.wav", 0.81), reference=text)
    assert found.features.shape == (82, 80) and found.state_seconds == pytest.approx(0.02)
    for heads in (*found.cross_attention, *found.self_attention):
        assert heads.weights.shape[2] == 41 and np.allclose(heads.weights.sum(-1), 1, atol=1e-4)
    assert all(each.values.shape[1] == 41 for each in found.posteriors)
    assert max(token.end for token in found.spoken) <= 0.82 + 1e-9
    if ctc_weight == 0:
        assert found.times_from == "alignment heads"
        (segment,) = Recognizer(bundle, voice_activity=False).transcribe(tmp_path / "short.wav").segments
        starts = [character.start for word in segment.words for character in word.characters]
        assert starts == pytest.approx([t.start for t in found.spoken if t.label != "␣"], abs=1e-3)


def test_a_recognized_text_without_room_on_the_states_has_no_times(tmp_path):
    bundle = model(ctc_weight=0.0)
    short = recording(tmp_path / "short.wav", 0.1)
    with torch.no_grad():
        bundle.network.decoder.out.bias[bundle.special.eos] = -30.0
    found = gather(bundle, short)
    assert len(found.tokens) > 4 and found.spoken == () and found.times_from is None
    assert "No times of tokens: the text has more tokens than this audio has states." in found.lacks
    with pytest.raises(AsrError, match="7 tokens is too long to be aligned with 3 states"):
        gather(bundle, short, reference="one two")


def test_a_part_has_times_of_the_file_and_a_long_recording_is_cut(attention_model, tmp_path):
    long = recording(tmp_path / "long.wav", 4.0)
    found = gather(attention_model, long, start=1.0, duration=2.0, reference="one")
    assert found.start == 1.0 and found.seconds == pytest.approx(2.0) and found.total == pytest.approx(4.0)
    assert all(1.0 <= token.start < token.end <= 3.04 for token in found.spoken)
    attention_model.metadata["longest_seconds"] = "1.5"
    try:
        assert 0.5 < gather(attention_model, long).seconds <= 1.5
    finally:
        del attention_model.metadata["longest_seconds"]


def test_the_first_segment_with_speech_is_shown(attention_model, tmp_path):
    samples, rate = soundfile.read(SAMPLES / "pin.wav")
    noise = 0.01 * np.random.default_rng(0).standard_normal(4 * rate)
    soundfile.write(tmp_path / "late.wav", np.concatenate([noise, samples]), rate)
    assert 3 < gather(attention_model, tmp_path / "late.wav").start < 4.3


def test_what_cannot_be_inspected_is_refused(attention_model, tmp_path, sound):
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(16000), 16000)
    with pytest.raises(AsrError, match="silence; there is nothing to inspect"):
        gather(attention_model, silence)
    empty = tmp_path / "empty.wav"
    empty.touch()
    with pytest.raises(AsrError, match="empty file"):
        gather(attention_model, empty)
    with pytest.raises(AsrError, match="no characters 'A' 'b'; write"):
        gather(attention_model, sound, reference="one Ab")
    with pytest.raises(AsrError, match="99 tokens needs 115 states of CTC, and this audio has 38"):
        gather(attention_model, sound, reference="onetwo" * 16 + "one")
    with pytest.raises(AsrError, match="beyond the end"):
        gather(attention_model, sound, start=9.0)
