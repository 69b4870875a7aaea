"""Level normalization: speech of any level gets one level, noise and silence are not raised endlessly."""

import numpy as np
import pytest

from asr import audio


def speech(gain=1.0, seconds=4.0, seed=0):
    """Noise in bursts of half a second, with pauses 50 dB below."""
    samples = np.random.default_rng(seed).standard_normal(round(16000 * seconds)) * 0.1
    bursts = np.arange(len(samples)) // 8000 % 2 == 0
    return (gain * samples * np.where(bursts, 1, 0.003)).astype(np.float32)


def decibels(samples):
    return 10 * np.log10(np.square(samples).mean())


@pytest.mark.parametrize("gain", [0.01, 0.1, 1.0, 9.0])
def test_every_level_becomes_the_same(gain):
    samples = audio.normalize_level(speech(gain))
    np.testing.assert_allclose(samples, audio.normalize_level(speech()), rtol=1e-3)
    assert decibels(samples[:8000]) == pytest.approx(-26, abs=0.5)
    assert samples.dtype == np.float32


def test_pauses_and_clicks_do_not_change_the_gain():
    plain, changed = speech(), np.concatenate([speech(), np.zeros(160000, np.float32)])
    changed[70000] = 1.0
    assert audio.speech_level(changed) == pytest.approx(audio.speech_level(plain), abs=0.5)
    changed = speech(0.01)
    changed[12000:12010] = 1.0
    assert audio.speech_level(changed) == pytest.approx(audio.speech_level(speech(0.01)), abs=0.5)


def test_the_gain_has_a_limit_and_silence_stays():
    noise = (1e-3 * np.random.default_rng(1).standard_normal(16000) * 0.4).astype(np.float32)  # -68 dBFS
    assert decibels(audio.normalize_level(noise)) == pytest.approx(decibels(noise) + 40, abs=0.1)
    for silence in (np.zeros(16000, np.float32), noise / 100, np.zeros(0, np.float32)):
        np.testing.assert_array_equal(audio.normalize_level(silence), silence)


def test_blocks_with_one_level_equal_the_whole():
    samples = speech(0.05)
    level = audio.speech_level(samples)
    blocks = [audio.normalize_level(block, level=level) for block in np.split(samples, 4)]
    np.testing.assert_allclose(np.concatenate(blocks), audio.normalize_level(samples), rtol=1e-5)
