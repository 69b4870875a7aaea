"""Made speech for the English recipe, in shards of sentences that are each spoken by another voice.

    python recipes/english/synthesize.py OUT BOOKS [--shards 10] [--first 0] [--noise FOLDER] ...
    python recipes/english/synthesize.py OUT --revoice MANIFEST [--shards 10] [--first 200] ...

The first form speaks sentences of BOOKS (one on each line; plain, .gz or .xz) and everyday sentences. The
second changes the voices of the recordings in MANIFEST with WORLD. OUT is the folder that
`prepare_recordings.py` wrote: its phonemes.txt is the inventory, and no sentence of its dev-*.jsonl and
test-*.jsonl or of data/samples is spoken.

Shard N is the folder OUT/made-NNN with Opus files and the manifest OUT/made-NNN.jsonl, which is written when
the shard is complete. A shard that exists is skipped, so a run that was stopped continues with the next one.
Everything is drawn from the seed and the number of the shard.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from channel import Surroundings, distort, read_surroundings
from phonemes import phonemes, restrict
from sentences import draw_sentence
from text import Exclusion
from voices import SAMPLE_RATE, Audio, Voice, check_installed, draw_voice, speak_all
from world import draw_change, revoice

from asr.audio import read
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError

BATCH = 100  # sentences for one festival process
REVOICED = 0.12  # share of synthesized sentences that WORLD changes too
DISTORTED = 0.5  # share of files with rooms, noise, telephones, codecs
SECONDS = (0.25, 16.0)  # of a file; others are synthesizers' failures
CHARACTERS_A_SECOND = (1.0, 32.0)
OPUS_LEVEL = 0.92  # libsndfile's scale: 0 is 256 kbit/s, 1 is 6 kbit/s; this is about 26 kbit/s
SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "manifest.jsonl"
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


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


def refusal(audio: Audio | None, text: str) -> str:
    """Why synthesized speech cannot be used; empty for good speech."""
    if audio is None or not audio.size:
        return "failed"
    if not np.isfinite(audio).all() or np.abs(audio).max() < 1e-3:
        return "silent"
    seconds = audio.size / SAMPLE_RATE
    if not SECONDS[0] <= seconds <= SECONDS[1]:
        return "too short or too long"
    low, high = CHARACTERS_A_SECOND
    return "" if low <= len(text) / seconds <= high else "speech rate"


def trim(audio: Audio, before: float, after: float) -> Audio:
    """The speech (all within 40 dB of the peak) with so many seconds of quiet before and after it."""
    loud = np.flatnonzero(np.abs(audio) > 0.01 * np.abs(audio).max())
    lead, tail = round(before * SAMPLE_RATE), round(after * SAMPLE_RATE)
    return np.pad(audio, (lead, tail))[loud[0] : loud[-1] + 1 + lead + tail]


def at_level(audio: Audio, decibels: float) -> Audio:
    """The audio scaled to an RMS of so many dB below full scale, less where its peak would clip."""
    gain = 10 ** (decibels / 20) / max(float(np.sqrt((audio**2).mean())), 1e-9)
    return (audio * min(gain, 0.9 / max(float(np.abs(audio).max()), 1e-9))).astype(np.float32)


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
            with tempfile.TemporaryDirectory() as folder:
                begun = cpu_seconds()
                speech = speak_all(group, Path(folder))
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


def read_excluded(folder: Path) -> Exclusion:
    """The sentences of the development and test sets of a folder, and of data/samples."""
    held_out = sorted([*folder.glob("dev-*.jsonl"), *folder.glob("test-*.jsonl")])
    if not held_out:
        raise AsrError(f"{folder}: has no dev-*.jsonl and test-*.jsonl; run prepare_recordings.py first")
    held_out.append(SAMPLES)
    # Single digits of the digits' sets are everywhere; only sentences can be kept apart.
    return Exclusion(
        u.text for path in held_out for u in read_manifest(path) if u.text and len(u.text.split()) > 2
    )


def read_book(path: Path) -> list[str]:
    """The sentences of a text with one on each line: plain, .gz or .xz."""
    with OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
        return [line.strip() for line in lines if line.strip()]


def with_phonemes(utterances: list[Utterance], languages: list[str], symbols: str) -> list[Utterance]:
    """The utterances with the phones that espeak-ng gives their texts in these languages."""
    found = list(utterances)
    for language in set(languages):
        chosen = [i for i, of in enumerate(languages) if of == language]
        phones = phonemes([utterances[i].text or "" for i in chosen], language)
        for i, phone_symbols in zip(chosen, phones, strict=True):
            found[i] = replace(found[i], phonemes=restrict(phone_symbols, symbols))
    return found


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
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--sentences", type=int, default=1000, help="in a shard")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if (options.books is None) == (options.revoice is None):
        raise AsrError("give either BOOKS, to speak sentences, or --revoice MANIFEST, to change recordings")
    symbols = read_inventory(options.out)
    surroundings = read_surroundings(options.noise)
    book, excluded, recordings = [], Exclusion([]), []
    if options.books:
        check_installed()
        excluded, book = read_excluded(options.out), read_book(options.books)
    else:
        recordings = [u for u in read_manifest(options.revoice) if (u.duration or 0) > 1.0]

    for shard in range(options.first, options.first + options.shards):
        name = f"made-{shard:03d}"
        manifest = options.out / f"{name}.jsonl"
        if manifest.exists():
            print(f"{manifest}: exists; skipped", flush=True)
            continue
        (options.out / name).mkdir(parents=True, exist_ok=True)
        draw, tally, begun = random.Random(f"{options.seed} {shard}"), Tally(), time.monotonic()
        utterances: list[Utterance] = []

        def path(number: int, name: str = name) -> Path:
            return options.out / name / f"{number:04d}.ogg"

        if book:
            languages = []
            for text, voice, language, audio in synthesized(book, excluded, options.sentences, draw, tally):
                number = len(utterances)
                seconds = write_speech(path(number), distorted(audio, surroundings, draw), draw)
                languages.append(language)
                utterances.append(
                    Utterance(f"{name}-{number:04d}", path(number), text, seconds, speaker=voice, lang="en")
                )
            utterances = with_phonemes(utterances, languages, symbols)
        else:
            chosen_recordings = draw.sample(recordings, min(options.sentences, len(recordings)))
            for utterance, voice, audio in revoiced(chosen_recordings, draw, tally):
                number = len(utterances)
                seconds = write_speech(path(number), distorted(audio, surroundings, draw), draw)
                utterances.append(
                    replace(
                        utterance,
                        id=f"{name}-{number:04d}",
                        audio=path(number),
                        duration=seconds,
                        start=0.0,
                        speaker=f"{utterance.speaker}-{voice}",
                    )
                )
        if not utterances:
            raise AsrError(f"{name}: no sentence could be made ({tally}); try the synthesizers by hand")
        write_manifest(manifest, utterances)
        print(
            f"{manifest}: {len(utterances)} sentences, {tally}, {time.monotonic() - begun:.0f} s", flush=True
        )


if __name__ == "__main__":
    try:
        main()
    except (AsrError, OSError) as error:
        sys.exit(f"synthesize.py: error: {error}")
