"""Samples in memory: checked, scaled, mixed to one channel."""

from __future__ import annotations

import math
import warnings

import numpy as np
import soxr

from asr.errors import AsrError

SAMPLE_RATE = 16000  # Hz: the rate of the models of this package, unless their configuration has another
LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000  # Hz: a rate outside this range means a damaged header
MAX_CHANNELS = 64  # an array with more is (channels, samples), in the wrong order
LONGEST = 1e9  # seconds: a larger time is a mistake
RESAMPLER = "HQ"  # soxr's 20-bit filter: aliases stay below the noise of 16-bit audio

_FULL_SCALE = 32768.0  # of 16-bit samples
_INT16_FROM = 100.0  # a float that large cannot be meant for [-1, 1]; it is a 16-bit sample
LARGEST_FLOAT = 2 * _FULL_SCALE
LARGEST_DECODED = _INT16_FROM  # from compressed audio; above it, the audio is damaged


def from_array(
    samples: np.ndarray,
    source_rate: float,
    sample_rate: int = SAMPLE_RATE,
    start: float = 0.0,
    duration: float | None = None,
    name: str | None = None,
    channel: int | None = None,
) -> np.ndarray:
    """An array (samples,) or (samples, channels) as `read` returns it: float32 (samples,) at `sample_rate`.

    int16, int32 and uint8 are scaled to [-1, 1]. Floats are taken as they are, unless the largest magnitude
    is 100 or more: then they are taken for 16-bit samples, divided by 32768, and a UserWarning says so.
    Raises AsrError for another type or shape, no samples, NaN, infinity, magnitudes above 65536, rates
    outside 1 kHz to 1 MHz, and a `start` at or beyond the end.
    """
    name, samples = name or "audio array", np.asarray(samples)
    check_rate(source_rate, name)
    check_rate(sample_rate, "requested sample rate")
    check_times(start, duration, name)
    check_shape(samples, name)
    if not len(samples):
        raise AsrError(f"{name}: the array has no samples; give at least one")
    first = round(start * source_rate)
    if first >= len(samples):
        raise beyond_the_end(start, len(samples) / source_rate, name)
    last = None if duration is None else first + max(1, round(duration * source_rate))
    mono = to_mono(samples[first:last], source_rate, name, channel, first)
    return soxr.resample(mono, source_rate, sample_rate, RESAMPLER)


def to_mono(
    samples: np.ndarray, source_rate: float, name: str, channel: int | None = None, first: int = 0
) -> np.ndarray:
    """An array (samples,) or (samples, channels) of any type as float32 (samples,), without resampling.

    `first` is the position of samples[0] in the recording.
    """
    samples = np.asarray(samples)
    check_shape(samples, name)
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype in (np.int16, np.int32):
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise AsrError(
            f"{name}: samples cannot be of the type {samples.dtype}; give float, int16, int32 or uint8"
        )
    peak = check_samples(samples, name, first, source_rate)
    return one_channel(samples.astype(np.float32), channel, name) * np.float32(scale_for(peak, name))


def check_shape(samples: np.ndarray, name: str) -> int:
    """The number of channels. Raises AsrError for what is not (samples,) or (samples, channels)."""
    channels = 1 if samples.ndim == 1 else samples.shape[1] if samples.ndim == 2 else 0
    if not 1 <= channels <= MAX_CHANNELS:
        raise AsrError(
            f"{name}: samples cannot have the shape {samples.shape}; give (samples,) or (samples, channels)"
        )
    return channels


def check_times(start: float, duration: float | None, name: str) -> None:
    """Raise AsrError for a start or a duration that is impossible for any recording."""
    if not (0 <= start < LONGEST and (duration is None or 0 < duration < LONGEST)):
        part = f"start {start} s" + ("" if duration is None else f", duration {duration} s")
        raise AsrError(f"{name}: {part}: impossible; give a start from 0 up and a duration above 0")


def beyond_the_end(start: float, end: float, name: str) -> AsrError:
    return AsrError(f"{name}: start {start:g} s is beyond the end ({end:g} s); check the times")


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


def one_channel(samples: np.ndarray, channel: int | None, name: str) -> np.ndarray:
    """(samples,) or (samples, channels) -> (samples,), contiguous: `channel`, from 0, or their mean."""
    if samples.ndim == 1:
        samples = samples[:, None]
    if channel is None and samples.shape[1] > 1:
        return samples.mean(axis=1, dtype=np.float32)
    if (channel or 0) >= samples.shape[1]:
        raise AsrError(
            f"{name}: there is no channel {(channel or 0) + 1} (number of channels: {samples.shape[1]}); "
            "give a lower number"
        )
    return samples[:, channel or 0].copy()


def check_rate(rate: float, name: str) -> None:
    """Raise AsrError for a rate outside 1 kHz to 1 MHz: at 1 Hz, a short file is hours of audio."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AsrError(
            f"{name}: sample rate of {rate} Hz is impossible; give {LOWEST_RATE} to {HIGHEST_RATE} Hz"
        )
