"""Vocal tract length perturbation: the new frequencies of formants, and values that do not change."""

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from asr.features.log_mel import LogMel
from asr.features.settings import VocalTractConfig
from asr.features.vocal_tract import perturb_vocal_tract, warp_frequencies

LOG_MEL = LogMel(LogMel.Config())
BINS = LOG_MEL.frequencies


def tone(hertz):
    """Features (1, T, 80) of a tone."""
    wave = 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(8000) / 16000)
    return LOG_MEL(wave[None], torch.tensor([8000]))[0]


def peak(features):
    """The loudest frequency in the middle, in Hz."""
    return float(BINS[features[0, 25].argmax()])


@pytest.mark.parametrize("rate", [2000, 8000, 16000, 44100])
def test_the_bins_of_log_mel_are_where_librosa_has_them(rate):
    features = LogMel(LogMel.Config(sample_rate=rate, n_fft=2048, n_mels=40))
    expected = librosa.mel_frequencies(42, fmin=0, fmax=rate / 2)[1:-1]
    np.testing.assert_allclose(features.frequencies.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.2])
@pytest.mark.parametrize("hertz", [400, 1500, 3000])
def test_a_formant_moves_to_its_frequency_divided_by_the_factor(hertz, factor):
    moved = peak(warp_frequencies(tone(hertz), BINS, torch.tensor([factor])))
    width = float((BINS - hertz / factor).abs().min()) + 0.04 * hertz
    assert moved == pytest.approx(hertz / factor, abs=width)
    assert abs(moved - peak(tone(hertz))) > 0.05 * hertz


@settings(max_examples=50, deadline=None)
@given(st.floats(0.6, 1.8), st.sampled_from([8, 23, 80]))
def test_frequencies_stay_in_order_and_the_highest_stays(factor, count):
    """Features that are the frequency itself become the warped frequencies."""
    bins = torch.linspace(100, 7800, count)
    warped = warp_frequencies(bins.view(1, 1, -1), bins, torch.tensor([factor]))[0, 0]
    assert (warped.diff() > -1e-2).all() and float(warped[-1]) == pytest.approx(7800, rel=1e-5)
    # Above the corner, which is at 0.6 of the highest frequency or lower, the factor changes.
    inside = (bins * max(factor, 1.0) < 0.6 * 7800) & (bins * factor > 100)
    torch.testing.assert_close(warped[inside], bins[inside] * factor, rtol=1e-4, atol=0.1)


@pytest.mark.parametrize(("factor", "corner", "warped_corner"), [(1.5, 3120, 4680), (0.5, 4680, 2340)])
def test_the_warping_is_linear_above_the_corner(factor, corner, warped_corner):
    """The corner is at 0.6 of the highest frequency, before the warping or after it."""
    bins = torch.linspace(0, 7800, 79)  # every 100 Hz
    warped = warp_frequencies(bins.view(1, 1, -1), bins, torch.tensor([factor]))[0, 0]
    at = {f: float(np.interp(f, bins.numpy(), warped.numpy())) for f in (corner, (corner + 7800) / 2)}
    assert at[corner] == pytest.approx(warped_corner, abs=30)
    assert at[(corner + 7800) / 2] == pytest.approx((warped_corner + 7800) / 2, abs=2)


def test_every_row_has_its_own_factor_and_one_changes_nothing():
    features = torch.randn(3, 6, 80)
    factors = torch.tensor([0.9, 1.0, 1.1])
    together = warp_frequencies(features, BINS, factors)
    torch.testing.assert_close(together[1], features[1], rtol=0, atol=1e-3)
    for row in (0, 2):
        alone = warp_frequencies(features[row : row + 1], BINS, factors[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone)
        assert not torch.allclose(alone, features[row], atol=0.1)
    assert not warp_frequencies(torch.zeros(1, 4, 80), BINS, torch.tensor([1.1])).any()  # padding stays zero


def test_the_probability_and_the_seed_choose_the_warped_rows():
    features = torch.randn(1, 4, 80).expand(2000, -1, -1)

    def drawn(seed, **values):
        torch.manual_seed(seed)
        return perturb_vocal_tract(features, BINS, VocalTractConfig(**values))

    changed = ((drawn(0, probability=0.3) - features).abs() > 1e-2).any(2).any(1)
    assert 0.26 < changed.float().mean() < 0.34
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    torch.testing.assert_close(drawn(0, probability=0.0), features, rtol=0, atol=1e-3)
    same = drawn(0, factors=(1.1, 1.1), probability=1.0)
    torch.testing.assert_close(
        same[:1], warp_frequencies(features[:1], BINS, torch.tensor([1.1])), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("factors", [(1.2, 0.8), (0.1, 1.0), (1.0, 3.0)])
def test_impossible_factors_are_refused(factors):
    with pytest.raises(ValidationError, match="lower one first"):
        VocalTractConfig(factors=factors)
