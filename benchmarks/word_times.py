"""How exact are the times of words? Starts by forced alignment against known ones.

    python benchmarks/strings.py CORPORA/fsdd /tmp/strings --split test --count 150
    python benchmarks/word_times.py /tmp/strings [--model digits]

Only strings whose text is right are counted. Prints the share of word starts within 40, 80 and 120 ms, the
signed errors (positive: too late) for all words and for each one, and the constant that would bring most of
them within 80 ms.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from asr.datasets.manifest import read_manifest
from asr.transcription.inputs import Input
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Transcript


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("strings", type=Path)
    parser.add_argument("--model", default="digits")
    args = parser.parse_args()
    starts = json.loads((args.strings / "starts.json").read_text())
    utterances = read_manifest(args.strings / "manifest.jsonl")
    results = Recognizer(args.model, "cpu").transcribe_all(Input.of(u.audio, id=u.id) for u in utterances)
    errors: dict[str, list[float]] = {}
    right = 0
    for utterance, result in zip(utterances, results, strict=True):
        if isinstance(result, Transcript) and result.text == utterance.text:
            right += 1
            for word, start in zip(result.words, starts[utterance.id], strict=True):
                errors.setdefault(word.text, []).append(1000 * (word.start - start))
    if not right:
        sys.exit(f"error: none of the {len(utterances)} texts is right; choose another model with --model")
    every = np.concatenate([np.array(each) for each in errors.values()])
    print(f"{right} of {len(utterances)} texts are right, with {len(every)} words")
    within = ", ".join(f"{(np.abs(every) <= ms).mean():.1%} within {ms} ms" for ms in (40, 80, 120))
    print(f"starts: {within}")
    print(f"signed error in ms, all words: {summary(every)}")
    for text, values in sorted(errors.items()):
        print(f"  {text:12} {summary(np.array(values))}")
    offsets = np.arange(-200, 201, 5)
    shares = [(np.abs(every - offset) <= 80).mean() for offset in offsets]
    best = int(np.argmax(shares))
    print(f"with a constant of {-offsets[best]} ms added: {shares[best]:.1%} within 80 ms")


def summary(values: np.ndarray) -> str:
    parts = np.percentile(values, [5, 25, 50, 75, 95])
    return f"n {len(values)}  5 % {parts[0]:.0f}  25 % {parts[1]:.0f}  median {parts[2]:.0f}  " + (
        f"75 % {parts[3]:.0f}  95 % {parts[4]:.0f}"
    )


if __name__ == "__main__":
    main()
