"""A Kaldi data directory: wav.scp, text, perhaps utt2spk and segments (kaldi-asr.org/doc/data_prep.html)."""

from __future__ import annotations

from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, numbered_lines
from asr.datasets.durations import find_audio
from asr.datasets.manifest import Utterance
from asr.errors import AsrError


def read_kaldi(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """One data directory as the split "all", or a folder of them with a split for each.

    Paths in wav.scp are tried from the data directory, from the two folders above it and from the current
    folder. Commands ("sph2pipe ... |") are never run. Without `segments` each recording is one utterance. An
    utterance without text or recording adds a line to `bad`. Durations are None unless `segments` gives them.
    Raises AsrError for a missing wav.scp or text, a command, or a line that cannot be parsed.
    """
    if (source / "wav.scp").exists():
        return {"all": _read(source, bad)} if subsets.wants("all") else {}
    folders = sorted(path.parent for path in source.glob("*/wav.scp"))
    if not folders:
        raise AsrError(f"{source}: no wav.scp in it or in a folder of it; give a Kaldi data directory")
    return {folder.name: _read(folder, bad) for folder in folders if subsets.wants(folder.name)}


def _read(folder: Path, bad: list[str]) -> list[Utterance]:
    wavs = _table(folder / "wav.scp")
    for number, (key, place) in enumerate(wavs.items(), 1):
        if place.endswith("|") or not place:
            raise AsrError(
                f"{folder / 'wav.scp'}, entry {number} ({key}): not a plain path; "
                "commands are not run: convert the audio to wav or flac and list those files"
            )
    texts = _table(folder / "text")
    speakers = _table(folder / "utt2spk", optional=True)
    segments = _table(folder / "segments", optional=True)
    parts = {key: _segment(folder, key, value) for key, value in segments.items()}
    parts = parts or {key: (key, 0.0, None) for key in wavs}
    bad += [f"{folder / 'text'}: {key}: no audio of this name; left out" for key in texts if key not in parts]
    utterances = []
    for key, (recording, start, seconds) in parts.items():
        if key not in texts or recording not in wavs:
            missing = "text" if key not in texts else "wav.scp"
            bad.append(f"{folder / missing}: no entry for {key}; add it, or leave out the audio")
            continue
        audio = find_audio(wavs[recording], folder)
        utterances.append(Utterance(key, audio, texts[key], seconds, speaker=speakers.get(key), start=start))
    return utterances


def _table(path: Path, optional: bool = False) -> dict[str, str]:
    """Lines of "key value" by their key. A missing optional file gives an empty table."""
    if optional and not path.exists():
        return {}
    table: dict[str, str] = {}
    for number, line in numbered_lines(path):
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key in table:
            raise AsrError(f"{path}, line {number}: duplicate key {key!r}; keep one")
        if key:
            table[key] = value.strip()
    return table


def _segment(folder: Path, key: str, value: str) -> tuple[str, float, float | None]:
    """(recording, start, duration) of one line of `segments`; an end of -1 is the recording's own."""
    try:
        recording, start, end = value.split()[:3]
        begin = float(start)
        seconds = None if end.startswith("-") else float(end) - begin
        if begin < 0 or (seconds is not None and not seconds > 0):
            raise ValueError
    except ValueError:
        raise AsrError(
            f"{folder / 'segments'}: {key}: {value!r} is not recording, start, end; correct the line"
        ) from None
    return recording, begin, seconds
