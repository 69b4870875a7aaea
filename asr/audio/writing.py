"""Samples to an audio file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import soundfile

from asr.audio.samples import SAMPLE_RATE, check_samples, check_shape
from asr.errors import AsrError
from asr.files import atomic_write, printable

_WRITERS = {  # ending: container, encoding
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "OPUS"),
    ".opus": ("OGG", "OPUS"),
}
_BLOCK = 1 << 18  # frames; libsndfile's ogg writer overflows its stack on a long array


def write(path: str | os.PathLike[str], samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write floats (samples,) or (samples, channels) atomically; PCM clips values outside [-1, 1].

    The ending chooses the format: .wav and .flac hold 16-bit PCM, .ogg and .opus hold Opus (which has
    8, 12, 16, 24 and 48 kHz only). Raises AsrError for another ending, rate or shape, NaN, or a file that
    cannot be written.
    """
    path, name = Path(path), printable(path)
    if path.suffix.lower() not in _WRITERS:
        raise AsrError(
            f"{name}: audio cannot be written as {path.suffix!r}; choose a name that "
            f"ends with {', '.join(_WRITERS)}"
        )
    samples = np.asarray(samples, dtype=np.float32)
    channels = check_shape(samples, name)
    check_samples(samples, name, 0, sample_rate)
    form, subtype = _WRITERS[path.suffix.lower()]
    encoded = io.BytesIO()
    try:
        with soundfile.SoundFile(encoded, "w", sample_rate, channels, subtype, format=form) as file:
            for at in range(0, len(samples), _BLOCK):
                file.write(samples[at : at + _BLOCK])
    except (soundfile.SoundFileError, ValueError) as error:
        raise AsrError(
            f"{name}: cannot be written as {subtype} at {sample_rate} Hz ({error}); "
            f"choose another format or rate"
        ) from None
    with atomic_write(path, "wb") as out:
        out.write(encoded.getbuffer())
