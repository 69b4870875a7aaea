"""Manifests for the speechocean762 recipe.

    python recipes/speechocean762/prepare.py TRAIN.jsonl TEST.jsonl OUT [--more MANIFEST ...]

TRAIN and TEST are the official splits, as `asr prepare` writes them. OUT/dev.jsonl has every twelfth speaker
of TRAIN, OUT/train.jsonl the others, and OUT/test.jsonl equals TEST. `--more` adds OUT/more.jsonl with other
recordings of read English. Their texts are converted to the spelling of the corpus (upper case and
apostrophe, no other signs). Texts with digits are left out, because it is not known how the digits were read.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

from asr.datasets.manifest import Utterance, read_manifest, write_manifest

DEV_SPEAKERS = 12  # one speaker in twelve is for validation


def spell(text: str) -> str:
    """The text in upper case, without signs except the apostrophe."""
    return " ".join(re.sub("[^A-Z']+", " ", text.upper().replace("\u2019", "'")).split())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    options = parser.parse_args()

    train = read_manifest(options.train)
    speakers = sorted({utterance.speaker or "" for utterance in train})
    held_out = set(speakers[::DEV_SPEAKERS])
    splits: dict[str, list[Utterance]] = {
        "train": [u for u in train if u.speaker not in held_out],
        "dev": [u for u in train if u.speaker in held_out],
        "test": read_manifest(options.test),
        "more": [
            replace(u, id=f"{path.parent.name}-{u.id}", text=spell(u.text or ""))
            for path in options.more
            for u in read_manifest(path)
            if not re.search(r"\d", u.text or "")
        ],
    }
    for name, utterances in splits.items():
        if utterances:
            write_manifest(options.out / f"{name}.jsonl", utterances)
            hours = sum(u.duration or 0.0 for u in utterances) / 3600
            print(f"{options.out / name}.jsonl: {len(utterances)} utterances, {hours:.2f} h")


if __name__ == "__main__":
    main()
