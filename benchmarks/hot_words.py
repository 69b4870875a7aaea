"""What hot words do to rare words, and to the others.

    python benchmarks/hot_words.py TEST.jsonl --distractors TRAIN.jsonl [--model DIR] [--bonus 0.6 ...]

The hot words are those of the test texts with four letters or more that occur once or twice in them and at
most ten times in the training texts, and `--count` other words, as rare, of the training texts that the test
texts do not have. Printed for beam search without them and with each bonus: the share of rare words that were
missed, and the errors on the others (with all insertions) in percent of the others.
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
    """The rare words of the test texts, and distractors."""
    here, there = (
        Counter(w for u in read_manifest(path) for w in (u.text or "").split()) for path in (test, training)
    )
    rare = sorted(w for w, n in here.items() if n <= 2 and len(w) >= 4 and there[w] <= 10)
    others = sorted(w for w, n in there.items() if n <= 10 and len(w) >= 4 and w not in here)
    random.Random(0).shuffle(others)
    random.Random(0).shuffle(rare)
    return rare[:words], others[:count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("test", type=Path)
    parser.add_argument("--distractors", type=Path, required=True)
    parser.add_argument("--words", type=int, help="rare words, drawn by chance; all if not given")
    parser.add_argument("--count", type=int, default=100, help="distractors")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--beam", type=int, default=10)
    parser.add_argument("--bonus", type=float, nargs="+", default=[0.3, 0.6, 0.9])
    options = parser.parse_args()
    rare, others = rare_words(options.test, options.distractors, options.words, options.count)
    print(f"{len(rare)} rare words, {len(others)} distractors")
    bundle = load_model(options.model, options.device)
    references = {u.id: u.text or "" for u in read_manifest(options.test)}
    for bonus in (0.0, *options.bonus):
        how = DecodingOptions(
            decoder="beam", beam=options.beam, hot_words=(*rare, *others), hot_word_bonus=bonus
        )
        results = Recognizer(bundle, options=how).transcribe_all(find_inputs([str(options.test)]))
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
