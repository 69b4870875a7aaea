"""Log-mel features equal librosa's, and do not depend on the other rows of the batch."""

import itertools

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.config import SpecAugmentConfig
from asr.features.log_mel import LogMel
from asr.features.normalization import MIN_STD, Statistics
from asr.features.spec_augment import spec_augment
from asr.masks import length_mask

CONFIG = LogMel.Config()
PLAIN = LogMel(CONFIG)  # mean 0, deviation 1


def speech_like(samples, seed=0):
    """A gliding tone over noise, with a loud and a quiet half."""
    time = np.arange(samples) / 16000
    glide = 0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time)
    noise = 0.02 * np.random.default_rng(seed).standard_normal(samples)
    return ((glide + noise) * np.where(time < time.mean(), 1.0, 0.1)).astype(np.float32)


@pytest.fixture(scope="module")
def trained():
    """Features with statistics that turn silence into something far from zero."""
    features = LogMel(CONFIG)
    features.mean.copy_(torch.linspace(-9, -3, 80))
    features.std.copy_(torch.linspace(1, 3, 80))
    return features


# ------------------------------------------------------------------------------------------------- log-mel


@pytest.mark.filterwarnings("ignore:n_fft=512 is too large")
@pytest.mark.parametrize("samples", [1, 160, 399, 400, 401, 12345, 32000])
def test_mel_energies_equal_librosa(samples):
    wave = speech_like(samples)
    expected = librosa.feature.melspectrogram(
        y=wave, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=80, power=2.0, pad_mode="constant"
    )
    energies = PLAIN.mel(torch.from_numpy(wave)[None])[0].numpy()
    np.testing.assert_allclose(energies, expected, rtol=1e-4, atol=1e-5 * expected.max())

    log_mel = PLAIN.log_mel(torch.from_numpy(wave)[None])[0].numpy()
    np.testing.assert_allclose(log_mel, np.log(np.maximum(expected.T, CONFIG.log_floor)), atol=2e-3)


def test_another_rate_and_shape_equal_librosa_too():
    config = LogMel.Config(sample_rate=8000, n_mels=23, n_fft=256, window_ms=20, hop_ms=12.5)
    wave = speech_like(5000)
    expected = librosa.feature.melspectrogram(
        y=wave, sr=8000, n_fft=256, win_length=160, hop_length=100, n_mels=23, power=2.0, pad_mode="constant"
    )
    energies = LogMel(config).mel(torch.from_numpy(wave)[None])[0].numpy()
    np.testing.assert_allclose(energies, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_silence_is_the_floor_and_not_minus_infinity():
    log_mel = PLAIN.log_mel(torch.zeros(1, 1000))
    torch.testing.assert_close(log_mel, torch.full_like(log_mel, np.log(CONFIG.log_floor)))


@settings(max_examples=60)
@given(st.integers(1, 5000))
def test_frame_counts_are_exact(samples):
    frames = PLAIN.log_mel(torch.zeros(1, samples)).size(1)
    assert frames == int(PLAIN.frames(torch.tensor([samples]))[0]) == 1 + samples // 160


@settings(max_examples=25)
@given(st.lists(st.integers(1, 6000), min_size=1, max_size=5), st.integers(0, 3000))
def test_padding_changes_no_valid_frame_and_the_rest_is_zero(trained, lengths, padding):
    waves = [torch.from_numpy(speech_like(n, seed=n)) for n in lengths]
    padded = torch.zeros(len(waves), max(lengths) + padding)
    for row, wave in zip(padded, waves, strict=True):
        row[: len(wave)] = wave
    batch, frames = trained(padded, torch.tensor(lengths))
    assert frames.tolist() == [1 + n // 160 for n in lengths]
    for row, wave, count in zip(batch, waves, frames.tolist(), strict=True):
        alone, _ = trained(wave[None], torch.tensor([len(wave)]))
        assert alone.shape == (1, count, 80)
        torch.testing.assert_close(row[:count], alone[0], rtol=0, atol=1e-5)
        assert not row[count:].any()


def test_features_are_float32_under_autocast(trained):
    wave = torch.from_numpy(speech_like(4000))[None]
    expected = trained.log_mel(wave)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(trained.log_mel(wave), expected)


def test_only_mean_and_std_are_stored(trained):
    assert set(trained.state_dict()) == {"mean", "std"}
    fresh = LogMel(CONFIG)
    fresh.load_state_dict(trained.state_dict())
    wave = torch.from_numpy(speech_like(4000))[None]
    assert torch.equal(fresh(wave, torch.tensor([4000]))[0], trained(wave, torch.tensor([4000]))[0])


def test_length_mask():
    assert length_mask(torch.tensor([0, 2, 3]), 3).int().tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]


# ---------------------------------------------------------------------------------------------- statistics


def test_statistics_are_those_of_the_valid_frames():
    random = np.random.default_rng(0)
    statistics, valid = Statistics(80), []
    for lengths in ([7, 3], [1], [5, 9, 2]):
        batch = random.normal(-6, 3, (len(lengths), max(lengths), 80)).astype(np.float32)
        statistics.add(torch.from_numpy(batch), torch.tensor(lengths))
        valid += [row[:n] for row, n in zip(batch, lengths, strict=True)]
    frames = np.concatenate(valid)
    np.testing.assert_allclose(statistics.result()[0], frames.mean(0), rtol=1e-5)
    assert frames.std(0).min() > MIN_STD
    np.testing.assert_allclose(statistics.result()[1], frames.std(0), rtol=1e-5)


def test_a_bin_with_little_variance_is_not_amplified():
    frames = torch.randn(1, 500, 80) * 5
    frames[:, :, 60:] = -18.4 + 0.001 * torch.randn(1, 500, 20)
    statistics = Statistics(80)
    statistics.add(frames, torch.tensor([500]))
    _, std = statistics.result()
    assert (std[:60] > 4).all()
    assert (std[60:] == MIN_STD).all()


def test_features_normalized_by_their_statistics_have_mean_0_and_deviation_1():
    wave = torch.from_numpy(speech_like(16000))[None]
    features = LogMel(CONFIG)
    features.fit(wave, torch.tensor([16000]))
    features.finish_fit()
    normalized, _ = features(wave, torch.tensor([16000]))
    torch.testing.assert_close(normalized.mean((0, 1)), torch.zeros(80), rtol=0, atol=1e-4)
    varied = features.std > MIN_STD
    assert varied.any()
    deviation = normalized.std((0, 1), correction=0)[varied]
    torch.testing.assert_close(deviation, torch.ones_like(deviation), rtol=1e-3, atol=0)


# -------------------------------------------------------------------------------------------- SpecAugment


def masks(lengths, config, seed=0, bins=80, frames=None):
    """Which frames (B, T) and which bins (B, n_mels) are masked; nothing else is."""
    torch.manual_seed(seed)
    lengths = torch.tensor(lengths)
    ones = torch.ones(len(lengths), frames or int(lengths.max()) + 7, bins)
    masked = spec_augment(ones, lengths, config) == 0
    assert (ones == 1).all()  # a copy
    across = masked.all(1)  # no frame beyond the length is masked, so never every frame by the time masks
    along = masked.all(2) if not across.all() else torch.zeros(masked.shape[:2], dtype=torch.bool)
    assert torch.equal(masked, across.unsqueeze(1) | along.unsqueeze(2))
    return along, across


def runs(row):
    """Lengths of the runs of true."""
    return [len(list(group)) for value, group in itertools.groupby(row.tolist()) if value]


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=6),
    st.builds(
        SpecAugmentConfig,
        frequency_masks=st.integers(0, 3),
        frequency_width=st.integers(0, 40),
        time_masks=st.integers(0, 3),
        time_width=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    ),
    st.integers(0, 2**32),
)
def test_masks_stay_within_the_limits(lengths, config, seed):
    along, across = masks(lengths, config, seed)
    for length, time, frequency in zip(lengths, along, across, strict=True):
        assert not time[length:].any()
        assert len(runs(time)) <= config.time_masks
        assert int(time.sum()) <= config.time_masks * int(length * np.float32(config.time_width))
        assert len(runs(frequency)) <= config.frequency_masks
        assert int(frequency.sum()) <= config.frequency_masks * config.frequency_width


def test_all_widths_and_positions_occur():
    config = SpecAugmentConfig(frequency_masks=1, frequency_width=10, time_masks=1, time_width=0.2)
    along, across = masks([50] * 3000, config)
    for mask, widest, extent in ((along, 10, 50), (across, 10, 80)):
        counts = np.bincount(mask.sum(1), minlength=widest + 1)
        assert len(counts) == widest + 1  # never wider
        np.testing.assert_allclose(counts / 3000, 1 / (widest + 1), atol=0.03)  # each width as often
        assert (mask.any(0).nonzero().squeeze(1) == torch.arange(extent)).all()  # every place, to both ends
        assert all(len(runs(row)) <= 1 for row in mask[:200])


def test_the_default_masks_a_reasonable_share_and_each_row_its_own():
    along, across = masks([300] * 400, SpecAugmentConfig())
    # 5 masks of 7.5 frames and 2 of 13.5 bins on average, some overlapping
    assert 0.10 < along[:, :300].float().mean() < 0.125
    assert 0.25 < across.float().mean() < 0.3375
    for rows in (along, across):
        assert len({tuple(row.tolist()) for row in rows}) > 350


def test_a_mask_wider_than_all_the_bins_is_possible():
    config = SpecAugmentConfig(frequency_masks=1, frequency_width=27, time_masks=0)
    _, across = masks([9] * 500, config, bins=5)
    counts = np.bincount(across.sum(1))
    assert len(counts) == 6 and counts.min() > 50  # each width as often, not the whole most of the time


def test_the_masks_depend_on_the_seed():
    config = SpecAugmentConfig()
    first, again, other = (masks([200, 80], config, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


@pytest.mark.parametrize(
    "config",
    [
        SpecAugmentConfig(frequency_masks=0, time_masks=0),
        SpecAugmentConfig(frequency_width=0, time_width=0.0),
    ],
)
def test_zero_masks_change_nothing(config):
    features = torch.randn(3, 20, 80)
    assert torch.equal(spec_augment(features, torch.tensor([20, 5, 1]), config), features)


def test_unmasked_values_do_not_change():
    features = torch.randn(4, 50, 80)
    masked = spec_augment(features, torch.tensor([50, 40, 30, 9]), SpecAugmentConfig())
    assert (masked != features).any()
    assert torch.equal(masked[masked != 0], features[masked != 0])


# ------------------------------------------------------------------------ the mean of an utterance


def test_with_the_mean_of_each_utterance_the_level_has_no_effect():
    own = LogMel(LogMel.Config(mean="utterance"))
    wave = torch.from_numpy(speech_like(8000))
    loud, lengths = torch.stack([wave, 10 * wave]), torch.tensor([8000, 8000])
    features, _ = own(loud, lengths)
    torch.testing.assert_close(features[0], features[1], rtol=0, atol=1e-3)
    torch.testing.assert_close(features.mean(1), torch.zeros(2, 80), rtol=0, atol=1e-4)
    global_mean, _ = PLAIN(loud, lengths)
    assert (global_mean[1] - global_mean[0]).mean() > 1  # log of 100 where nothing is below the floor
    assert (own.config.level_matters, PLAIN.config.level_matters) == (False, True)


def test_the_mean_of_an_utterance_ignores_padding():
    own = LogMel(LogMel.Config(mean="utterance"))
    wave = torch.from_numpy(speech_like(4000))
    alone, frames = own(wave[None], torch.tensor([4000]))
    padded, _ = own(torch.nn.functional.pad(wave, (0, 6000))[None], torch.tensor([4000]))
    torch.testing.assert_close(padded[:, : frames[0]], alone, rtol=0, atol=1e-4)
