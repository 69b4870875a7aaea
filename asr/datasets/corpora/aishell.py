"""AISHELL-1: read Mandarin (Bu et al. 2017; openslr.org/33).

data_aishell/transcript/aishell_transcript_v0.8.txt      lines of "id words with spaces between them"
data_aishell/wav/train/S0002/BAC009S0002W0122.wav
"""

from __future__ import annotations

from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, audio_below, match, read_lines, source_folder
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

_TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"


def read_aishell(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """Splits train, dev and test. The spaces between words are removed, because they are not spoken.

    `source` holds data_aishell/, or is that folder. Durations are not known yet. Raises AsrError for a
    missing transcript, and where the archives of the speakers were not unpacked.
    """
    root = source_folder(source, "data_aishell")
    if any((root / "wav").glob("*.tar.gz")) and not (root / "wav" / "train").is_dir():
        raise AsrError(
            f"{root / 'wav'}: the archives of the speakers are still packed; unpack them in this folder"
        )
    fields = [line.partition(" ") for line in read_lines(root / _TRANSCRIPT)]
    texts = [(identity, text) for identity, _, text in fields]
    found = {name: root / "wav" / name for name in ("train", "dev", "test")}
    splits: dict[str, list[Utterance]] = {}
    spoken: set[str] = set()
    for name, folder in found.items():
        recordings = audio_below(folder, bad, ".wav") if folder.is_dir() else {}
        if not recordings or not subsets.wants(name):
            continue
        spoken |= recordings.keys()
        own = [(identity, text) for identity, text in texts if identity in recordings]
        splits[name] = [
            Utterance(identity, path, "".join(text.split()), speaker=path.parent.name, lang="zh")
            for identity, text, path in match(own, recordings, root / _TRANSCRIPT, bad)
        ]
    if not subsets.names:
        missing = [identity for identity, _ in texts if identity not in spoken]
        bad += [f"{root / _TRANSCRIPT}: {identity}: a text without a recording" for identity in missing]
    return splits
