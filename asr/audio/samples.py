"""Samples in memory: checked, scaled, mixed to one channel."""

from __future__ import annotations

import math
import warnings

import numpy as np
import soxr

from asr.errors import AsrError

SAMPLE_RATE = 16000  # Hz: the rate of the models of this package, unless their configuration has another
LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000  # Hz: a header with a rate outside is damaged
MAX_CHANNELS = 64  # an array with more is (channels, samples), in the wrong order
RESAMPLER = "HQ"  # soxr's 20-bit filter: aliases stay below the noise of 16-bit audio

_FULL_SCALE = 32768.0  # of 16-bit samples
_INT16_FROM = 100.0  # a float that large cannot be meant for [-1, 1]; it is a 16-bit sample
LARGEST_FLOAT = 2 * _FULL_SCALE
LARGEST_DECODED = _INT16_FROM  # from compressed audio; above it, the audio is damaged


def from_array(samples: np.ndarray, source_rate: float, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """An array (samples,) or (samples, channels) as `read` returns it: float32 (samples,) at `sample_rate`.

    int16, int32 and uint8 are scaled to [-1, 1]. Floats are taken as they are, unless the largest magnitude
    is 100 or more: then they are taken for 16-bit samples, divided by 32768, and a UserWarning says so.
    Raises AsrError for another type or shape, no samples, NaN, infinity, magnitudes above 65536, and rates
    outside 1 kHz to 1 MHz.
    """
    name = "audio array"
    check_rate(source_rate, name)
    check_rate(sample_rate, "requested sample rate")
    if not np.asarray(samples).size:
        raise AsrError(f"{name}: no samples; give at least one")
    return soxr.resample(to_mono(samples, source_rate, name), source_rate, sample_rate, RESAMPLER)


def to_mono(samples: np.ndarray, source_rate: float, name: str) -> np.ndarray:
    """An array (samples,) or (samples, channels) of any type as float32 (samples,), without resampling."""
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MAX_CHANNELS):
        raise AsrError(f"{name}: shape {samples.shape}; give (samples,) or (samples, channels)")
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype in (np.int16, np.int32):
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise AsrError(f"{name}: type {samples.dtype}; give float, int16, int32 or uint8")
    peak = check_samples(samples, name, 0, source_rate)
    return mix(samples.astype(np.float32)) * np.float32(scale_for(peak, name))


def check_samples(
    samples: np.ndarray, name: str, first: int, rate: float, largest: float = LARGEST_FLOAT
) -> float:
    """The largest magnitude. Raises AsrError with the time of the first sample that is impossible.

    `first` is the position of samples[0] in the recording.
    """
    if not samples.size:
        return 0.0
    peak = max(float(samples.max()), -float(samples.min()))  # NaN if a sample is NaN
    if peak <= largest:
        return peak
    with np.errstate(invalid="ignore"):
        bad = np.argwhere(~(np.abs(samples) <= largest))[0]
    value, second = float(samples[tuple(bad)]), (first + int(bad[0])) / rate
    kind = f"sample of size {value:g}" if math.isfinite(value) else "NaN or infinite sample"
    raise AsrError(f"{name}: {kind} at {second:.3f} s; repair or leave out this audio")


def scale_for(peak: float, name: str) -> float:
    """The factor that brings floats to [-1, 1]: 1, or 1/32768 with a UserWarning for 16-bit samples."""
    if peak < _INT16_FROM:
        return 1.0
    message = f"{name}: floats up to {peak:.0f} are taken for 16-bit samples and divided by 32768"
    warnings.warn(message, stacklevel=2)
    return 1 / _FULL_SCALE


def mix(samples: np.ndarray) -> np.ndarray:
    """(samples,) or (samples, channels) -> (samples,), contiguous: the mean of the channels."""
    if samples.ndim == 1:
        return np.ascontiguousarray(samples)
    if samples.shape[1] == 1:
        return samples[:, 0].copy()
    return samples.mean(axis=1, dtype=np.float32)


def check_rate(rate: float, name: str) -> None:
    """Raise AsrError for a rate outside 1 kHz to 1 MHz: at 1 Hz, a short file is hours of audio."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AsrError(
            f"{name}: sample rate of {rate} Hz is impossible; give {LOWEST_RATE} to {HIGHEST_RATE} Hz"
        )
