"""Make the sentences of data/samples: each is spoken by another synthetic voice.

    python recipes/english/make_samples.py [OUT]

The texts and the voices were chosen before any model had transcribed them. `synthesize.py` does not speak
these sentences.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import soundfile
from shards import at_level
from synthesize import trim
from voices import SAMPLE_RATE, Voice, check_installed, speak_all

from asr.datasets.manifest import Utterance, write_manifest
from asr.errors import AsrError

SAMPLES = Path(__file__).parents[2] / "data" / "samples"
LEVEL = -22  # dB below full scale

TEXTS = {
    "bread": "please put the bread and the milk on the kitchen table",
    "garden": "the old man walked slowly through the garden to the gate",
    "letter": "she opened the letter and read it to her mother",
    "library": "we will meet in front of the library after lunch",
    "train": "the next train to the city leaves at ten minutes past nine",
    "weather": "it will be warm and sunny for the rest of the week",
}
VOICES = {
    "bread": Voice("flite", "slt", 0.95, 1.0, 1.0),
    "garden": Voice("hts", "slt", 0.9, 0.6, 0.92),
    "letter": Voice("hts", "slt", 1.0, 1.0, 1.0),
    "library": Voice("flite", "rms", 1.0, 1.0, 1.0),
    "train": Voice("flite", "awb", 0.95, 1.1, 1.04),
    "weather": Voice("espeak", "en-us+f3", 0.9, 1.0, 1.0),
}


def main() -> None:
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1]) if sys.argv[1:] else SAMPLES
    out.mkdir(parents=True, exist_ok=True)
    check_installed()
    with tempfile.TemporaryDirectory() as folder:
        speech = speak_all([(text, VOICES[name]) for name, text in TEXTS.items()], Path(folder))
    utterances = []
    for (name, text), samples in zip(TEXTS.items(), speech, strict=True):
        voice = VOICES[name]
        if samples is None:
            raise AsrError(f"{name}: {voice.synthesizer} gave no speech; run its command by hand")
        samples = at_level(trim(samples, 0.2, 0.3), LEVEL)
        path = out / f"{name}.flac"
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
        (out / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
        utterances.append(
            Utterance(name, path, text, round(len(samples) / SAMPLE_RATE, 3), speaker=voice.id, lang="en")
        )
    write_manifest(out / "manifest.jsonl", utterances)
    print(f"{out}: {len(utterances)} sentences, {sum(u.duration or 0 for u in utterances):.0f} s")


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"make_samples.py: error: {error}")
