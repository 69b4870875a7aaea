"""WER of trained models by the number of words: what one context vector loses as texts get longer.

    python recipes/fsdd/bottleneck.py RUN [RUN ...] --test MANIFEST [MANIFEST ...] [--plot FILE.png]

Every RUN is decoded greedily by its decoder alone (CTC has no part), and the utterances of the manifests are
grouped by the number of words of their text. The table has one row for each number of words and one column
for each run. `--plot` draws the same (extra `plots`).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from asr.datasets.manifest import Utterance, read_manifest
from asr.decoding import DecodingOptions
from asr.model_folder import load_model
from asr.scoring import Counts, score
from asr.transcription.recognizer import Recognizer

DECODER_ALONE = DecodingOptions(decoder="greedy", ctc_weight=0.0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="manifests")
    parser.add_argument("--plot", type=Path, help="draw the table into this image")
    options = parser.parse_args()
    utterances = [utterance for manifest in options.test for utterance in read_manifest(manifest)]
    found = {run.name: transcribe(run, utterances) for run in options.runs}
    rates = {name: wer_by_length(utterances, texts) for name, texts in found.items()}
    print(table(utterances, rates))
    if options.plot:
        draw(rates, options.plot)


def transcribe(run: Path, utterances: Sequence[Utterance]) -> list[str]:
    """The text of each utterance, by the decoder alone."""
    recognizer = Recognizer(load_model(run, "cpu"), options=DECODER_ALONE)
    return [transcript.text for transcript in recognizer.transcribe([str(u.audio) for u in utterances])]


def wer_by_length(utterances: Sequence[Utterance], texts: Sequence[str]) -> dict[int, float]:
    """The WER in % of the utterances with each number of words, in ascending order."""
    references = {utterance.id: utterance.text or "" for utterance in utterances}
    hypotheses = {utterance.id: text for utterance, text in zip(utterances, texts, strict=True)}
    counts: dict[int, Counts] = defaultdict(Counts)
    for each in score(references, hypotheses, unit="auto").utterances:
        counts[each.words.reference_length] += each.words
    return {length: 100 * counts[length].rate for length in sorted(counts)}


def table(utterances: Sequence[Utterance], rates: Mapping[str, Mapping[int, float]]) -> str:
    """A Markdown table of the WER in %."""
    sizes: dict[int, int] = defaultdict(int)
    for utterance in utterances:
        sizes[len((utterance.text or "").split())] += 1
    lines = [["words", "utterances", *rates], ["---"] * (2 + len(rates))]
    lines += [
        [str(length), str(sizes[length]), *(f"{rate[length]:.1f}" for rate in rates.values())]
        for length in sorted(sizes)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(rates: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """One line for each run: WER over the number of words."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="words in the text", ylabel="WER %, decoder alone")
    for name, rate in rates.items():
        axes.plot(list(rate), list(rate.values()), marker="o", label=name)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
