"""Measure the effect of hot words on rare words and on the other words.

    python benchmarks/hot_words.py TEST.jsonl --distractors TRAIN.jsonl [--model DIR] [--bonus 0.6 ...]

The hot words are the rare words of the test texts (at least four letters, at most two occurrences there and
ten in the training texts) and, as distractors, `--count` equally rare words of the training texts that do not
occur in the test texts. For beam search without hot words and with each bonus, the script prints the share of
rare words that were missed, and the errors on the other words (with all insertions) in percent of these.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

from asr.datasets.manifest import read_manifest
from asr.decoding import DecodingOptions
from asr.errors import AsrError
from asr.model_folder import load_model
from asr.scoring import score
from asr.transcription.inputs import find_inputs
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Transcript


def rare_words(test: Path, training: Path, words: int | None, count: int) -> tuple[list[str], list[str]]:
    """The rare words of the test texts, and the distractors."""
    in_test, in_training = (
        Counter(w for u in read_manifest(path) for w in (u.text or "").split()) for path in (test, training)
    )
    rare = sorted(w for w, n in in_test.items() if n <= 2 and len(w) >= 4 and in_training[w] <= 10)
    others = sorted(w for w, n in in_training.items() if n <= 10 and len(w) >= 4 and w not in in_test)
    random.Random(0).shuffle(others)
    random.Random(0).shuffle(rare)
    return rare[:words], others[:count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("test", type=Path)
    parser.add_argument("--distractors", type=Path, required=True)
    parser.add_argument("--words", type=int, help="number of rare words, drawn at random; default: all")
    parser.add_argument("--count", type=int, default=100, help="number of distractors")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--beam", type=int, default=10)
    parser.add_argument("--bonus", type=float, nargs="+", default=[0.3, 0.6, 0.9])
    options = parser.parse_args()
    rare, others = rare_words(options.test, options.distractors, options.words, options.count)
    print(f"{len(rare)} rare words, {len(others)} distractors")
    bundle = load_model(options.model, options.device)
    references = {u.id: u.text or "" for u in read_manifest(options.test)}
    inputs, unreadable = find_inputs([str(options.test)])
    if unreadable:
        raise unreadable[0]
    for bonus in (0.0, *options.bonus):
        how = DecodingOptions(
            decoder="beam", beam=options.beam, hot_words=(*rare, *others), hot_word_bonus=bonus
        )
        results = Recognizer(bundle, options=how).transcribe_all(inputs)
        texts = {r.id: r.text for r in results if isinstance(r, Transcript)}
        found = score(references, texts)
        edits = [edit for utterance in found.utterances for edit in utterance.alignment]
        tally = Counter((ref in rare, kind) for kind, ref, _ in edits)
        hot, rest = (
            sum(n for (is_hot, kind), n in tally.items() if is_hot is which) for which in (True, False)
        )
        inserted = tally[False, "insert"]
        missed = 1 - tally[True, "equal"] / max(1, hot)
        wrong = (rest - tally[False, "equal"]) / max(1, rest - inserted)
        print(
            f"bonus {bonus:.1f}: missed {missed:.1%} of {hot} rare words, errors on others {wrong:.1%}, "
            f"WER {found.wer:.1%}",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"error: {error}")
