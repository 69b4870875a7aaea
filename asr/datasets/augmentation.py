"""Changes of the audio of an example after its recordings are joined: a room, another level, noise.

The order is that of a real recording: a voice sounds in a room, and noise is added at the microphone. All
changes are a function of the example's key. Each has its own random stream, so switching one off does not
change the others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asr import audio
from asr.datasets.batching import Stream, random_stream
from asr.datasets.settings import AugmentConfig
from asr.errors import AsrError

KEPT_MB = 256  # decoded recordings of a folder that are kept in memory; others are read each time
# dBFS, the usual level of speech (ITU-T P.56). Noise without speech is as loud as it would be with this
# speech.
SPEECH_DB = -26.0


class Augmenter:
    """Rooms, gain and noise of a configuration, for audio at `sample_rate`.

    Raises AsrError for a folder that is missing, holds no audio, or holds a file that cannot be read.
    """

    def __init__(self, config: AugmentConfig, sample_rate: int) -> None:
        self.config = config
        rooms, noise = config.rooms, config.noise
        self._rooms = Folder(rooms.folder, "augment.rooms.folder", sample_rate, mix=False) if rooms else None
        self._noises = Folder(noise.folder, "augment.noise.folder", sample_rate) if noise else None

    def __call__(
        self, samples: np.ndarray, spoken: int, key: tuple[int, int, int]
    ) -> tuple[np.ndarray, list[str]]:
        """The changed audio (samples,) of the example `key`, and a description of each change.

        `spoken` of the samples are recordings, the others are pauses. The length does not change.
        """
        config, done = self.config, []
        if config.rooms and self._rooms:
            random = random_stream(*key, Stream.ROOM)
            if random.random() < config.rooms.probability:
                place = int(random.integers(len(self._rooms)))
                samples = reverberate(samples, self._rooms.whole(place))
                done.append(f"room {self._rooms.files[place].name}")
        if config.gain_db:
            gain = random_stream(*key, Stream.GAIN).uniform(-config.gain_db, config.gain_db)
            samples = samples * np.float32(10 ** (gain / 20))
            done.append(f"gain {gain:+.1f} dB")
        if config.noise and self._noises:
            random = random_stream(*key, Stream.NOISE)
            if random.random() < config.noise.probability:
                place, snr = int(random.integers(len(self._noises))), random.uniform(*config.noise.snr_db)
                noise = self._noises.excerpt(place, random.random(), len(samples))
                samples = add_noise(samples, noise, snr, spoken)
                done.append(f"noise {self._noises.files[place].name} at an SNR of {snr:.1f} dB")
        if config.noise_db is not None:  # its level does not follow the gain
            random = random_stream(*key, Stream.WHITE_NOISE)
            level = random.uniform(*config.noise_db)
            white = random.standard_normal(len(samples), dtype=np.float32)
            samples = samples + np.float32(10 ** (level / 20)) * white
            done.append(f"white noise of {level:.1f} dBFS")
        return samples, done


class Folder:
    """The audio files in and below a folder, in the order of their names, at one rate.

    The files that are kept in memory depend on the files alone, so that all processes get the same
    samples. With `mix` channels are mixed. Room responses of several microphones must not be mixed, so
    the first one is used.
    """

    def __init__(self, folder: Path, key: str, sample_rate: int, mix: bool = True) -> None:
        self.sample_rate, self.mix = sample_rate, mix
        if not folder.is_dir():
            raise AsrError(f"{key}: {folder} is not a folder; name one that holds audio files")
        found = (f for f in folder.rglob("*") if f.suffix.lower() in audio.EXTENSIONS)
        self.files = sorted(file for file in found if not file.name.startswith("."))
        if not self.files:
            raise AsrError(
                f"{key}: no audio in {folder}; name a folder that holds {' '.join(audio.EXTENSIONS)}"
            )
        self._seconds, self._kept, room = [], dict[int, np.ndarray](), KEPT_MB * 2**20
        for place, file in enumerate(self.files):
            try:
                self._seconds.append(audio.duration(file))
                room -= round(self._seconds[-1] * sample_rate) * 4
                if room >= 0:
                    self._kept[place] = self._read(file)
            except AsrError as error:
                raise AsrError(f"{key}: {error}") from None

    def __len__(self) -> int:
        return len(self.files)

    def whole(self, place: int) -> np.ndarray:
        """All samples (n,) float32 of a file."""
        kept = self._kept.get(place)
        return self._read(self.files[place]) if kept is None else kept

    def excerpt(self, place: int, fraction: float, count: int) -> np.ndarray:
        """Samples (count,) of a file. `fraction` chooses where they start. A short file is repeated."""
        seconds, needed = self._seconds[place], count / self.sample_rate
        if place not in self._kept and seconds > needed:
            start = fraction * (seconds - needed)
            return np.resize(audio.read(self.files[place], self.sample_rate, start, needed), count)
        samples = self.whole(place)
        start = int(fraction * (len(samples) - count + 1 if len(samples) >= count else len(samples)))
        return samples.take(np.arange(start, start + count), mode="wrap")

    def _read(self, file: Path) -> np.ndarray:
        samples = audio.read(file, self.sample_rate, channel=None if self.mix else 0)
        if not samples.any():
            raise AsrError(f"{file}: nothing but digital silence; leave it out")
        return samples


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Audio (n,) in a room with this impulse response (m,): (n,), as loud as before.

    The highest peak of the response counts as the direct sound. The direct sound does not move in time, so
    the times of the text stay correct. Reverberation after the end is removed. Ko et al. 2017, "A study on
    data augmentation of reverberant speech for robust speech recognition".
    """
    from scipy.signal import (
        fftconvolve,
    )  # here, because the import takes longer than reading a short manifest

    direct = int(np.abs(response).argmax())
    wet = fftconvolve(samples, response)[direct : direct + len(samples)].astype(np.float32)
    energy = _energy(wet)
    return wet * np.float32(np.sqrt(_energy(samples) / energy)) if energy else wet


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float, spoken: int) -> np.ndarray:
    """Audio (n,) with noise (n,) at a signal-to-noise ratio in dB.

    The power of the speech is that of the `spoken` samples, so pauses do not lower it. Without speech it is
    `SPEECH_DB`.
    """
    speech, noise_power = _energy(samples), _energy(noise) / len(noise)
    if not noise_power:
        return samples
    power = speech / spoken if spoken and speech else 10 ** (SPEECH_DB / 10)
    return samples + noise * np.float32(np.sqrt(power / noise_power / 10 ** (snr_db / 10)))


def _energy(samples: np.ndarray) -> float:
    return float(np.square(samples, dtype=np.float64).sum())
