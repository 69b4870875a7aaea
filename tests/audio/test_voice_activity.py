"""Voice activity: speech of the samples is found at every level, and other sound is not taken for speech."""

from pathlib import Path

import numpy as np
import pytest

from asr import audio
from asr.audio.segmentation import segments
from asr.audio.voice_activity import CHUNK, CONTEXT, FRAME, is_speech, speech_probabilities, with_speech

SAMPLES = Path(__file__).parents[2] / "data/samples/digits"
RATE = 8000


@pytest.fixture(scope="module")
def speech():
    return audio.read(SAMPLES / "countdown.wav", RATE)


def share(samples, rate=RATE):
    return is_speech(speech_probabilities(samples.astype(np.float32), rate)).mean()


def noises(rate, seconds=8):
    random, time = np.random.default_rng(0), np.arange(seconds * rate) / rate
    chord = sum(np.sin(2 * np.pi * pitch * time) for pitch in (220, 277.2, 329.6, 440))
    struck = chord * np.exp(-3 * (time % 0.5))
    rush = np.convolve(random.standard_normal(len(time)), [1, 0.8, 0.4], "same")
    return {
        "silence": 0 * time,
        "white noise": random.standard_normal(len(time)),
        "tone": np.sin(2 * np.pi * 440 * time),
        "chord": chord / 4,
        "chords, struck": struck / 4,
        "rushing water": rush,
    }


@pytest.mark.parametrize("name", list(noises(RATE, 1)))
@pytest.mark.parametrize("gain", [0.003, 0.3])
def test_other_sound_is_not_speech(name, gain):
    assert share(gain * noises(RATE)[name]) == 0
    assert share(gain * noises(16000)[name], 16000) == 0


@pytest.mark.parametrize("decibels", [-50, -20, 0, 8])
def test_speech_at_every_level(speech, decibels):
    """From -50 dB to clipping."""
    level = audio.speech_level(speech, RATE)
    gained = np.clip(speech * 10 ** ((decibels - level) / 20), -1, 1)
    if decibels == 8:
        assert (np.abs(gained) == 1).mean() > 0.05
    assert share(gained) > 0.95


def test_speech_between_noise(speech):
    """At 10 dB, with noise before and after: the speech is found and the noise alone is not."""
    random = np.random.default_rng(0)
    long = np.concatenate([np.zeros(5 * RATE), speech, np.zeros(5 * RATE)])
    noise = random.standard_normal(len(long)) * np.sqrt(np.square(speech).mean() / 10)
    found = is_speech(speech_probabilities((long + noise).astype(np.float32), RATE))
    begin, end = round(5 / FRAME), round((5 + len(speech) / RATE) / FRAME)
    assert found[begin + 10 : end - 10].mean() > 0.9
    assert found[: begin - 15].mean() < 0.05 and found[end + 15 :].mean() < 0.05


def test_blocks_make_no_difference(speech):
    """Longer than two chunks, in blocks of any size: the frames equal those of the whole recording."""
    random = np.random.default_rng(1)
    hop = round(FRAME * RATE)
    long = np.concatenate(
        [np.concatenate([speech, np.zeros(int(random.integers(8000, 40000)))]) for _ in range(12)]
    )
    long = (long + 1e-3 * random.standard_normal(len(long))).astype(np.float32)
    assert len(long) > 2 * (CHUNK + CONTEXT) * hop
    whole = is_speech(speech_probabilities(long, RATE))
    for blocks in ([long], np.split(long, np.sort(random.integers(0, len(long), 50)))):
        samples, found = zip(*with_speech(blocks, RATE), strict=True)
        np.testing.assert_array_equal(np.concatenate(samples), long)
        np.testing.assert_array_equal(np.concatenate(found), whole)
    assert 0.2 < whole.mean() < 0.9


def test_pieces_are_speech_and_overlap_only_without_a_pause(speech):
    random = np.random.default_rng(2)
    noise = 0.01 * random.standard_normal(4 * RATE).astype(np.float32)
    pieces = list(segments([np.concatenate([noise, speech, noise, speech, noise])], RATE, 30.0, with_speech))
    assert len(pieces) == 2  # the noise between them is not in a piece
    for (start, piece), begin in zip(pieces, (4, 8 + len(speech) / RATE), strict=True):
        assert begin - 0.6 < start < begin + 0.3
        assert abs(start + len(piece) / RATE - begin - len(speech) / RATE) < 0.6

    tight = speech[round(0.2 * RATE) : -round(0.2 * RATE)]
    endless = np.concatenate([tight] * 6)
    pieces = list(segments([endless], RATE, 8.0, with_speech, overlap=True))
    assert max(len(piece) for _, piece in pieces) <= 8 * RATE
    ends = [start + len(piece) / RATE for start, piece in pieces]
    assert all(0 < end - start <= 2.01 for end, (start, _) in zip(ends, pieces[1:], strict=False))
    assert pieces[0][0] == 0 and ends[-1] == pytest.approx(len(endless) / RATE)
