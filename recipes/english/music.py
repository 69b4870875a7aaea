"""Music with empty text, for the English recipe: a model that never hears music writes words for it.

    python recipes/english/music.py OUT --shards 1 [--first 0] [--sentences 1000] [--seed 0]

Each recording has one to four voices of one key and tempo: a melody, chords, broken chords or a bass, struck
or held, and drums in a third of them. Timbres, tempo, key and level are drawn. Shard N is OUT/music-NNN and
OUT/music-NNN.jsonl, and a shard that exists is skipped. `--sentences` is the number of recordings in a shard.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from shards import add_shard_options, new_shards, write_speech
from voices import SAMPLE_RATE, Audio

from asr.datasets.manifest import Utterance, write_manifest
from asr.errors import AsrError

SECONDS = (1.5, 10.0)
BEATS_A_MINUTE = (60, 180)
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), tuple(range(12)))  # in semitones
LOWEST = 41.2  # Hz, the E of a bass
HIGHEST = 7500.0  # Hz, of harmonics
DRUMS = 1 / 3  # of the recordings


@dataclass(frozen=True)
class Timbre:
    """How an instrument sounds."""

    harmonics: int
    rolloff: float  # the harmonic h has the amplitude h ** -rolloff
    attack: float  # seconds
    decay: float  # of the amplitude, in 1 / s; 0: the note is held
    vibrato: float  # share of the pitch
    odd: bool  # only odd harmonics, as of a clarinet

    @classmethod
    def drawn(cls, draw: random.Random) -> Timbre:
        held = draw.random() < 0.4
        return cls(
            harmonics=draw.randint(1, 14),
            rolloff=draw.uniform(0.4, 2.5),
            attack=draw.uniform(0.02, 0.15) if held else draw.uniform(0.001, 0.02),
            decay=draw.uniform(0, 0.5) if held else draw.uniform(1, 9),
            vibrato=draw.uniform(0.002, 0.01) if held and draw.random() < 0.5 else 0.0,
            odd=draw.random() < 0.2,
        )

    def note(self, pitch: float, seconds: float) -> np.ndarray:
        """A note of a pitch in Hz."""
        time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        phase = 2 * np.pi * pitch * (time + self.vibrato * np.sin(2 * np.pi * 5.5 * time) / (2 * np.pi * 5.5))
        numbers = range(1, 2 * self.harmonics, 2) if self.odd else range(1, self.harmonics + 1)
        tones = (h**-self.rolloff * np.sin(h * phase) for h in numbers if h * pitch < HIGHEST)
        ends = np.minimum(time / self.attack, (time[-1] - time) / 0.01).clip(0, 1)
        samples: np.ndarray = sum(tones, np.zeros(len(time))) * ends * np.exp(-self.decay * time)
        return samples


@dataclass(frozen=True)
class Song:
    """What all voices of a recording share."""

    beat: float  # seconds
    key: float  # Hz
    scale: tuple[int, ...]
    seconds: float

    def pitch(self, degree: int, octave: int) -> float:
        """Of a degree of the scale, in Hz."""
        more, place = divmod(degree, len(self.scale))
        return float(self.key * 2 ** (octave + more + self.scale[place] / 12))


Notes = Sequence[tuple[int, ...]]  # the degrees of the scale that begin together, one entry for each step


def melody(steps: int, draw: random.Random) -> Notes:
    degree, notes = draw.randint(0, 7), list[tuple[int, ...]]()
    for _ in range(steps):
        degree = min(14, max(0, degree + draw.choice([-2, -1, -1, 0, 1, 1, 2, 4, -4])))
        notes.append((degree,) if draw.random() < 0.85 else ())
    return notes


def chords(steps: int, draw: random.Random) -> Notes:
    size = draw.choice([2, 3, 3, 4])
    roots = [draw.randint(0, 6) for _ in range(steps)]
    return [tuple(root + 2 * i for i in range(size)) for root in roots]


def broken_chords(steps: int, draw: random.Random) -> Notes:
    return [(degree,) for chord in chords(steps // 3 + 1, draw) for degree in (*chord, chord[0])][:steps]


def play(song: Song, notes: Notes, step: float, octave: int, timbre: Timbre) -> np.ndarray:
    """The notes as samples. Each lasts until the next one begins."""
    found = np.zeros(round(song.seconds * SAMPLE_RATE))
    for number, degrees in enumerate(notes):
        at = round(number * step * SAMPLE_RATE)
        seconds = min(step, (len(found) - at) / SAMPLE_RATE)
        for degree in degrees if seconds > 0.02 else ():
            note = timbre.note(song.pitch(degree, octave), seconds)
            found[at : at + len(note)] += note[: len(found) - at]
    return found


def drums(song: Song, draw: random.Random) -> np.ndarray:
    """A low drum on the beat, and noise between."""
    noise = np.random.default_rng(draw.getrandbits(32))
    found = np.zeros(round(song.seconds * SAMPLE_RATE))
    time = np.arange(round(0.2 * SAMPLE_RATE)) / SAMPLE_RATE
    low = np.sin(2 * np.pi * (50 * time + 6 * (1 - np.exp(-30 * time)))) * np.exp(-20 * time)
    decay = draw.uniform(20, 80)
    for number in range(int(song.seconds / song.beat * 2)):
        at = round(number * song.beat / 2 * SAMPLE_RATE)
        hit = low if number % 2 == 0 else 0.4 * noise.standard_normal(len(time)) * np.exp(-decay * time)
        found[at : at + len(hit)] += hit[: len(found) - at]
    return found


# Each kind of voice: its notes, the octaves above the key, and how many of its notes fill a beat.
VOICES: dict[str, tuple[Callable[[int, random.Random], Notes], tuple[int, ...], tuple[float, ...]]] = {
    "melody": (melody, (2, 3), (0.5, 1, 2, 4)),
    "chords": (chords, (2, 3), (0.25, 0.5, 1, 2)),
    "broken chords": (broken_chords, (2, 3), (2, 3, 4)),
    "bass": (melody, (0, 1), (0.5, 1, 2)),
}


def make_music(draw: random.Random) -> Audio:
    """A recording of music, without speech."""
    song = Song(
        60 / draw.uniform(*BEATS_A_MINUTE),
        LOWEST * 2 ** draw.uniform(0, 1),
        draw.choice(SCALES),
        draw.uniform(*SECONDS),
    )
    found = np.zeros(round(song.seconds * SAMPLE_RATE))
    for name in draw.sample(sorted(VOICES), draw.randint(1, len(VOICES))):
        write, octaves, rates = VOICES[name]
        step = song.beat / draw.choice(rates)
        notes = write(int(song.seconds / step) + 1, draw)
        found += draw.uniform(0.3, 1) * play(song, notes, step, draw.choice(octaves), Timbre.drawn(draw))
    if draw.random() < DRUMS:
        found += draw.uniform(0.5, 2) * drums(song, draw)
    return found.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    add_shard_options(parser)
    args = parser.parse_args()
    for shard in new_shards(args, "music"):
        music = []
        for number in range(args.sentences):
            path = shard.path(number)
            duration = write_speech(path, make_music(shard.draw), shard.draw)
            music.append(
                Utterance(f"{shard.name}-{number:04d}", path, text="", duration=duration, phonemes="")
            )
        write_manifest(shard.manifest, music)
        print(f"{shard.manifest}: {sum(each.duration or 0 for each in music) / 3600:.2f} h", flush=True)


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"music.py: error: {error}")
