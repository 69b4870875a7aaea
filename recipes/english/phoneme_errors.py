"""Errors of the two CTC heads of a model: phonemes of the head inside the encoder, and characters at its end.

    python recipes/english/phoneme_errors.py MODEL MANIFEST ... [--first 250]

Both are decoded greedily. Sets of recordings that were in training, and of other speakers, show how much the
encoder has learned by heart.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jiwer
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.audio import read
from asr.datasets.manifest import Utterance, read_manifest
from asr.errors import AsrError
from asr.model.interfaces import PHONEMES
from asr.model_folder import Bundle, load_model

BATCH = 16  # utterances
BLANK = 0  # of the phoneme head


@dataclass
class Pairs:
    """References and hypotheses, one of each for every utterance."""

    references: list[str] = field(default_factory=list)
    hypotheses: list[str] = field(default_factory=list)

    def add(self, reference: str | None, hypothesis: str) -> None:
        """Add a pair; an utterance without a reference is left out."""
        if reference:
            self.references.append(reference)
            self.hypotheses.append(hypothesis)


def collapse(best: Tensor, blank: int) -> list[int]:
    """The labels of the best path (S,): repetitions merged, blanks removed."""
    return [label for label in best.unique_consecutive().tolist() if label != blank]


def decode_heads(bundle: Bundle[Any], utterances: list[Utterance]) -> Iterator[tuple[Utterance, str, str]]:
    """Each utterance with its phonemes and its text, as the heads predict them."""
    symbols, rate = bundle.config.train.phonemes.symbols, bundle.config.features.sample_rate
    utterances = sorted(utterances, key=lambda each: each.duration or 0.0)  # little padding
    for start in range(0, len(utterances), BATCH):
        batch = utterances[start : start + BATCH]
        audio = [torch.from_numpy(read(u.audio, rate, start=u.start, duration=u.duration)) for u in batch]
        lengths = torch.tensor([len(samples) for samples in audio])
        with torch.inference_mode():
            memory = bundle.network.encode(*bundle.features(pad_sequence(audio, batch_first=True), lengths))
            phonemes, phoneme_lengths = memory.intermediate[PHONEMES]
            characters = bundle.network.ctc(memory)
        for row, utterance in enumerate(batch):
            labels = collapse(phonemes[row, : phoneme_lengths[row]].argmax(-1), BLANK)
            tokens = collapse(characters[row, : memory.lengths[row]].argmax(-1), bundle.special.blank)
            text = bundle.tokenizer.decode(tokens)
            yield utterance, "".join(symbols[label - 1] for label in labels), text


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST")
    parser.add_argument("--first", type=int, help="the first utterances of each manifest; default: all")
    given = parser.parse_args()
    bundle = load_model(given.model, "cpu")
    if bundle.config.train.phonemes is None:
        raise AsrError(f"{given.model}: the model has no phoneme head")
    for manifest in given.manifests:
        phonemes, texts = Pairs(), Pairs()
        for utterance, labels, text in decode_heads(bundle, read_manifest(manifest)[: given.first]):
            phonemes.add(utterance.phonemes, labels)
            texts.add(utterance.text, text)
        line = f"{manifest}: {len(texts.references)} utterances"
        if phonemes.references:
            line += f", phoneme errors {jiwer.cer(phonemes.references, phonemes.hypotheses):.1%}"
        if texts.references:
            characters = jiwer.cer(texts.references, texts.hypotheses)
            words = jiwer.wer(texts.references, texts.hypotheses)
            line += f", CTC head: CER {characters:.1%}, WER {words:.1%}"
        print(line)


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"phoneme_errors.py: error: {error}")
