"""Whisper's features and Kaldi's filter banks: equal to the originals, and the same in any batch."""

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi as kaldi

from asr.errors import AsrError
from asr.features.kaldi_fbank import KaldiFbank
from asr.features.whisper_log_mel import WhisperLogMel


def speech_like(samples, seed=0):
    """A gliding tone over noise, with a loud and a quiet half."""
    time = np.arange(samples) / 16000
    glide = 0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time)
    noise = 0.02 * np.random.default_rng(seed).standard_normal(samples)
    return ((glide + noise) * np.where(time < time.mean(), 1.0, 0.1)).astype(np.float32)


def batch(waveforms, extra=0):
    lengths = torch.tensor([len(each) for each in waveforms])
    padded = torch.zeros(len(waveforms), int(lengths.max()) + extra)
    for row, each in zip(padded, waveforms, strict=True):
        row[: len(each)] = torch.from_numpy(each)
    return padded, lengths


WAVEFORMS = [speech_like(samples, samples) for samples in (5000, 16000, 40123)]


@pytest.mark.parametrize("n_mels", [80, 128])
def test_whisper_features_equal_the_original(n_mels):
    transformers = pytest.importorskip("transformers")
    original = transformers.WhisperFeatureExtractor(feature_size=n_mels)
    waveforms = [*WAVEFORMS, speech_like(480_000), np.zeros(1600, np.float32)]
    expected = original(waveforms, sampling_rate=16000, return_tensors="pt").input_features
    features, lengths = WhisperLogMel(WhisperLogMel.Config(n_mels=n_mels))(*batch(waveforms))
    assert lengths.tolist() == [3000] * 5
    torch.testing.assert_close(features.transpose(1, 2), expected, atol=1e-5, rtol=0)


def test_whisper_features_without_a_window_are_those_of_the_window_up_to_the_end():
    """The window only adds silence, except for the frames at the very end of the audio."""
    whole, _ = WhisperLogMel(WhisperLogMel.Config())(*batch(WAVEFORMS))
    short, lengths = WhisperLogMel(WhisperLogMel.Config(window_seconds=None))(*batch(WAVEFORMS))
    assert lengths.tolist() == [32, 100, 251]
    for row, length in enumerate(lengths):
        torch.testing.assert_close(short[row, :length], whole[row, :length], atol=1e-5, rtol=0)
        assert not short[row, length:].any()


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("variance", [True, False])
def test_filter_banks_equal_the_original(mean, variance):
    transformers = pytest.importorskip("transformers")
    original = transformers.Speech2TextFeatureExtractor(normalize_means=mean, normalize_vars=variance)
    features, lengths = KaldiFbank(KaldiFbank.Config(mean=mean, variance=variance))(*batch(WAVEFORMS))
    for row, waveform in enumerate(WAVEFORMS):
        expected = original(waveform, sampling_rate=16000, return_tensors="pt").input_features[0]
        assert lengths[row] == len(expected)
        torch.testing.assert_close(features[row, : len(expected)], expected, atol=1e-5, rtol=1e-5)
        assert not features[row, len(expected) :].any()


def test_filter_banks_equal_torchaudio():
    plain = KaldiFbank(KaldiFbank.Config(mean=False, variance=False, n_mels=40))
    waveform = torch.from_numpy(WAVEFORMS[1])
    expected = kaldi.fbank(waveform[None] * 2**15, num_mel_bins=40)
    torch.testing.assert_close(plain(waveform[None], torch.tensor([16000]))[0][0], expected)


@pytest.mark.parametrize(
    "features",
    [
        WhisperLogMel(WhisperLogMel.Config()),
        WhisperLogMel(WhisperLogMel.Config(window_seconds=None)),
        KaldiFbank(KaldiFbank.Config()),
    ],
)
def test_batch_equals_single(features):
    together, lengths = features(*batch([*WAVEFORMS, speech_like(100)], extra=7000))
    for row, waveform in enumerate([*WAVEFORMS, speech_like(100)]):
        alone, (length,) = features(*batch([waveform]))
        assert length == lengths[row] == len(alone[0])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-6, rtol=1e-5)
        assert not together[row, length:].any()
    assert features.frames(torch.tensor([len(w) for w in WAVEFORMS])).tolist() == lengths[:3].tolist()


def test_silence_has_finite_features():
    for features in (WhisperLogMel(WhisperLogMel.Config()), KaldiFbank(KaldiFbank.Config())):
        assert features(torch.zeros(1, 3000), torch.tensor([3000]))[0].isfinite().all()


def test_a_recording_longer_than_the_window_is_refused():
    with pytest.raises(AsrError, match=r"30\.0 s is longer than the window of 2 s"):
        WhisperLogMel(WhisperLogMel.Config(window_seconds=2))(
            torch.zeros(1, 480_000), torch.tensor([480_000])
        )
    with pytest.raises(ValueError, match="16000 Hz only"):
        WhisperLogMel.Config(sample_rate=8000)
