"""yesno: sixty recordings of eight Hebrew words, yes or no (openslr.org/1).

waves_yesno/0_0_1_0_1_1_0_1.wav      each figure is a word: 1 is yes ("ken"), 0 is no ("lo")
"""

from __future__ import annotations

import re
from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, audio_below, source_folder
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

_NAME = re.compile(r"[01](_[01]){7}")
_WORDS = {"0": "NO", "1": "YES"}


def read_yesno(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """Splits train and test: the first and the second half of the sorted names, as in Kaldi's recipe.

    A recording with another name adds a line to `bad`. Durations are not known yet. Raises AsrError where
    there is no recording.
    """
    root = source_folder(source, "waves_yesno", "audio")
    recordings = audio_below(root, bad)
    good = [name for name in sorted(recordings) if _NAME.fullmatch(name)]
    if not good:
        raise AsrError(f"{source}: no waves_yesno/0_1_0_1_0_1_0_1.wav in it; give the unpacked corpus")
    other = [path for name, path in recordings.items() if name not in good]
    bad += [f"{path}: its name is not eight figures 0 or 1" for path in other]
    splits = {"train": good[: len(good) // 2], "test": good[len(good) // 2 :]}
    return {
        split: [
            Utterance(
                name,
                recordings[name],
                " ".join(_WORDS[figure] for figure in name.split("_")),
                speaker="yesno",
                lang="he",
            )
            for name in names
        ]
        for split, names in splits.items()
        if subsets.wants(split)
    }
