"""Sentences of books read by synthetic voices. A model learns spelling from these additional texts.

    python recipes/speechocean762/read_aloud.py TEXT OUT [--sentences N] [--exclude MANIFEST ...] [--seed N]

TEXT has one sentence on each line (plain, .gz or .xz). The voices are those of the digits recipe, by
espeak-ng and flite (Debian packages). flite's voices, made from human recordings, read half of the sentences.
Sentences in the manifests of `--exclude` are left out. OUT gets a manifest and one Opus file for each
sentence. Existing files are kept, so a run that was stopped can continue.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import soundfile

from asr.datasets.manifest import Utterance, read_manifest
from asr.datasets.text import OPENERS
from asr.errors import AsrError
from asr.files import atomic_write

sys.path.append(str(Path(__file__).resolve().parents[1] / "fsdd"))
from synthesize_digits import SAMPLE_RATE, VOICES, Voice, at_level, check_installed, finish, speak, trim

CHARACTERS = (12, 64)  # in a sentence; those of the corpus have 29 on average
FLITE = [Voice("flite", name) for name in ("awb", "rms", "slt")]


def read_aloud(number: int, sentence: str, seed: int, folder: Path) -> Utterance:
    """Synthesize one sentence with a random voice, speed, pitch and level. Returns its utterance."""
    draw = random.Random(f"{seed} {number}")
    voice = draw.choice(FLITE if draw.random() < 0.5 else VOICES)
    speed, pitch, level = draw.randint(100, 190), draw.uniform(0.75, 1.3), draw.uniform(-30, -18)
    # The name has a digest of seed and sentence, so a file of an earlier run is never mistaken for another.
    message = hashlib.sha256(f"{seed} {sentence}".encode()).hexdigest()[:8]
    path = folder / f"{number:06d}-{message}.ogg"
    if not path.exists():
        audio = speak(voice, sentence.lower(), speed, pitch, SAMPLE_RATE)
        audio = at_level(trim(audio, SAMPLE_RATE, draw.uniform(0, 0.3), draw.uniform(0, 0.3)), level)
        with atomic_write(path, "wb") as out:
            soundfile.write(out, audio, SAMPLE_RATE, format="OGG", subtype="OPUS")
    duration = soundfile.info(path).duration
    return Utterance(
        id=f"read-{number:06d}", audio=path, text=sentence.upper(), duration=duration, speaker=voice.id
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sentences", type=int, default=5000)
    parser.add_argument("--exclude", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    check_installed()
    known = {(u.text or "").upper() for path in options.exclude for u in read_manifest(path)}
    with OPENERS.get(options.text.suffix, open)(options.text, "rt", encoding="utf-8") as lines:
        sentences = [line.strip() for line in lines]
    low, high = CHARACTERS
    sentences = [s for s in sentences if low <= len(s) <= high and s.upper() not in known]
    random.Random(options.seed).shuffle(sentences)
    sentences = sentences[: options.sentences]

    options.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        count = len(sentences)
        jobs = pool.map(
            read_aloud, range(count), sentences, [options.seed] * count, [options.out] * count, chunksize=16
        )
        utterances = []
        for utterance in jobs:
            utterances.append(utterance)
            if len(utterances) % 500 == 0:
                print(f"{len(utterances)} of {count}", flush=True)
    finish(options.out, utterances)


if __name__ == "__main__":
    try:
        main()
    except (AsrError, OSError) as error:
        sys.exit(f"read_aloud.py: error: {error}")
