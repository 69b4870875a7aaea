"""speechocean762: English read by Mandarin speakers (Zhang et al. 2021; openslr.org/101).

speechocean762/train/wav.scp         Kaldi data directories train and test; spk2age and spk2gender
speechocean762/WAVE/SPEAKER0001/000010011.WAV
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.datasets.corpora.base import ALL, Subsets, read_lines, source_folder
from asr.datasets.corpora.kaldi import read_kaldi
from asr.datasets.manifest import Utterance
from asr.errors import AsrError


def read_speechocean762(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """The official splits train and test. Durations are not known yet.

    The text is the sentence to be read; mispronunciations are not marked in it. Raises AsrError where
    train or test is missing.
    """
    root = source_folder(source, "speechocean762")
    splits = {}
    for name in ("train", "test"):
        folder = root / name
        if not (folder / "wav.scp").exists():
            raise AsrError(f"{source}: no {name}/wav.scp in it; give the unpacked corpus")
        if subsets.wants(name):
            gender, age = (_table(folder / table) for table in ("spk2gender", "spk2age"))
            splits[name] = [_described(u, gender, age) for u in read_kaldi(folder, bad)["all"]]
    return splits


def _described(utterance: Utterance, gender: dict[str, str], age: dict[str, str]) -> Utterance:
    speaker = utterance.speaker or ""
    extra: dict[str, Any] = {"gender": gender[speaker]} if speaker in gender else {}
    if age.get(speaker, "").isdigit():
        extra["age"] = int(age[speaker])
    return replace(utterance, lang="en", extra=extra)


def _table(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    rows = [line.split(maxsplit=1) for line in read_lines(path)]
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}
