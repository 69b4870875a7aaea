"""Sounds for tests, and the bytes of files of all formats that soundfile writes."""

import io

import numpy as np
import soundfile

FORMATS = {  # name: container, encoding
    "wav": ("WAV", "PCM_16"),
    "adpcm": ("WAV", "IMA_ADPCM"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "sph": ("NIST", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def tone(rate=16000, seconds=1.0, frequency=440.0):
    time = np.arange(round(rate * seconds)) / rate
    noise = 0.02 * np.random.default_rng(int(frequency)).standard_normal(len(time))
    return (0.4 * np.sin(2 * np.pi * frequency * time) + noise).astype(np.float32)


def encode(samples, name, rate=16000):
    form, subtype = FORMATS[name]
    out = io.BytesIO()
    soundfile.write(out, samples, rate, subtype, format=form)
    return out.getvalue()
