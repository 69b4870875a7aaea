"""Fixtures of the tests of transcription.

The model has random weights. The text of a sound is meaningless, but it depends on that sound alone.
"""

import numpy as np
import pytest
from recordings import RATE, silence, sound, write

from asr.transcription.recognizer import Recognizer


@pytest.fixture(scope="module")
def recognizer(tiny_model):
    return Recognizer(tiny_model, "cpu")


@pytest.fixture(scope="module")
def bundle(recognizer):
    return recognizer.bundle


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """16 files from a tenth of a second to three seconds: the longest are cut."""
    folder = tmp_path_factory.mktemp("mixed")
    return [write(folder / f"{i}.wav", sound(i, s)) for i, s in enumerate(np.linspace(0.1, 3.0, 16)[::-1])]


@pytest.fixture(scope="module")
def alone(recognizer, mixed):
    transcripts = [recognizer.transcribe(each.audio) for each in mixed]
    # Equal texts prove nothing unless different sounds have different texts.
    assert len({transcript.text for transcript in transcripts}) > len(mixed) / 2
    return transcripts


@pytest.fixture(scope="module")
def bursts():
    """Twelve sounds of different lengths with pauses of 0.6 s between them; where each begins and ends."""
    samples, places = [silence(0.3)], []
    for i in range(12):
        begin = sum(map(len, samples)) / RATE
        samples += [sound(i, 0.7 + 0.1 * (i % 6)), silence(0.6)]
        places.append((begin, begin + len(samples[-2]) / RATE))
    return np.concatenate(samples), places
