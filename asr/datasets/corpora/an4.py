"""AN4: the alphabet, numbers and commands, recorded at Carnegie Mellon in 1991 (Acero 1993).

an4/etc/an4_train.fileids            an4_clstk/fash/an251-fash-b
an4/etc/an4_train.transcription      <s> YES </s> (an251-fash-b)
an4/wav/an4_clstk/fash/an251-fash-b.sph
"""

from __future__ import annotations

import re
from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, audio_below, match, numbered_lines, source_folder
from asr.datasets.manifest import Utterance

_LINE = re.compile(r"(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\(([^()]+)\)\s*")
_FOLDERS = {"train": "an4_clstk", "test": "an4test_clstk"}


def read_an4(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """Splits train and test of the archive with sphere files. Durations are not known yet.

    A line that cannot be parsed adds a line to `bad`. Raises AsrError for a missing transcription.
    """
    root = source_folder(source, "an4")
    splits = {}
    for name, folder in _FOLDERS.items():
        if not subsets.wants(name):
            continue
        path = root / "etc" / f"an4_{name}.transcription"
        texts = []
        for number, line in numbered_lines(path):
            if found := _LINE.fullmatch(line):
                texts.append((found[2], found[1]))
            else:
                bad.append(f"{path}, line {number}: not <s> TEXT </s> (id): {line[:60]!r}")
        recordings = audio_below(root / "wav" / folder, bad)
        splits[name] = [
            Utterance(identity, audio, text, speaker=audio.parent.name, lang="en")
            for identity, text, audio in match(texts, recordings, path, bad)
        ]
    return splits
