"""What is done to the audio of an example once its recordings are joined: a room, another level, noise.

In the order of nature: the voice sounds in a room, and noise is added where the microphone is. All of it is
a function of the example's key, each step drawing from a stream of its own: to switch one off leaves the
others as they were.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from asr import audio
from asr.config import AugmentConfig
from asr.datasets.batching import Stream, random_stream
from asr.errors import AsrError

HELD_MB = 256  # of a folder's recordings are kept in memory, decoded; the others are read each time
SPEECH_DB = (
    -26.0
)  # dBFS, the usual level of speech (ITU-T P.56): noise alone is as loud as it would be beside it


class Augmenter:
    """Rooms, gain and noise as a configuration asks for them, for audio at `sample_rate`.

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
        """The audio (samples,) of the example `key` as the model hears it, and what was done to it.

        `spoken` samples of it are recordings, the others pauses between them. Its length does not change.
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

    What is held in memory follows from the files alone, so that every process hears the same. With `mix`
    channels are mixed; room responses of several microphones are not to be: the first one is taken.
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
        self._seconds, self._held, room = [], dict[int, np.ndarray](), HELD_MB * 2**20
        for place, file in enumerate(self.files):
            try:
                self._seconds.append(audio.duration(file))
                room -= round(self._seconds[-1] * sample_rate) * 4
                if room >= 0:
                    self._held[place] = self._read(file)
            except AsrError as error:
                raise AsrError(f"{key}: {error}") from None

    def __len__(self) -> int:
        return len(self.files)

    def whole(self, place: int) -> np.ndarray:
        """All samples (n,) float32 of a file."""
        held = self._held.get(place)
        return self._read(self.files[place]) if held is None else held

    def excerpt(self, place: int, fraction: float, count: int) -> np.ndarray:
        """Samples (count,) of a file from a place on that `fraction` chooses; a short one is repeated."""
        seconds, wanted = self._seconds[place], count / self.sample_rate
        if place not in self._held and seconds > wanted:
            start = fraction * (seconds - wanted)
            return np.resize(audio.read(self.files[place], self.sample_rate, start, wanted), count)
        samples = self.whole(place)
        start = int(fraction * (len(samples) - count + 1 if len(samples) >= count else len(samples)))
        return samples.take(np.arange(start, start + count), mode="wrap")

    def _read(self, file: Path) -> np.ndarray:
        if self.mix:
            samples = audio.read(file, self.sample_rate)
        else:
            try:
                channels, rate = soundfile.read(file, dtype="float32", always_2d=True)
                samples = audio.from_array(channels[:, 0], rate, self.sample_rate)
            except (soundfile.SoundFileError, AsrError) as error:
                raise AsrError(f"{file}: damaged ({error}); leave it out or copy it again") from None
        if not samples.any():
            raise AsrError(f"{file}: nothing but digital silence; leave it out")
        return samples


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Audio (n,) as heard in a room with this impulse response (m,): (n,), as loud as before.

    The direct sound, taken to be the response's highest peak, stays where it was, so that texts and times
    hold; reverberation beyond the end is cut off. Ko et al. 2017, "A study on data augmentation of
    reverberant speech for robust speech recognition".
    """
    from scipy.signal import fftconvolve  # late: the import takes longer than reading a short manifest

    direct = int(np.abs(response).argmax())
    wet = fftconvolve(samples, response)[direct : direct + len(samples)].astype(np.float32)
    energy = _energy(wet)
    return wet * np.float32(np.sqrt(_energy(samples) / energy)) if energy else wet


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float, spoken: int) -> np.ndarray:
    """Audio (n,) with noise (n,) so loud that the power of speech is `snr_db` above its power.

    `spoken` samples are speech: pauses do not make it softer. Where there is no speech, `SPEECH_DB` counts.
    """
    speech, noise_power = _energy(samples), _energy(noise) / len(noise)
    if not noise_power:
        return samples
    power = speech / spoken if spoken and speech else 10 ** (SPEECH_DB / 10)
    return samples + noise * np.float32(np.sqrt(power / noise_power / 10 ** (snr_db / 10)))


def _energy(samples: np.ndarray) -> float:
    return float(np.square(samples, dtype=np.float64).sum())
