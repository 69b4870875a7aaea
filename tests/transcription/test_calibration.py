"""Calibration: confidences become shares of right words, and only for the weights they were measured with."""

import numpy as np
import pytest

from asr.errors import AsrError
from asr.transcription.calibration import Calibration, load_calibration
from asr.transcription.recognizer import Recognizer


def test_the_curve_is_the_share_of_right_words():
    random = np.random.default_rng(0)
    raw = random.random(20000)
    fitted = Calibration.fit(list(raw), list(random.random(20000) < raw**2))
    for confidence in (0.1, 0.5, 0.9):
        assert fitted(confidence) == pytest.approx(confidence**2, abs=0.03)
    assert list(fitted.right) == sorted(fitted.right) and 0 <= fitted(0.0) <= fitted(1.0) <= 1


def test_a_curve_never_falls():
    raw = list(np.linspace(0, 1, 400))
    assert len(Calibration.fit(raw, [x < 0.5 for x in raw]).raw) == 1
    with pytest.raises(AsrError, match="99 words: too few"):
        Calibration.fit(raw[:99], [True] * 99)


@pytest.fixture
def model_copy(tiny_model, tmp_path):
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture
def samples():
    time = np.arange(16000) / 16000
    return np.sin(2 * np.pi * 400 * time * (1 + 0.3 * np.sin(12 * time))).astype(np.float32)


def test_it_is_used_with_its_weights_only(model_copy, samples, tmp_path):
    assert load_calibration(tmp_path) is None
    plain = Recognizer(tmp_path, "cpu").transcribe(samples, 16000).words
    assert plain
    Calibration((0.0, 1.0), (0.5, 0.7)).save(tmp_path)
    found = Recognizer(tmp_path, "cpu").transcribe(samples, 16000).words
    assert [w.confidence for w in found] == pytest.approx([0.5 + 0.2 * w.confidence for w in plain])
    with (tmp_path / "model.safetensors").open("ab") as weights:
        weights.write(b" ")
    assert load_calibration(tmp_path) is None
    (tmp_path / "calibration.json").write_text("{}")
    with pytest.raises(AsrError, match=r"calibration.json: not a calibration"):
        load_calibration(tmp_path)


def test_a_segment_of_improbable_words_gets_no_text(model_copy, samples):
    uncalibrated = Recognizer(model_copy, "cpu")
    expected = uncalibrated.transcribe(samples, 16000).text
    assert expected

    Calibration((0.0, 1.0), (0.19, 0.19)).save(model_copy)
    found = Recognizer(model_copy, "cpu").transcribe(samples, 16000)
    assert (found.text, found.segments) == ("", ())
    assert Recognizer(model_copy, "cpu", min_confidence=0).transcribe(samples, 16000).text == expected
    assert Recognizer(model_copy, "cpu", min_confidence=0.18).transcribe(samples, 16000).text == expected

    Calibration((0.0, 1.0), (0.21, 0.21)).save(model_copy)
    assert Recognizer(model_copy, "cpu").transcribe(samples, 16000).text == expected
    assert not Recognizer(model_copy, "cpu", min_confidence=0.22).transcribe(samples, 16000).text


def test_without_a_calibration_the_given_limit_holds_for_the_confidence_as_it_is(model_copy, samples):
    words = Recognizer(model_copy, "cpu").transcribe(samples, 16000).words
    mean = sum(word.confidence for word in words) / len(words)
    assert Recognizer(model_copy, "cpu", min_confidence=mean - 1e-4).transcribe(samples, 16000).text
    assert not Recognizer(model_copy, "cpu", min_confidence=mean + 1e-4).transcribe(samples, 16000).text


def test_an_impossible_limit_is_one_line(model_copy):
    with pytest.raises(AsrError, match=r"min_confidence 1.5: impossible"):
        Recognizer(model_copy, "cpu", min_confidence=1.5)
    with pytest.raises(AsrError, match=r"min_confidence nan: impossible"):
        Recognizer(model_copy, "cpu", min_confidence=float("nan"))
