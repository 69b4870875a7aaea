"""VoxPopuli, transcribed part: speeches of the European Parliament (Wang et al. 2021).

    transcribed_data/de/asr_dev.tsv       columns id, raw_text, normalized_text, speaker_id, split, gender
    transcribed_data/de/2017/20170313-0900-PLENARY-20-de_20170313-21:02:42_1.ogg

The project's own get_asr_data cuts the sessions and writes these files.
"""

from __future__ import annotations

from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, audio_below, match, read_lines, source_folder
from asr.datasets.manifest import Utterance
from asr.errors import AsrError


def read_voxpopuli(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """Splits train, dev and test of one language's folder. The folder above it gives de_train and so on.

    The text is the normalized one, and the original is kept as `raw_text`. Durations are not known yet.
    Raises AsrError where there is no asr_<split>.tsv, or where a column is missing.
    """
    root = source_folder(source, "transcribed_data")
    one = any(root.glob("asr_*.tsv"))
    folders = [root] if one else sorted(path for path in root.iterdir() if any(path.glob("asr_*.tsv")))
    if not folders:
        raise AsrError(f"{source}: no asr_train.tsv in a language's folder; run its get_asr_data first")
    splits: dict[str, list[Utterance]] = {}
    for folder in folders:
        prefix, language = ("" if one else f"{folder.name}_"), folder.resolve().name
        there = [name for name in ("train", "dev", "test") if (folder / f"asr_{name}.tsv").exists()]
        chosen = [name for name in there if subsets.wants(name, f"{prefix}{name}", language)]
        recordings = audio_below(folder, bad) if chosen else {}
        unused = dict(recordings)  # of no table
        for name in chosen:
            path = folder / f"asr_{name}.tsv"
            splits[f"{prefix}{name}"] = _read(path, recordings, unused, language, bad)
        if chosen == there:
            bad += [
                f"{path}: a recording without a text in the tables of {folder}" for path in unused.values()
            ]
    return splits


def _read(
    path: Path, recordings: dict[str, Path], unused: dict[str, Path], language: str, bad: list[str]
) -> list[Utterance]:
    """The utterances of one table, whose recordings are taken out of `unused`."""
    header, *lines = [line.split("\t") for line in read_lines(path)] or [[]]
    if missing := {"id", "raw_text", "normalized_text", "speaker_id"} - set(header):
        raise AsrError(f"{path}, line 1: no column {sorted(missing)[0]!r}; write the table with get_asr_data")
    rows = [dict(zip(header, fields, strict=False)) for fields in lines]
    by_id = {row["id"]: row for row in reversed(rows)}  # the first of each id
    texts = [(row["id"], row.get("normalized_text") or row.get("raw_text", "")) for row in rows]
    own = {identity: recordings[identity] for identity in by_id if identity in recordings}
    utterances = []
    for identity in own:
        unused.pop(identity, None)
    for identity, text, audio in match(texts, own, path, bad):
        row = by_id[identity]
        extra = {key: row[key] for key in ("raw_text", "gender") if row.get(key)}
        speaker = row.get("speaker_id")
        speaker = None if speaker in (None, "", "None") else speaker
        utterances.append(Utterance(identity, audio, text, speaker=speaker, lang=language, extra=extra))
    return utterances
