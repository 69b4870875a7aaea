"""Channels that are decoded separately have the texts of files with one channel."""

import io

import numpy as np
import pytest
import soundfile

from asr.errors import AsrError
from asr.transcription import pieces
from asr.transcription.formats import to_ctm
from asr.transcription.recognizer import Recognizer

RATE = 16000


def tone(frequency, seconds):
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


CALL = np.zeros((2 * RATE, 2), np.float32)
CALL[: RATE // 2, 0] = tone(300, 0.5)
CALL[RATE : round(1.7 * RATE), 1] = tone(700, 0.7)


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    path = tmp_path_factory.mktemp("call") / "call.wav"
    soundfile.write(path, CALL, RATE, "FLOAT")
    return path


@pytest.mark.parametrize("long", [False, True])
def test_separate(tiny_model, call, monkeypatch, long):
    """Files, arrays, pipes of bytes, and files that are read block by block."""
    if long:
        monkeypatch.setattr(pieces, "LONG", 0.5)
    recognizer = Recognizer(tiny_model, "cpu", channels="separate")
    one = Recognizer(recognizer.bundle, "cpu")
    expected = [(one.transcribe(CALL[:, i], RATE).text, i + 1) for i in range(2)]
    assert all(text for text, _ in expected)
    for source in (call, io.BytesIO(call.read_bytes())) if not long else (call,):
        found = recognizer.transcribe(source)
        assert [(s.text, s.channel) for s in found.segments] == expected
        assert found.duration == 2.0
    assert [(s.text, s.channel) for s in recognizer.transcribe(CALL, RATE).segments] == expected
    channels = [line.split()[1] for line in to_ctm(found).splitlines()]
    assert sorted(set(channels)) == ["1", "2"]
    mono = recognizer.transcribe(CALL[:, 0], RATE)
    assert [(s.text, s.channel) for s in mono.segments] == expected[:1]


@pytest.mark.parametrize("channels", pieces.CHANNELS)
@pytest.mark.parametrize("array", [CALL.T, np.zeros((RATE, 0), np.float32), np.array(0.5)])
def test_an_array_of_another_shape_is_refused(tiny_model, channels, array):
    recognizer = Recognizer(tiny_model, "cpu", channels=channels)
    with pytest.raises(
        AsrError,
        match=r"^array: samples cannot have the shape \(.*\); give \(samples,\) or \(samples, channels\)",
    ):
        recognizer.transcribe(array, RATE)


def test_first_and_mix(tiny_model, call):
    first = Recognizer(tiny_model, "cpu", channels="first")
    assert first.transcribe(call).text == first.transcribe(CALL[:, 0], RATE).text
    assert first.transcribe(CALL, RATE).text == first.transcribe(call).text
    assert first.transcribe(call).segments[0].channel is None
    with pytest.raises(AsrError, match="channels 'left': unknown; choose from mix, first, separate"):
        Recognizer(first.bundle, channels="left")
