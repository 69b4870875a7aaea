"""What happens to speech between the mouth and the file: rooms, noise, microphones, telephones, codecs."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from asr.errors import AsrError

Audio = NDArray[np.float32]  # mono, (time,)
SAMPLE_RATE = 16_000  # Hz


@dataclass(frozen=True)
class Surroundings:
    """Recorded noises and room responses at SAMPLE_RATE."""

    noises: list[Audio] = field(default_factory=list)
    rooms: list[Audio] = field(default_factory=list)


def read_surroundings(folder: Path | None) -> Surroundings:
    """The audio files of a folder; those with "rir" in the name are room responses. None gives none."""
    surroundings = Surroundings()
    if folder is None:
        return surroundings
    if not folder.is_dir():
        raise AsrError(f"{folder}: not a folder; --noise takes a folder with audio files")
    for path in sorted(folder.glob("*.flac")):
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        audio = soxr.resample(audio[:, 0], rate, SAMPLE_RATE)
        if "rir" not in path.name:
            surroundings.noises.append(audio)
        else:
            audio = audio[np.abs(audio).argmax() :][:SAMPLE_RATE]  # from the direct sound on
            surroundings.rooms.append(audio / np.abs(audio).max())
    return surroundings


def distort(audio: Audio, surroundings: Surroundings, draw: random.Random) -> Audio:
    """The speech through a drawn chain of effects: each is used or not, none or several."""
    noise_source = np.random.default_rng(draw.getrandbits(64))
    if draw.random() < 0.4:
        audio = room(audio, surroundings, draw, noise_source)
    if draw.random() < 0.3:
        audio = tilt(audio, draw.uniform(-0.6, 0.6))
    if draw.random() < 0.4:
        audio = noise(audio, surroundings, draw, noise_source)
    if draw.random() < 0.1:
        audio = clip(audio, draw.uniform(0.001, 0.01))
    kind = draw.random()
    if kind < 0.15:
        audio = telephone(audio, gsm=draw.random() < 0.4)
    elif kind < 0.3:
        audio = opus(audio, draw.uniform(0.96, 1.0))
    return np.asarray(audio, dtype=np.float32)


def room(
    audio: Audio, surroundings: Surroundings, draw: random.Random, noise_source: np.random.Generator
) -> Audio:
    """The speech in a recorded room, or in one whose echo is decaying noise (60 dB in 0.1 to 0.7 s)."""
    if surroundings.rooms and draw.random() < 0.4:
        response = draw.choice(surroundings.rooms)
    else:
        decay = draw.uniform(0.1, 0.7)  # seconds
        time = np.arange(round(SAMPLE_RATE * decay)) / SAMPLE_RATE
        echo = noise_source.standard_normal(time.size) * np.exp(-6.9 * time / decay)
        response = np.asarray(echo * draw.uniform(0.02, 0.15), dtype=np.float32)
        response[0] = 1.0
    return np.asarray(fftconvolve(audio, response)[: audio.size], dtype=np.float32)


def tilt(audio: Audio, amount: float) -> Audio:
    """More treble (amount below 0) or less, as another microphone has it."""
    return np.asarray(lfilter([1.0, amount], [1.0], audio), dtype=np.float32)


def noise(
    audio: Audio, surroundings: Surroundings, draw: random.Random, noise_source: np.random.Generator
) -> Audio:
    """The speech with a part of a recorded noise, or noise of a drawn color, 5 to 30 dB below it."""
    if surroundings.noises and draw.random() < 0.6:
        recorded = draw.choice(surroundings.noises)
        start = draw.randrange(recorded.size)
        sound = np.resize(np.roll(recorded, -start), audio.size)
    else:
        white = noise_source.standard_normal(audio.size)
        sound = lfilter([1.0], [1.0, -draw.uniform(0.0, 0.95)], white).astype(np.float32)
    gain = np.sqrt((audio**2).mean() / max(float((sound**2).mean()), 1e-12)) * 10 ** (
        -draw.uniform(5, 30) / 20
    )
    return np.asarray(audio + gain * sound, dtype=np.float32)


def clip(audio: Audio, share: float) -> Audio:
    """The loudest `share` of the samples cut off, as by a recording level that is too high."""
    limit = np.quantile(np.abs(audio), 1 - share)
    return np.clip(audio, -limit, limit) if limit > 0 else audio


def telephone(audio: Audio, gsm: bool) -> Audio:
    """300 to 3,400 Hz at 8 kHz; through the GSM full-rate codec when `gsm` is set."""
    narrow = soxr.resample(audio, SAMPLE_RATE, 8000)
    narrow = sosfilt(butter(2, [300, 3400], "bandpass", fs=8000, output="sos"), narrow)
    if gsm:
        narrow = _coded(narrow, 8000, "WAV", "GSM610")
    return _length(soxr.resample(np.asarray(narrow, np.float32), 8000, SAMPLE_RATE), audio.size)


def opus(audio: Audio, compression: float) -> Audio:
    """Through Opus; `compression` 1 is about 6 kbit/s, 0.96 about 16."""
    return _length(_coded(audio, SAMPLE_RATE, "OGG", "OPUS", compression), audio.size)


def _coded(audio: Audio, rate: int, container: str, codec: str, compression: float | None = None) -> Audio:
    peak = max(1.0, float(np.abs(audio).max()) / 0.95)  # codecs clip above full scale
    file = io.BytesIO()
    soundfile.write(file, audio / peak, rate, format=container, subtype=codec, compression_level=compression)
    file.seek(0)
    return np.asarray(soundfile.read(file, dtype="float32")[0] * peak, dtype=np.float32)


def _length(audio: Audio, size: int) -> Audio:
    return np.pad(audio[:size], (0, max(0, size - audio.size)))
