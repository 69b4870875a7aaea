"""Is the confidence of words what it says? Fit a calibration on one set, show the curve on another.

    python benchmarks/confidence.py MODEL DEV.jsonl TEST.jsonl --plot docs/confidence.png [--save] [--greedy]

MODEL is a folder. With --save the calibration is written to it. A word is right if the alignment with the
reference has it as a match. Needs matplotlib (the extra `plots`) for --plot.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein

from asr import default_options
from asr.datasets.manifest import read_manifest
from asr.errors import AsrError
from asr.model_folder import check_model_folder, load_model
from asr.transcription.calibration import Calibration
from asr.transcription.inputs import find_inputs
from asr.transcription.recognizer import Recognizer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("dev", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--greedy", action="store_true", help="not the default decoding of the model")
    args = parser.parse_args()
    folder = check_model_folder(args.model)
    options = default_options(folder, decoder="greedy" if args.greedy else None)
    recognizer = Recognizer(load_model(folder, "cpu"), options=options)  # without the folder's calibration
    calibration = Calibration.fit(*words_of(recognizer, args.dev))
    raw, right = words_of(recognizer, args.test)
    calibrated = np.array([calibration(each) for each in raw])
    print(f"{len(raw)} test words, {np.mean(right):.1%} right")
    curves = {"not calibrated": curve(np.array(raw), right), "calibrated": curve(calibrated, right)}
    for name, (confidence, was, counts) in curves.items():
        error = float(np.average(np.abs(confidence - was), weights=counts))
        print(f"{name}: expected calibration error {error:.3f}")
        for a, b, n in zip(confidence, was, counts, strict=True):
            print(f"  confidence {a:.2f}: {b:.2f} right ({n} words)")
    if args.plot:
        plot(curves, args.plot)
    if args.save:
        calibration.save(folder)


def words_of(recognizer: Recognizer, manifest: Path) -> tuple[list[float], list[bool]]:
    """The confidence of each word that was recognized, and whether it is right."""
    utterances = read_manifest(manifest)
    confidences, right = [], []
    inputs, problems = find_inputs([str(manifest)])
    if problems:
        raise problems[0]
    results = recognizer.transcribe_all(inputs)
    for utterance, result in zip(utterances, results, strict=True):
        if isinstance(result, AsrError):
            raise result
        words = result.words
        matched: set[int] = set()
        for edit in Levenshtein.opcodes([w.text for w in words], (utterance.text or "").lower().split()):
            if edit.tag == "equal":
                matched.update(range(edit.src_start, edit.src_end))
        confidences += [word.confidence for word in words]
        right += [i in matched for i in range(len(words))]
    return confidences, right


def curve(confidence: np.ndarray, right: list[bool]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, share of right words and number of words, in each tenth that has words."""
    tenth = np.minimum((confidence * 10).astype(int), 9)
    used = np.unique(tenth)
    was = np.array(right)
    groups = [tenth == each for each in used]
    means = np.array([confidence[group].mean() for group in groups])
    shares = np.array([was[group].mean() for group in groups])
    return means, shares, np.array([group.sum() for group in groups])


def plot(curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], path: Path) -> None:
    """Share of right words over confidence, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
    for name, (confidence, was, _) in curves.items():
        axes.plot(confidence, was, marker="o", label=name)
    axes.set(xlabel="confidence of a word", ylabel="share of right words", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"error: {error}")
