"""Tar files in the layout of WebDataset (github.com/webdataset/webdataset), as other tools write them.

shards/000000.tar: a/42.flac, a/42.json, a/43.flac, a/43.txt, ...

The members whose paths are equal up to the first dot of the file's name are one utterance.
"""

from __future__ import annotations

import json
import math
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from asr.audio import EXTENSIONS
from asr.audio.archive import SUFFIX, members
from asr.datasets.corpora.base import ALL, Subsets, language_code
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_NAMES = {
    "text": ("text", "sentence", "transcript", "transcription"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "lang": ("lang", "language", "locale"),
}  # keys of JSON members
# Keys of a manifest's lines that are not read from a description, and one that `asr data shard` adds.
_DROPPED = ("audio", "audio_filepath", "start", "offset", "duration", "id", "phonemes", "copied_from")


def read_webdataset(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """One tar file, or all tar files of a folder, as the split "all".

    A folder of such folders gives a split for each.

    The text is that of a .txt or a .json member; speaker, language and duration are those of the .json, whose
    other keys are kept. Other members are ignored. The id is that of the .json, or the tar file and the
    common path. An utterance without a text, with a description that cannot be read, or with two recordings
    adds a line to `bad`. Raises AsrError where there is no tar file, and for a compressed or damaged one.
    """
    if not source.is_dir():
        return {"all": _read(source, bad)} if subsets.wants("all") else {}
    if any(source.glob("cuts.*.jsonl*")):
        raise AsrError(
            f"{source}: this is a Lhotse Shar, and its tar files have no texts; write its recordings to "
            "files "
            "first (CutSet.from_shar and save_audios in Python), and read those with `asr prepare lhotse`"
        )
    folders = {"all": source} if _tars(source) else {path.name: path for path in sorted(source.iterdir())}
    tars = {name: _tars(folder) for name, folder in folders.items()}
    if not any(tars.values()):
        raise AsrError(f"{source}: no tar file in it or in its folders; give a folder of shards")
    return {
        name: [utterance for tar in group for utterance in _read(tar, bad)]
        for name, group in tars.items()
        if group and subsets.wants(name)
    }


def _tars(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.endswith((SUFFIX, *_COMPRESSED)))


def _read(tar: Path, bad: list[str]) -> list[Utterance]:
    """The utterances of a tar file, in one pass, in the order of their first members."""
    recordings, texts = defaultdict[str, list[str]](list), dict[str, dict[str, Any]]()
    if tar.suffix != SUFFIX:
        raise AsrError(f"{tar}: compressed, so single members cannot be read; decompress it to a .tar file")
    try:
        with tarfile.open(tar, "r:") as archive:
            for name, member in members(archive):
                folder, _, base = name.rpartition("/")
                stem, _, kind = base.partition(".")
                key, kind = f"{folder}/{stem}".lstrip("/"), kind.lower()
                if not stem or not kind:
                    continue
                if f".{kind.rpartition('.')[2]}" in EXTENSIONS:
                    recordings[key].append(name)
                elif kind in ("txt", "json") and (file := archive.extractfile(member)):
                    _describe(texts.setdefault(key, {}), kind, file.read(), f"{tar / name}", bad)
    except OSError as error:
        raise AsrError(f"{tar}: cannot be read ({error.strerror}); check the path") from None
    except tarfile.TarError as error:
        raise AsrError(f"{tar}: damaged, compressed or not a tar file ({error}); copy it again") from None
    bad += [f"{tar}: {key}: a text without a recording" for key in texts if key not in recordings]
    utterances = []
    for key, names in recordings.items():
        found = texts.get(key, {})
        if len(names) > 1:
            bad.append(f"{tar}: {key}: {len(names)} recordings of one utterance ({', '.join(names)})")
        elif found.keys().isdisjoint(("text", "phonemes")):
            bad.append(f"{tar / names[0]}: a recording without a text")
        else:
            utterances.append(Utterance(**{"id": f"{tar.stem}/{key}"} | found, audio=tar / names[0]))
    return utterances


def _describe(found: dict[str, Any], kind: str, data: bytes, where: str, bad: list[str]) -> None:
    """Add to `found` what a .txt or .json member says about an utterance."""
    try:
        if kind == "txt":
            found["text"] = " ".join(data.decode("utf-8-sig").split())
            return
        record = json.loads(data)
    except ValueError as error:
        bad.append(f"{where}: not {'UTF-8 text' if kind == 'txt' else 'JSON'} ({error}); correct it")
        return
    if not isinstance(record, dict):
        return  # the label of a classifier, for example
    for field, names in _NAMES.items():
        value = next((record.pop(name) for name in names if isinstance(record.get(name), str)), None)
        if value is not None:
            found.setdefault(field, language_code(value) if field == "lang" else value)
    for field in ("id", "phonemes"):
        if isinstance(record.get(field), str):
            found[field] = record[field]
    if isinstance(seconds := record.get("duration"), int | float) and 0 < seconds < math.inf:
        found["duration"] = float(seconds)
    found["extra"] = {name: value for name, value in record.items() if name not in (*_DROPPED, *_NAMES)}
