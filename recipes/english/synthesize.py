"""Synthetic speech for the English recipe, in shards of sentences that are each spoken by another voice.

    python recipes/english/synthesize.py OUT BOOKS [--shards 10] [--first 0] [--noise FOLDER] ...
    python recipes/english/synthesize.py OUT --revoice MANIFEST [--shards 10] [--first 200] ...

The first form speaks sentences of BOOKS (one on each line; plain, .gz or .xz) and everyday sentences. The
second changes the voices of the recordings in MANIFEST with WORLD. OUT is the folder that
`prepare_recordings.py` wrote: its phonemes.txt is the inventory, and no sentence of its dev-*.jsonl and
test-*.jsonl or of data/samples is spoken.

Shard N is OUT/made-NNN and OUT/made-NNN.jsonl. A shard that exists is skipped (`shards.py`).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from accents import ACCENTED, with_accent
from channel import Surroundings, distort, read_surroundings
from sentences import draw_sentence
from shards import add_shard_options, new_shards, read_inventory, refusal, with_phonemes, write_speech
from text import Exclusion, read_excluded, read_lines
from voices import SAMPLE_RATE, Audio, Voice, check_installed, draw_voice, speak_all
from world import draw_change, revoice

from asr.audio import read
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError

BATCH = 100  # sentences for one festival process
REVOICED = 0.12  # share of synthesized sentences that WORLD changes too
DISTORTED = 0.5  # share of files with rooms, noise, telephones, codecs


@dataclass
class Tally:
    """Seconds of speech and of computing, by synthesizer; reasons for refused files."""

    audio: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    computing: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    refused: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        hours = sum(self.audio.values()) / 3600
        shares = ", ".join(
            f"{name} {seconds / 3600:.2f} h"
            + (f" at {seconds / spent:.0f} x" if (spent := self.computing[name]) else "")
            for name, seconds in sorted(self.audio.items())
        )
        refused = (
            "; refused: " + ", ".join(f"{n} {why}" for why, n in self.refused.items()) if self.refused else ""
        )
        return f"{hours:.2f} h ({shares}){refused}"


def cpu_seconds() -> float:
    """Computing time of this process and of the programs that it ran."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def trim(audio: Audio, before: float, after: float) -> Audio:
    """The speech (all within 40 dB of the peak) with so many seconds of quiet before and after it."""
    loud = np.flatnonzero(np.abs(audio) > 0.01 * np.abs(audio).max())
    lead, tail = round(before * SAMPLE_RATE), round(after * SAMPLE_RATE)
    return np.pad(audio, (lead, tail))[loud[0] : loud[-1] + 1 + lead + tail]


def synthesized(
    book: list[str], excluded: Exclusion, count: int, draw: random.Random, tally: Tally
) -> Iterator[tuple[str, str, str, Audio]]:
    """Text, voice, language of the phonemes and speech of `count` sentences, less those that failed."""
    for start in range(0, count, BATCH):
        # One synthesizer after the other, so that the speed of each is known.
        requests = [
            (draw_sentence(book, excluded, draw), draw_voice(draw)) for _ in range(min(BATCH, count - start))
        ]
        by_synthesizer: dict[str, list[tuple[str, Voice]]] = {}
        for request in requests:
            by_synthesizer.setdefault(request[1].synthesizer, []).append(request)
        for name, group in by_synthesizer.items():
            spoken = [
                (with_accent(text, draw) if draw.random() < ACCENTED else text, voice)
                for text, voice in group
            ]
            with tempfile.TemporaryDirectory() as folder:
                begun = cpu_seconds()
                speech = speak_all(spoken, Path(folder))
                tally.computing[name] += cpu_seconds() - begun
            for (text, voice), audio in zip(group, speech, strict=True):
                if audio is None or (reason := refusal(audio, text)):
                    tally.refused[f"{name} {reason if audio is not None else 'failed'}"] += 1
                    continue
                tally.audio[name] += audio.size / SAMPLE_RATE
                speaker = voice.id
                if draw.random() < REVOICED:
                    change = draw_change(draw)
                    audio = revoice(audio, SAMPLE_RATE, change)
                    speaker = f"{speaker}-{change.id}"
                language = "en-gb" if voice.speaker.startswith("en-gb") else "en-us"
                yield text, speaker, language, trim(audio, draw.uniform(0, 0.25), draw.uniform(0.02, 0.3))


def revoiced(
    recordings: list[Utterance], draw: random.Random, tally: Tally
) -> Iterator[tuple[Utterance, str, Audio]]:
    """Each recording with its new voice."""
    for utterance in recordings:
        audio = read(utterance.audio, SAMPLE_RATE, start=utterance.start, duration=utterance.duration)
        change = draw_change(draw)
        begun = cpu_seconds()
        audio = revoice(audio, SAMPLE_RATE, change)
        tally.computing["world"] += cpu_seconds() - begun
        if reason := refusal(audio, utterance.text or ""):
            tally.refused[f"world {reason}"] += 1
            continue
        tally.audio["world"] += audio.size / SAMPLE_RATE
        yield utterance, change.id, audio


def distorted(audio: Audio, surroundings: Surroundings, draw: random.Random) -> Audio:
    """The speech, a part of it through rooms, noise, telephones and codecs."""
    return distort(audio, surroundings, draw) if draw.random() < DISTORTED else audio


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("books", type=Path, nargs="?")
    parser.add_argument("--revoice", type=Path, metavar="MANIFEST")
    parser.add_argument(
        "--noise", type=Path, metavar="FOLDER", help="noises, and room responses (*rir*), as FLAC"
    )
    add_shard_options(parser)
    options = parser.parse_args()
    if (options.books is None) == (options.revoice is None):
        raise AsrError("give either BOOKS, to speak sentences, or --revoice MANIFEST, to change recordings")
    symbols = read_inventory(options.out)
    surroundings = read_surroundings(options.noise)
    book, excluded, recordings = [], Exclusion([]), []
    if options.books:
        check_installed()
        excluded, book = read_excluded(options.out), read_lines(options.books)
    else:
        recordings = [u for u in read_manifest(options.revoice) if (u.duration or 0) > 1.0]

    for shard in new_shards(options, "made"):
        tally, begun = Tally(), time.monotonic()
        utterances: list[Utterance] = []
        if book:
            languages = []
            for text, voice, language, audio in synthesized(
                book, excluded, options.sentences, shard.draw, tally
            ):
                path = shard.path(len(utterances))
                seconds = write_speech(path, distorted(audio, surroundings, shard.draw), shard.draw)
                languages.append(language)
                utterances.append(Utterance(f"{shard.name}-{path.stem}", path, text, seconds, voice, "en"))
            utterances = with_phonemes(utterances, languages, symbols)
        else:
            chosen_recordings = shard.draw.sample(recordings, min(options.sentences, len(recordings)))
            for utterance, voice, audio in revoiced(chosen_recordings, shard.draw, tally):
                path = shard.path(len(utterances))
                seconds = write_speech(path, distorted(audio, surroundings, shard.draw), shard.draw)
                utterances.append(
                    replace(
                        utterance,
                        id=f"{shard.name}-{path.stem}",
                        audio=path,
                        duration=seconds,
                        start=0.0,
                        speaker=f"{utterance.speaker}-{voice}",
                    )
                )
        if not utterances:
            raise AsrError(f"{shard.name}: no sentence could be made ({tally}); try the synthesizers by hand")
        write_manifest(shard.manifest, utterances)
        print(
            f"{shard.manifest}: {len(utterances)} sentences, {tally}, {time.monotonic() - begun:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main()
    except (AsrError, OSError) as error:
        sys.exit(f"synthesize.py: error: {error}")
