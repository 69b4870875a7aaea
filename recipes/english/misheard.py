"""Sentences with phonemes as the phoneme head of a model predicts them, for training on text without audio.

    python recipes/english/misheard.py OUT BOOKS MANIFEST... [--model english] [--sentences 100000]

The head of the model reads the recordings in MANIFEST. Its phonemes, aligned with the true ones, say which
phonemes it takes for which others, misses and adds. Each sentence then gets the phonemes of espeak-ng with
such errors, at a rate of its own. OUT is the folder that `prepare_recordings.py` wrote, and gets
misheard.jsonl, for `train.text_injection`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import jiwer
import torch
from phonemes import phonemes_of_words, restrict
from sentences import draw_sentence
from shards import read_inventory
from text import read_excluded, read_lines

from asr.audio import read
from asr.datasets.manifest import Utterance, read_manifest
from asr.errors import AsrError
from asr.files import atomic_write
from asr.model.interfaces import PHONEMES
from asr.model_folder import load_bundle

RATE = (0.0, 0.6)  # share of the phonemes of a sentence that have an error
BATCH = 16  # recordings that the model reads together
RECORDINGS = 3000  # of all manifests, at most
MISSED = ""  # takes the place of a missed phoneme


class Confusions:
    """How often each phoneme is taken for each other one, or missed, and which phonemes are added."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Pairs of true and recognized phonemes, one character for each phoneme."""
        self.substitutes: dict[str, Counter[str]] = defaultdict(Counter)
        self.added: Counter[str] = Counter()
        true, recognized = zip(*pairs, strict=True)
        for reference, hypothesis, chunks in zip(
            true, recognized, jiwer.process_characters(list(true), list(recognized)).alignments, strict=True
        ):
            for chunk in chunks:
                before = reference[chunk.ref_start_idx : chunk.ref_end_idx]
                after = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
                if chunk.type == "insert":
                    self.added.update(after)
                elif chunk.type == "delete":
                    self._count(before, [MISSED] * len(before))
                elif chunk.type == "substitute":
                    self._count(before, after)
        errors = sum(sum(counts.values()) for counts in self.substitutes.values())
        self.added_share = sum(self.added.values()) / max(1, errors + sum(self.added.values()))

    def _count(self, before: Iterable[str], after: Iterable[str]) -> None:
        for symbol, substitute in zip(before, after, strict=True):
            self.substitutes[symbol][substitute] += 1

    def with_errors(self, phonemes: str, rate: float, draw: random.Random) -> str:
        """The phonemes with errors at this rate. Spaces stay."""
        changed = []
        for symbol in phonemes:
            if symbol == " " or draw.random() >= rate:
                changed.append(symbol)
            elif self.added and draw.random() < self.added_share:
                changed.append(symbol + draw.choices(list(self.added), list(self.added.values()))[0])
            elif counts := self.substitutes.get(symbol):
                changed.append(draw.choices(list(counts), list(counts.values()))[0])
            else:  # a phoneme that was always recognized, or that the recordings do not have
                changed.append(symbol)
        return "".join(changed)


@torch.inference_mode()
def recognize(model: str, utterances: list[Utterance], symbols: str) -> Iterable[tuple[str, str]]:
    """True phonemes and those that the head of the model predicts, of each recording."""
    bundle = load_bundle(model, "cpu")
    rate = bundle.config.features.sample_rate
    for first in range(0, len(utterances), BATCH):
        batch = utterances[first : first + BATCH]
        waveforms = [torch.from_numpy(read(u.audio, rate, start=u.start, duration=u.duration)) for u in batch]
        padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        memory = bundle.network.encode(*bundle.features(padded, torch.tensor([len(w) for w in waveforms])))
        if PHONEMES not in memory.intermediate:
            raise AsrError(f"{model}: the model has no phoneme head; use another one")
        logits, lengths = memory.intermediate[PHONEMES]
        if logits.size(2) != len(symbols) + 1:
            raise AsrError(
                f"{model}: the phoneme head has {logits.size(2) - 1} phonemes, but phonemes.txt has "
                f"{len(symbols)}; use the phonemes.txt of this model's training"
            )
        for utterance, row, length in zip(batch, logits.argmax(-1), lengths.tolist(), strict=True):
            ids = torch.unique_consecutive(row[:length]).tolist()
            yield utterance.phonemes or "", "".join(symbols[id - 1] for id in ids if id)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("books", type=Path)
    parser.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST")
    parser.add_argument("--model", default="english", help="a model with a phoneme head")
    parser.add_argument("--sentences", type=int, default=100_000)
    options = parser.parse_args()
    symbols, excluded = read_inventory(options.out), read_excluded(options.out)
    book, draw = read_lines(options.books), random.Random("misheard")
    utterances = [u for path in options.manifests for u in read_manifest(path) if u.phonemes]
    if not utterances:
        raise AsrError(f"{options.manifests[0]}: no utterance has phonemes; name manifests of {options.out}")
    draw.shuffle(utterances)
    chosen = sorted(utterances[:RECORDINGS], key=lambda u: u.duration or 0.0)
    confusions = Confusions(recognize(options.model, chosen, symbols))
    texts = [draw_sentence(book, excluded, draw) for _ in range(options.sentences)]
    path = options.out / "misheard.jsonl"
    with atomic_write(path) as file:
        for text, words in zip(texts, phonemes_of_words(texts), strict=True):
            known = " ".join(filter(None, (restrict(word, symbols) for word in words)))
            changed = confusions.with_errors(known, draw.uniform(*RATE), draw)
            print(json.dumps({"text": text, "phonemes": changed}, ensure_ascii=False), file=file)
    print(f"{path}: {len(texts)} sentences")


if __name__ == "__main__":
    try:
        main()
    except (AsrError, OSError) as error:
        sys.exit(f"misheard.py: error: {error}")
