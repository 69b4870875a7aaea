"""Recordings that the tests of transcription make, and a comparison of transcripts."""

from pathlib import Path

import numpy as np
import soundfile

from asr.transcription.inputs import Input

RATE = 16000


def sound(seed, seconds, rate=RATE):
    """A wavering tone and some noise, different for every seed."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * (200 + 800 * random.random()) * time * (1 + 0.3 * np.sin(4 * np.pi * time)))
    return (0.3 * tone + 0.01 * random.standard_normal(len(time))).astype(np.float32)


def silence(seconds, rate=RATE):
    return np.zeros(round(seconds * rate), np.float32)


def input_of(path, start=0.0, duration=None):
    return Input(str(path), Path(path), Path(Path(path).stem), start, duration)


def write(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, "FLOAT")
    return input_of(path)


def same(one, other):
    assert one.text == other.text
    assert [(s.start, s.end, s.text, s.finish_reason) for s in one.segments] == [
        (s.start, s.end, s.text, s.finish_reason) for s in other.segments
    ]
    np.testing.assert_allclose(
        [s.confidence for s in one.segments], [s.confidence for s in other.segments], atol=1e-4
    )
