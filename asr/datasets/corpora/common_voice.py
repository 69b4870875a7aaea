"""Common Voice (Ardila et al. 2020; commonvoice.mozilla.org).

cv-corpus-21.0-2025-03-14/cy/train.tsv                   also dev.tsv, test.tsv and others
cv-corpus-21.0-2025-03-14/cy/clips/common_voice_cy_17299435.mp3
"""

from __future__ import annotations

from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets
from asr.datasets.corpora.tsv import read_table
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

_OFFICIAL = ("train", "dev", "test")


def read_common_voice(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """Splits train, dev and test of one language's folder.

    The folder above it gives cy_train, cy_dev and so on.

    `--subset validated` (or other, invalidated) reads that table instead. Durations are not known yet. Raises
    AsrError where no folder has tables.
    """
    if _is_language(source):
        return _language(source, "", bad, subsets)
    releases = [path for path in sorted(source.glob("cv-corpus-*")) if path.is_dir()]
    if len(releases) > 1:
        names = ", ".join(path.name for path in releases)
        raise AsrError(
            f"{source}: this folder has {len(releases)} releases ({names}); give the folder of one release"
        )
    above = releases[0] if releases else source
    languages = [path for path in sorted(above.iterdir()) if _is_language(path)]
    if not languages:
        raise AsrError(
            f"{source}: no train.tsv and clips/ in this folder or in the folders in it; "
            "give the folder of a language"
        )
    splits: dict[str, list[Utterance]] = {}
    for folder in languages:
        splits |= _language(folder, f"{folder.name}_", bad, subsets)
    return splits


def _is_language(folder: Path) -> bool:
    return (folder / "clips").is_dir() and any((folder / f"{name}.tsv").exists() for name in _OFFICIAL)


def _language(folder: Path, prefix: str, bad: list[str], subsets: Subsets) -> dict[str, list[Utterance]]:
    tables = {name: folder / f"{name}.tsv" for name in (*_OFFICIAL, "validated", "other", "invalidated")}
    splits = {}
    for name, path in tables.items():
        names = (name, f"{prefix}{name}") + ((folder.name,) if name in _OFFICIAL and prefix else ())
        asked = name in _OFFICIAL or not {name, f"{prefix}{name}"}.isdisjoint(subsets.names)
        if path.exists() and asked and subsets.wants(*names):
            splits[f"{prefix}{name}"] = read_table(path, bad, lang=folder.name)
    return splits
