"""Free Spoken Digit Dataset: single English digits, 8 kHz (github.com/Jakobovski/free-spoken-digit-dataset).

The official test set is recordings 0 to 4 of each digit and speaker; 5 and 6 are taken out of the rest as
`dev`. Since single words are a weak test of a recognizer, `write_strings` joins recordings of one speaker to
strings of 3 to 10 digits: fixed audio files, the same on every machine.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asr import audio
from asr.datasets.corpora.base import ALL, Subsets, source_folder
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SAMPLE_RATE = 8000  # Hz, the corpus's own
STRINGS_PER_SPEAKER = {"test": 50, "dev": 10}

_NAME = re.compile(r"(\d)_([^_]+)_(\d+)\.(wav|flac|ogg)", re.IGNORECASE)
_PAUSE = (0.1, 0.5)  # seconds between two digits
_NOISE = 10 ** (-70 / 20)  # RMS of a pause: recordings are never digital zero


def read_fsdd(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """Splits train, dev and test of the corpus; durations are not known yet.

    `source`, or the folder of the archive in it, holds `recordings/` (the original distribution) or `audio/`
    (a prepared copy). Raises AsrError
    where neither has a file named {digit}_{speaker}_{index}.wav, .flac or .ogg; nothing is added to `bad`.
    """
    source = source_folder(source, "free-spoken-digit-dataset-master", "free-spoken-digit-dataset")
    found = []
    for folder in (source / "recordings", source / "audio"):
        if folder.is_dir():
            found += [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    if not found:
        raise AsrError(
            f"{source}: no recordings/{{digit}}_{{speaker}}_{{index}}.wav in it; "
            "give the folder of the downloaded free-spoken-digit-dataset"
        )
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for digit, speaker, index, path in sorted((int(m[1]), m[2], int(m[3]), path) for m, path in found):
        split = "test" if index < 5 else "dev" if index < 7 else "train"
        splits[split].append(Utterance(path.stem, path, WORDS[digit], speaker=speaker, lang="en"))
    return {split: group for split, group in splits.items() if subsets.wants(split)}


def write_strings(splits: dict[str, list[Utterance]], out: Path, seed: int = 0) -> dict[str, list[Utterance]]:
    """Digit strings of the test and dev recordings as OUT/audio/*.flac; returns test_strings and dev_strings.

    A string joins 3 to 10 recordings of one speaker with pauses of 0.1 to 0.5 s of noise at -70 dBFS. Every
    recording is used once, in random order, before any is used again. `extra` of an utterance lists the ids
    of its `recordings`. Raises AsrError for audio that cannot be read.
    """
    strings: dict[str, list[Utterance]] = {}
    for split, count in STRINGS_PER_SPEAKER.items():
        for speaker in sorted({utterance.speaker or "" for utterance in splits.get(split, [])}):
            # This is numpy's legacy generator, whose stream never changes. So the test set never changes.
            random = np.random.RandomState(zlib.crc32(f"{seed} {split} {speaker}".encode()))
            pool = [utterance for utterance in splits[split] if utterance.speaker == speaker]
            waves = {utterance.id: audio.read(utterance.audio, SAMPLE_RATE) for utterance in pool}
            cards = _deal(pool, random)
            for number in range(count):
                chosen = [next(cards) for _ in range(random.randint(3, 11))]
                samples = _join([waves[utterance.id] for utterance in chosen], random)
                name = f"{split}_{speaker}_{number:02}"
                path = out / "audio" / f"{name}.flac"
                audio.write(path, samples, SAMPLE_RATE)
                string = Utterance(
                    name,
                    path,
                    " ".join(utterance.text or "" for utterance in chosen),
                    len(samples) / SAMPLE_RATE,
                    speaker=speaker,
                    lang="en",
                    extra={"recordings": [utterance.id for utterance in chosen]},
                )
                strings.setdefault(f"{split}_strings", []).append(string)
    return strings


def _deal(pool: list[Utterance], random: np.random.RandomState) -> Iterator[Utterance]:
    """The recordings of the pool without end, in a new random order each time."""
    while True:
        yield from (pool[index] for index in random.permutation(len(pool)))


def _join(waves: list[np.ndarray], random: np.random.RandomState) -> np.ndarray:
    """Recordings (samples,) with a pause of low noise between each two."""
    pieces = [waves[0]]
    for wave in waves[1:]:
        pause = round(random.uniform(*_PAUSE) * SAMPLE_RATE)
        pieces += [(_NOISE * random.standard_normal(pause)).astype(np.float32), wave]
    return np.concatenate(pieces)
