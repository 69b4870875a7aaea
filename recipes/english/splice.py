"""New sentences from the words of recordings, for the English recipe.

    python recipes/english/splice.py OUT BOOKS MANIFEST [--model english] [--shards 4] [--first 0] ...

The CTC head of the model finds the words of the recordings in MANIFEST. Parts of sentences of BOOKS, and
everyday sentences, whose words were all recorded in one corpus are then joined from these words: aligned data
augmentation (Lam et al. 2021, "On-the-fly aligned data augmentation for sequence-to-sequence ASR"). So real
voices speak texts that they never read, and the decoder cannot learn the texts of the recordings by heart.

OUT is the folder that `prepare_recordings.py` wrote. Shard N is OUT/spliced-NNN and OUT/spliced-NNN.jsonl, as
in `synthesize.py`: the same sentences are left out, and a shard that exists is skipped.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prepare_recordings import BRITISH
from sentences import draw_sentence
from shards import add_shard_options, new_shards, read_inventory, refusal, with_phonemes, write_speech
from text import Exclusion, read_excluded, read_lines
from voices import SAMPLE_RATE, Audio

from asr.audio import read
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.decoding.alignment import TokenSpan, ctc_align, states_needed
from asr.errors import AsrError
from asr.model.interfaces import HasCTC
from asr.model_folder import Bundle, load_bundle

BATCH_SECONDS = 120.0  # of audio that is aligned together
WORDS = (3, 16)  # of a spliced sentence
LONGEST_PIECE = 3  # words that were recorded one after the other and stay together, at most
VOCABULARY = 200  # a corpus with fewer words is not used; books have hardly a sentence of its words
MIN_PROBABILITY = 0.3  # of a word that is used: the geometric mean of the values of its characters
PAUSE = 0.15  # seconds of a pause that stay with the word before it, and with the word after it
SEARCH = 0.04  # seconds around the middle of a short gap in which the quietest place is the cut
FADE = 0.008  # seconds in which one piece fades into the next

CHILD = 14  # years; younger speakers are a group of their own
FAILURES = 10_000  # sentences in a row that cannot be made, before the books are given up

WordPosition = tuple[int, int]  # numbers of a recording and of a word in it


def read_utterance(utterance: Utterance, rate: int) -> Audio:
    """The samples of an utterance (samples,)."""
    return read(utterance.audio, rate, start=utterance.start, duration=utterance.duration)


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording and the samples in which its words are spoken."""

    utterance: Utterance
    words: tuple[str, ...]
    cuts: tuple[tuple[int, int], ...]  # first sample of each word, and the one after its last
    usable: tuple[bool, ...]  # for each word: CTC is sure of it

    @functools.cached_property
    def samples(self) -> Audio:
        """The whole recording (samples,), scaled to an RMS of 1. It stays in memory: 230 MB for an hour."""
        audio = read_utterance(self.utterance, SAMPLE_RATE)
        return audio / max(float(np.sqrt((audio**2).mean())), 1e-5)

    @property
    def corpus(self) -> str:
        return self.utterance.id.partition("-")[0]

    @property
    def group(self) -> tuple[object, ...]:
        """Speakers who can share a sentence: the same corpus, gender, and children or adults."""
        extra = self.utterance.extra
        age = extra.get("age")
        return self.corpus, extra.get("gender"), isinstance(age, int) and age < CHILD


@dataclass(frozen=True)
class Piece:
    """Consecutive words of one recording."""

    recording: Recording
    first: int
    count: int

    def audio(self) -> Audio:
        """Its samples, at the level that they have in the scaled recording."""
        (begin, _), (_, end) = (self.recording.cuts[i] for i in (self.first, self.first + self.count - 1))
        return self.recording.samples[begin:end]


class Words:
    """The words of recordings, and where each sequence of up to LONGEST_PIECE words was recorded."""

    def __init__(self, recordings: Iterable[Recording]) -> None:
        by_corpus = defaultdict(list)
        for recording in recordings:
            by_corpus[recording.corpus].append(recording)
        vocabularies = {
            corpus: {w for r in found for w, usable in zip(r.words, r.usable, strict=True) if usable}
            for corpus, found in by_corpus.items()
        }
        self.vocabularies = {name: words for name, words in vocabularies.items() if len(words) >= VOCABULARY}
        self.recordings = [r for name, found in by_corpus.items() if name in self.vocabularies for r in found]
        self.places: dict[tuple[object, ...], list[WordPosition]] = defaultdict(list)
        self.by_speaker: dict[str | None, list[Recording]] = defaultdict(list)
        for number, recording in enumerate(self.recordings):
            self.by_speaker[recording.utterance.speaker].append(recording)
            for first in range(len(recording.words)):
                for after in range(first + 1, min(first + LONGEST_PIECE, len(recording.words)) + 1):
                    if not all(recording.usable[first:after]):
                        break
                    sequence = recording.words[first:after]
                    for whose in (recording.group, recording.corpus):
                        self.places[whose, sequence].append((number, first))

    def __len__(self) -> int:
        return sum(sum(recording.usable) for recording in self.recordings)

    def draw_recording(self, draw: random.Random) -> Recording:
        """A recording whose group will speak. Half are drawn by speaker, so that few do not dominate."""
        if draw.random() < 0.5:
            return draw.choice(self.recordings)
        return draw.choice(self.by_speaker[draw.choice(list(self.by_speaker))])

    def longest_part(self, text: str, corpus: str) -> tuple[str, ...]:
        """The most consecutive words of a text that were all recorded in a corpus."""
        vocabulary = self.vocabularies[corpus]
        best: list[str] = []
        run: list[str] = []
        for word in text.split():
            run = [*run, word] if word in vocabulary else []
            best = run if len(run) > len(best) else best
        return tuple(best[: WORDS[1]])

    def choose(self, words: tuple[str, ...], group: tuple[object, ...], draw: random.Random) -> list[Piece]:
        """Pieces that say the words: of speakers of the group where it has them, else of its corpus."""
        pieces: list[Piece] = []
        first = 0
        while first < len(words):
            for count in range(min(draw.randint(1, LONGEST_PIECE), len(words) - first), 0, -1):
                sequence = words[first : first + count]
                found = self.places.get((group, sequence)) or self.places.get((group[0], sequence))
                if found:
                    number, position = draw.choice(found)
                    pieces.append(Piece(self.recordings[number], position, count))
                    break
            first += count
        return pieces


def align(bundle: Bundle[Any], utterances: list[Utterance]) -> Iterator[Recording]:
    """The recordings with the places of their words, in batches of similar length."""
    batch: list[Utterance] = []
    for utterance in sorted(utterances, key=lambda u: u.duration or 0.0):
        if batch and (len(batch) + 1) * (utterance.duration or 0.0) > BATCH_SECONDS:
            yield from _align_batch(bundle, batch)
            batch = []
        batch.append(utterance)
    if batch:
        yield from _align_batch(bundle, batch)


@torch.inference_mode()
def _align_batch(bundle: Bundle[Any], batch: list[Utterance]) -> Iterator[Recording]:
    network, rate = bundle.network, bundle.config.features.sample_rate
    waveforms = [torch.from_numpy(read_utterance(u, rate)) for u in batch]
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    memory = network.encode(*bundle.features(padded, torch.tensor([len(w) for w in waveforms])))
    texts = [bundle.tokenizer.encode(u.text or "") for u in batch]
    aligned = ctc_align(network.ctc(memory), memory.lengths, texts, bundle.special)
    seconds = network.frames_per_state * bundle.features.frame_seconds  # of a state
    for utterance, spans, text, states in zip(batch, aligned, texts, memory.lengths.tolist(), strict=True):
        if states_needed(text) <= states:
            yield located(utterance, spans, seconds, read_utterance(utterance, SAMPLE_RATE))


def located(utterance: Utterance, spans: list[TokenSpan], state_seconds: float, audio: Audio) -> Recording:
    """The recording with the samples of its words, from the states of its characters."""
    words = tuple((utterance.text or "").split())
    times, usable, at = [], [], 0
    for word in words:
        own = spans[at : at + len(word)]
        at += len(word) + 1
        times.append((own[0].start * state_seconds, own[-1].end * state_seconds))
        mean = np.exp(np.mean([np.log(max(span.probability, 1e-9)) for span in own]))
        usable.append(bool(mean >= MIN_PROBABILITY))
    energy = np.convolve(audio**2, np.ones(round(0.01 * SAMPLE_RATE)), "same")
    length = audio.size / SAMPLE_RATE
    begins, ends = [max(0.0, times[0][0] - PAUSE)], []
    for (_, end), (begin, _) in pairwise(times):
        if begin - end > 2 * PAUSE:
            ends.append(end + PAUSE)
            begins.append(begin - PAUSE)
        else:
            ends.append(quietest(energy, (end + begin) / 2))
            begins.append(ends[-1])
    ends.append(min(length, times[-1][1] + PAUSE))
    cuts = tuple(
        (round(begin * SAMPLE_RATE), round(end * SAMPLE_RATE))
        for begin, end in zip(begins, ends, strict=True)
    )
    return Recording(utterance, words, cuts, tuple(usable))


def quietest(energy: np.ndarray, around: float) -> float:
    """The time (seconds) of the lowest energy (samples,) within SEARCH of a time."""
    first = max(0, round((around - SEARCH) * SAMPLE_RATE))
    part = energy[first : round((around + SEARCH) * SAMPLE_RATE)]
    return (first + int(part.argmin())) / SAMPLE_RATE if part.size else around


def splice(pieces: list[Piece]) -> Audio:
    """The pieces one after the other, faded into each other."""
    fade = round(FADE * SAMPLE_RATE)
    joined = pieces[0].audio()
    for piece in pieces[1:]:
        audio = piece.audio()
        size = min(fade, joined.size, audio.size)
        rising = np.linspace(0, 1, size, dtype=np.float32)
        both = joined[joined.size - size :] * (1 - rising) + audio[:size] * rising
        joined = np.concatenate([joined[: joined.size - size], both, audio[size:]])
    return joined


def spliced(
    words: Words, book: list[str], excluded: Exclusion, count: int, draw: random.Random
) -> Iterator[tuple[str, Recording, Audio]]:
    """Text, a recording of the group that speaks it, and speech, of `count` sentences."""
    made = failures = 0
    while made < count:
        if failures == FAILURES:
            raise AsrError(
                f"{FAILURES} sentences in a row do not have {WORDS[0]} consecutive words that were recorded; "
                "use other books, or more recordings"
            )
        failures += 1
        recording = words.draw_recording(draw)
        part = words.longest_part(draw_sentence(book, excluded, draw), recording.corpus)
        text = " ".join(part)
        if len(part) < WORDS[0] or text in excluded:
            continue
        audio = splice(words.choose(part, recording.group, draw))
        if not refusal(audio, text):
            made, failures = made + 1, 0
            yield text, recording, audio


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("books", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="english", help="a model with a CTC head, to find the words")
    add_shard_options(parser)
    options = parser.parse_args()
    symbols, excluded = read_inventory(options.out), read_excluded(options.out)
    book = read_lines(options.books)
    bundle = load_bundle(options.model, "cpu")
    if not isinstance(bundle.network, HasCTC):
        raise AsrError(f"{options.model}: the model has no CTC head, which finds the words; use another one")
    words = Words(align(bundle, [u for u in read_manifest(options.manifest) if u.text]))
    if not words.recordings:
        raise AsrError(f"{options.manifest}: no corpus has {VOCABULARY} different words that CTC is sure of")
    print(f"{len(words)} words of {', '.join(sorted(words.vocabularies))}", flush=True)
    for shard in new_shards(options, "spliced"):
        begun = time.monotonic()
        utterances: list[Utterance] = []
        languages: list[str] = []
        for text, recording, audio in spliced(words, book, excluded, options.sentences, shard.draw):
            path = shard.path(len(utterances))
            seconds = write_speech(path, audio, shard.draw)
            speaker = "-".join(map(str, recording.group))
            utterances.append(Utterance(f"{shard.name}-{path.stem}", path, text, seconds, speaker, lang="en"))
            languages.append("en-gb" if recording.corpus in BRITISH else "en-us")
        write_manifest(shard.manifest, with_phonemes(utterances, languages, symbols))
        hours = sum(u.duration or 0.0 for u in utterances) / 3600
        print(
            f"{shard.manifest}: {len(utterances)} sentences, {hours:.2f} h, {time.monotonic() - begun:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main()
    except (AsrError, OSError) as error:
        sys.exit(f"splice.py: error: {error}")
