"""Manifests for the speechocean762 recipe.

    python recipes/speechocean762/prepare.py TRAIN.jsonl TEST.jsonl OUT [--more MANIFEST ...]

TRAIN and TEST are the corpus's own splits, as `asr prepare` writes them. Every twelfth speaker of TRAIN
becomes OUT/dev.jsonl, the others OUT/train.jsonl; OUT/test.jsonl is TEST as it is. `--more` takes other
recordings of read English, whose texts are brought to the corpus's spelling (capitals, apostrophe, no other
signs): OUT/more.jsonl. Texts with digits are left out of it: they do not say how they were read.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

from asr.datasets.manifest import Utterance, read_manifest, write_manifest

DEV_SPEAKERS = 12  # one in so many


def spell(text: str) -> str:
    """The text in capitals, without signs other than the apostrophe."""
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
