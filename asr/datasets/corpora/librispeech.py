"""LibriSpeech and mini LibriSpeech (Panayotov et al. 2015; openslr.org/12 and openslr.org/31).

LibriSpeech/SPEAKERS.TXT
LibriSpeech/dev-clean/84/121123/84-121123.trans.txt      lines of "id TEXT"
LibriSpeech/dev-clean/84/121123/84-121123-0000.flac
"""

from __future__ import annotations

from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, audio_below, match, read_lines, source_folder
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

_PREFIXES = ("train-", "dev-", "test-")


def read_librispeech(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """A split for each subset's folder that is there. `source` holds LibriSpeech/, or is that folder.

    Durations are not known yet. Raises AsrError where there is no folder of a subset.
    """
    root = source_folder(source, "LibriSpeech")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name.startswith(_PREFIXES))
    if not folders:
        raise AsrError(f"{source}: no folder such as LibriSpeech/dev-clean in it; give the unpacked corpus")
    genders = _genders(root / "SPEAKERS.TXT")
    return {folder.name: _read(folder, genders, bad) for folder in folders if subsets.wants(folder.name)}


def _read(folder: Path, genders: dict[str, str], bad: list[str]) -> list[Utterance]:
    texts = []
    for path in sorted(folder.rglob("*.trans.txt")):
        for line in read_lines(path):
            identity, _, text = line.partition(" ")
            texts.append((identity, text))
    utterances = []
    for identity, text, path in match(texts, audio_below(folder, bad, ".flac"), folder, bad):
        speaker = identity.partition("-")[0]
        extra = {"gender": genders[speaker]} if speaker in genders else {}
        utterances.append(Utterance(identity, path, text, speaker=speaker, lang="en", extra=extra))
    return utterances


def _genders(path: Path) -> dict[str, str]:
    """ "f" or "m" by speaker, from lines of "id | sex | subset | minutes | name"; empty without the file."""
    if not path.exists():
        return {}
    rows = [[field.strip() for field in line.split("|")] for line in read_lines(path) if line[0] != ";"]
    return {row[0]: row[1].lower() for row in rows if len(row) > 1}
