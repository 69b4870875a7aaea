"""LJSpeech 1.1: books read by one speaker (keithito.com/LJ-Speech-Dataset).

LJSpeech-1.1/metadata.csv                                lines of "id|text|text with numbers in words"
LJSpeech-1.1/wavs/LJ001-0001.wav
"""

from __future__ import annotations

from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, audio_below, match, numbered_lines, source_folder
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

# The corpus has no splits. Its fifty chapters (LJ001 to LJ050) are kept whole.
_HELD_OUT = {"LJ003": "test", "LJ049": "test", "LJ002": "dev", "LJ050": "dev"}


def read_ljspeech(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """Splits train, dev (chapters 2 and 50) and test (3 and 49).

    The text has its numbers in words, and the original is kept as `raw_text`. Durations are not known yet. A
    line without three fields adds a line to `bad`. Raises AsrError for a missing metadata.csv.
    """
    root = source_folder(source, "LJSpeech-1.1")
    path = root / "metadata.csv"
    texts: list[tuple[str, str]] = []
    raw: dict[str, str] = {}
    for number, line in numbered_lines(path):
        fields = line.split("|")
        if len(fields) != 3:
            bad.append(f"{path}, line {number}: {len(fields)} fields instead of 3")
            continue
        texts.append((fields[0], fields[2].strip()))
        raw.setdefault(fields[0], fields[1].strip())
    if not texts:
        raise AsrError(f"{path}: no line of id|text|text; give the unpacked corpus")
    splits: dict[str, list[Utterance]] = {}
    for identity, text, audio in match(texts, audio_below(root / "wavs", bad), path, bad):
        split = _HELD_OUT.get(identity.partition("-")[0], "train")
        if subsets.wants(split):
            utterance = Utterance(
                identity, audio, text, speaker="LJ", lang="en", extra={"raw_text": raw[identity]}
            )
            splits.setdefault(split, []).append(utterance)
    return splits
