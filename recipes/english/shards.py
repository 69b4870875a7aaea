"""Shards of made utterances: a folder of Opus files and a manifest for each, as several scripts write them.

Shard N of a kind such as "made" is the folder OUT/made-NNN and the manifest OUT/made-NNN.jsonl. The manifest
is written when the shard is complete. A shard that exists is skipped, so a run that was stopped continues
with the next one. Everything is drawn from the seed and the number of the shard.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from phonemes import phonemes, restrict
from voices import SAMPLE_RATE, Audio

from asr.datasets.manifest import Utterance
from asr.errors import AsrError

SECONDS = (0.25, 16.0)  # of a file; others are failures
CHARACTERS_A_SECOND = (1.0, 32.0)
OPUS_LEVEL = 0.92  # libsndfile's scale: 0 is 256 kbit/s, 1 is 6 kbit/s; this is about 26 kbit/s


@dataclass(frozen=True)
class Shard:
    """A shard that is to be made."""

    name: str
    folder: Path  # of the audio; it exists
    manifest: Path
    draw: random.Random

    def path(self, number: int) -> Path:
        """The audio file of an utterance."""
        return self.folder / f"{number:04d}.ogg"


def add_shard_options(parser: argparse.ArgumentParser) -> None:
    """The options that `new_shards` reads."""
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--sentences", type=int, default=1000, help="in a shard")
    parser.add_argument("--seed", type=int, default=0)


def new_shards(options: argparse.Namespace, kind: str) -> Iterator[Shard]:
    """The shards of the command line that do not exist yet. Their folders are made."""
    for number in range(options.first, options.first + options.shards):
        name = f"{kind}-{number:03d}"
        manifest = options.out / f"{name}.jsonl"
        if manifest.exists():
            print(f"{manifest}: exists; skipped", flush=True)
            continue
        (options.out / name).mkdir(parents=True, exist_ok=True)
        yield Shard(name, options.out / name, manifest, random.Random(f"{options.seed} {number}"))


def refusal(audio: Audio | None, text: str) -> str:
    """Why synthetic speech cannot be used; empty for good speech."""
    if audio is None or not audio.size:
        return "failed"
    if not np.isfinite(audio).all() or np.abs(audio).max() < 1e-3:
        return "silent"
    seconds = audio.size / SAMPLE_RATE
    if not SECONDS[0] <= seconds <= SECONDS[1]:
        return "too short or too long"
    low, high = CHARACTERS_A_SECOND
    return "" if low <= len(text) / seconds <= high else "speech rate"


def at_level(audio: Audio, decibels: float) -> Audio:
    """The audio scaled to an RMS of so many dB below full scale, less where its peak would clip."""
    gain = 10 ** (decibels / 20) / max(float(np.sqrt((audio**2).mean())), 1e-9)
    return (audio * min(gain, 0.9 / max(float(np.abs(audio).max()), 1e-9))).astype(np.float32)


def write_speech(path: Path, audio: Audio, draw: random.Random) -> float:
    """Write an Opus file at a drawn level; its duration in seconds."""
    audio = at_level(audio, draw.uniform(-30, -16))
    soundfile.write(path, audio, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=OPUS_LEVEL)
    return round(audio.size / SAMPLE_RATE, 3)


def read_inventory(folder: Path) -> str:
    """The phone symbols that prepare_recordings.py wrote."""
    inventory = folder / "phonemes.txt"
    if not inventory.exists():
        raise AsrError(f"{inventory}: not found; run prepare_recordings.py with this folder first")
    return inventory.read_text(encoding="utf-8")


def with_phonemes(utterances: list[Utterance], languages: list[str], symbols: str) -> list[Utterance]:
    """The utterances with the phones that espeak-ng gives their texts in these languages."""
    found = list(utterances)
    for language in set(languages):
        chosen = [i for i, of in enumerate(languages) if of == language]
        phones = phonemes([utterances[i].text or "" for i in chosen], language)
        for i, phone_symbols in zip(chosen, phones, strict=True):
            found[i] = replace(found[i], phonemes=restrict(phone_symbols, symbols))
    return found
