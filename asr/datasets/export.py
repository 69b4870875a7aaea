"""A manifest in the layouts of other toolkits: Kaldi, Lhotse, NVIDIA NeMo. Audio stays where it is."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile

from asr import audio
from asr.audio.archive import tar_of
from asr.datasets.manifest import Utterance, read_manifest
from asr.errors import AsrError
from asr.files import atomic_write

_ROUNDED = 0.1  # seconds by which a duration in a manifest may be less than that of its whole recording


def export_manifest(manifest: Path, out: Path, layout: str) -> int:
    """Write `manifest` to `out` as "kaldi", "lhotse" or "nemo". Returns the number of utterances.

    Raises AsrError for an utterance without a text or a duration, for ids and paths that the layout cannot
    hold, and for audio whose headers Lhotse needs and cannot be read.
    """
    if layout != "nemo" and out.is_file():
        raise AsrError(f"{out}: this is a file, but {layout} needs a folder; give another name")
    utterances = read_manifest(manifest)
    for utterance in utterances:
        if utterance.text is None or utterance.duration is None:
            missing = "text" if utterance.text is None else "duration"
            raise AsrError(
                f"{manifest}: utterance {utterance.id!r} has no {missing}, which {layout} needs; add it to "
                "the manifest"
            )
    {"kaldi": _kaldi, "lhotse": _lhotse, "nemo": _nemo}[layout](utterances, out)
    return len(utterances)


def _kaldi(utterances: list[Utterance], out: Path) -> None:
    """A data directory. Its files are sorted by key in the order of bytes, as Kaldi's tools ask for.

    They also need utt2spk to be sorted by speaker. So where the order of the ids does not follow that of the
    speakers, every id gets the name of its speaker as a prefix.
    """
    recordings: dict[Path, str] = {}
    whole = len({_path(u) for u in utterances}) == len(utterances) and all(map(_is_whole, utterances))
    by_id = [(u.speaker or u.id).encode() for u in sorted(utterances, key=lambda u: u.id.encode())]
    if by_id != sorted(by_id):
        utterances = [replace(u, id=f"{u.speaker}-{u.id}") if u.speaker else u for u in utterances]
    tables: dict[str, dict[str, str]] = {name: {} for name in ("wav.scp", "text", "utt2spk", "segments")}
    for utterance in utterances:
        if any(map(str.isspace, utterance.id)) or any(map(str.isspace, utterance.speaker or "")):
            raise AsrError(
                f"utterance {utterance.id!r}: ids and speakers must not have spaces in Kaldi; rename it"
            )
        path = _path(utterance)
        if path.endswith("|"):
            raise AsrError(f"{path}: Kaldi would run this path as a command; rename the file")
        recording = recordings.setdefault(Path(path), utterance.id if whole else f"rec-{len(recordings):08}")
        tables["wav.scp"][recording] = path
        tables["text"][utterance.id] = " ".join((utterance.text or "").split())
        tables["utt2spk"][utterance.id] = utterance.speaker or utterance.id
        end = utterance.start + (utterance.duration or 0.0)
        tables["segments"][utterance.id] = f"{recording} {utterance.start:.6f} {end:.6f}"
    if whole:
        del tables["segments"]
    (out / "segments").unlink(missing_ok=True)  # of an earlier call
    speakers: dict[str, str] = {}
    for key, speaker in sorted(tables["utt2spk"].items(), key=lambda item: item[0].encode()):
        speakers[speaker] = f"{speakers[speaker]} {key}" if speaker in speakers else key
    for name, table in (tables | {"spk2utt": speakers}).items():
        with atomic_write(out / name) as file:
            file.writelines(f"{key} {table[key]}\n" for key in sorted(table, key=str.encode))


def _lhotse(utterances: list[Utterance], out: Path) -> None:
    """recordings.jsonl.gz and supervisions.jsonl.gz, in Lhotse's own format; lhotse need not be installed."""
    names: dict[str, str] = {}
    recordings, supervisions = [], []
    for utterance in utterances:
        path = _path(utterance)
        if path not in names:
            names[path] = f"rec-{len(names):08}"
            recordings.append(_recording(names[path], path))
        supervision: dict[str, Any] = {
            "id": utterance.id,
            "recording_id": names[path],
            "start": utterance.start,
            "duration": utterance.duration,
            "channel": 0,
            "text": utterance.text,
        }
        supervision |= {"language": utterance.lang} if utterance.lang else {}
        supervision |= {"speaker": utterance.speaker} if utterance.speaker else {}
        supervisions.append(supervision | ({"custom": utterance.extra} if utterance.extra else {}))
    _write_gzip(out / "recordings.jsonl.gz", recordings)
    _write_gzip(out / "supervisions.jsonl.gz", supervisions)


def _recording(name: str, path: str) -> dict[str, Any]:
    try:
        info = soundfile.info(path)
    except (soundfile.SoundFileError, OSError) as error:
        raise AsrError(f"{path}: cannot be read ({error}); `asr data check` names all such files") from None
    channels = list(range(info.channels))
    return {
        "id": name,
        "sources": [{"type": "file", "channels": channels, "source": path}],
        "sampling_rate": info.samplerate,
        "num_samples": info.frames,
        "duration": info.frames / info.samplerate,
        "channel_ids": channels,
    }


def _write_gzip(path: Path, records: Iterable[dict[str, Any]]) -> None:
    with (
        atomic_write(path, "wb") as out,
        gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) as packed,
    ):
        for record in records:
            packed.write((json.dumps(record, ensure_ascii=False) + "\n").encode())


def _nemo(utterances: list[Utterance], out: Path) -> None:
    with atomic_write(out) as file:
        for utterance in utterances:
            record: dict[str, Any] = {"audio_filepath": _path(utterance), "duration": utterance.duration}
            record |= {"offset": utterance.start} if utterance.start else {}
            record |= {"text": utterance.text, "id": utterance.id}
            record |= {"speaker": utterance.speaker} if utterance.speaker else {}
            record |= {"lang": utterance.lang} if utterance.lang else {}
            record |= {"phonemes": utterance.phonemes} if utterance.phonemes else {}
            file.write(json.dumps(utterance.extra | record, ensure_ascii=False) + "\n")


def _is_whole(utterance: Utterance) -> bool:
    """Whether the utterance is its whole recording; segments of Kaldi need not be written then."""
    if utterance.start or utterance.duration is None:
        return False
    try:
        return audio.duration(utterance.audio) - utterance.duration < _ROUNDED
    except AsrError:
        return False


def _path(utterance: Utterance) -> str:
    if tar_of(utterance.audio):
        raise AsrError(
            f"{utterance.audio}: in a shard, which other toolkits cannot read; export "
            "the manifest of the unpacked corpus"
        )
    path = os.path.abspath(utterance.audio)  # noqa: PTH100  resolve() would follow links
    if "\n" in path:
        raise AsrError(f"{path!r}: a path with a line break cannot be written; rename the file")
    return path
