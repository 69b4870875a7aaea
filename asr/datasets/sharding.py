"""Shards: tar files of recordings and their descriptions, for corpora of very many files.

OUT/000000.tar has, for each utterance, its recording and a JSON file of the same name (the layout of
WebDataset). OUT/manifest.jsonl names the recordings as `000000.tar/00000042.flac`, so every command reads
them as it reads other files. OUT/shards.json names the manifest that they were written from.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asr import audio
from asr.audio.archive import SUFFIX, read_member, tar_of
from asr.datasets.manifest import Utterance, read_manifest, to_record, write_manifest
from asr.datasets.normalization import split_records, write_records
from asr.errors import AsrError
from asr.files import atomic_write
from asr.threads import cores

SEED = 0  # of the order of the utterances


def write_shards(manifest: Path, out: Path, size: int = 1000, shuffle: bool = True) -> tuple[int, list[str]]:
    """Write the utterances of a manifest to shards of `size` utterances, and their manifest.

    A recording of one utterance is copied as it is; a part of a longer one is written as FLAC. With `shuffle`
    the utterances come in a random order, the same each time, so that a shard is a sample of the corpus.
    Shards that an earlier call completed are kept, if their recordings are still the same. Returns the number
    of utterances, and a line for each recording that cannot be read. Raises AsrError when none can, when the
    recordings are in OUT's shards, and when OUT has other tar files or the shards of another manifest.
    """
    from rich.console import Console
    from rich.progress import track

    utterances = read_manifest(manifest)
    if any(tar.parent.resolve() == out.resolve() for tar in {tar_of(u.audio) for u in utterances} if tar):
        # The shards would be replaced before all of their recordings are read.
        raise AsrError(f"{manifest}: its recordings are in shards in {out}; choose another folder")
    if manifest.resolve() == (out / "manifest.jsonl").resolve():
        raise AsrError(f"{manifest}: the manifest of the shards would replace it; choose another folder")
    _claim(out, manifest)
    if shuffle:
        utterances = [utterances[i] for i in np.random.default_rng(SEED).permutation(len(utterances))]
    parts = Counter(utterance.audio for utterance in utterances)
    console, bad, written = Console(stderr=True), list[str](), list[Utterance]()
    starts = track(
        range(0, len(utterances), size), "Writing shards", console=console, disable=not console.is_terminal
    )
    for number, start in enumerate(starts):
        path = out / f"{number:06}{SUFFIX}"
        written += _write_shard(path, start, utterances[start : start + size], parts, bad)
    for path in out.glob(f"[0-9][0-9][0-9][0-9][0-9][0-9]{SUFFIX}"):
        if int(path.stem) * size >= len(utterances):
            path.unlink()  # of an earlier call with smaller shards
    if not written:
        raise AsrError(f"{manifest}: no recording can be read; the first: {bad[0]}")
    write_manifest(out / "manifest.jsonl", written)
    if record := split_records(manifest.parent).get(manifest.stem):
        write_records(out, {"manifest": record})
    return len(written), bad


def _claim(out: Path, manifest: Path) -> None:
    """Record in OUT/shards.json which manifest its shards are written from, since they are replaced.

    Raises AsrError when OUT has the shards of another manifest, or tar files that no call has written.
    """
    path, source = out / "shards.json", str(manifest.resolve())
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))["manifest"]
    except FileNotFoundError:
        there = next((found for name in (f"*{SUFFIX}", "manifest.jsonl") for found in out.glob(name)), None)
        if there is not None:
            raise AsrError(f"{there}: not written by `asr data shard`; choose another folder") from None
        with atomic_write(path) as file:
            file.write(json.dumps({"manifest": source}, ensure_ascii=False) + "\n")
    except (OSError, ValueError, KeyError, TypeError):
        raise AsrError(f"{path}: not a record of `asr data shard`; choose another folder") from None
    else:
        if owner != source:
            raise AsrError(f"{out}: has the shards of {owner}; choose another folder, or delete this one")


def _write_shard(
    path: Path, first: int, group: Sequence[Utterance], parts: Counter[Path], bad: list[str]
) -> list[Utterance]:
    """The utterances of a shard, as they are in it."""

    def content(utterance: Utterance) -> tuple[str, bytes] | AsrError:
        try:
            return _content(utterance, parts[utterance.audio] == 1)
        except AsrError as error:
            return error

    found = _complete(path, first, group)
    if found:
        return found
    # It describes the shard that is replaced now. An interrupted call must not leave both.
    (path.parent / "manifest.jsonl").unlink(missing_ok=True)
    with (
        ThreadPoolExecutor(cores()) as pool,
        atomic_write(path, "wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        pairs = zip(group, pool.map(content, group), strict=True)
        for number, (utterance, data) in enumerate(pairs, first):
            if isinstance(data, AsrError):
                bad.append(str(data))
                continue
            key, (suffix, samples) = f"{number:08}", data
            found.append(replace(utterance, audio=path / f"{key}{suffix}", start=0.0))
            _add(tar, f"{key}{suffix}", samples)
            _add(tar, f"{key}.json", json.dumps(_description(utterance), ensure_ascii=False).encode())
    if not found:
        path.unlink()
    return found


def _content(utterance: Utterance, whole: bool) -> tuple[str, bytes]:
    """The suffix and the bytes of a recording. Raises AsrError when it cannot be read."""
    if whole and utterance.start == 0:
        audio.duration(utterance.audio)  # a file that is cut has an error here
        if tar_of(utterance.audio):
            return utterance.audio.suffix, read_member(utterance.audio)
        return utterance.audio.suffix.lower(), utterance.audio.read_bytes()
    rate = audio.sample_rate(utterance.audio)
    samples = audio.read(utterance.audio, rate, utterance.start, utterance.duration)
    out = io.BytesIO()
    soundfile.write(out, np.clip(samples, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return ".flac", out.getvalue()


def _complete(path: Path, first: int, group: Sequence[Utterance]) -> list[Utterance]:
    """The utterances of a shard that was written from the same ones; none if it must be written."""
    if not path.is_file():
        return []
    try:
        with tarfile.open(path, "r:") as tar:
            names = {Path(name).stem: name for name in tar.getnames() if not name.endswith(".json")}
            stored = {key: json.load(tar.extractfile(f"{key}.json")) for key in names}  # type: ignore[arg-type]
    except (tarfile.TarError, OSError, ValueError, KeyError):
        return []
    found = []
    for number, utterance in enumerate(group, first):
        key = f"{number:08}"
        if not _is_same(stored.get(key), _description(utterance)):
            return []  # a recording that could not be read in that call is tried again
        found.append(replace(utterance, audio=path / names[key], start=0.0))
    return found


def _description(utterance: Utterance) -> dict[str, Any]:
    """The description of an utterance in a shard: its line in a manifest, and the source of its samples."""
    record = {k: v for k, v in to_record(utterance, Path()).items() if k not in ("audio", "start")}
    source: dict[str, Any] = {"path": os.path.abspath(utterance.audio), "start": utterance.start}  # noqa: PTH100
    with suppress(OSError):
        status = (tar_of(utterance.audio) or utterance.audio).stat()
        source |= {"size": status.st_size, "modified": status.st_mtime_ns}
    return record | {"copied_from": source}


def _is_same(stored: dict[str, Any] | None, description: dict[str, Any]) -> bool:
    """Whether a shard has the data that would be written. A missing recording is compared by its path
    only."""
    if stored is None:
        return False
    known, source = stored.get("copied_from", {}), description["copied_from"]
    return stored | {"copied_from": {k: v for k, v in known.items() if k in source}} == description


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
