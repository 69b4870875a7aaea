"""FLEURS: the same 2,000 sentences read in 102 languages (Conneau et al. 2022).

    de_de/dev.tsv      id, file, raw transcription, transcription, characters, samples, gender; no header
    de_de/audio/dev/10013088679463413474.wav

Several speakers read each sentence, and the files do not say who they are.
"""

from __future__ import annotations

from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, audio_below, match, numbered_lines
from asr.datasets.manifest import Utterance
from asr.errors import AsrError


def read_fleurs(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """Splits train, dev and test of one language's folder. The folder above it gives de_de_train and so on.

    The text is FLEURS's normalized one, and the original is kept as `raw_text`. Durations are not known yet.
    Raises AsrError where there is no table.
    """
    if (source / "audio").is_dir():
        return _language(source, "", bad, subsets)
    folders = sorted(path.parent for path in source.glob("*/audio") if any(path.parent.glob("*.tsv")))
    if not folders:
        raise AsrError(
            f"{source}: this folder has no folder such as de_de that has dev.tsv and "
            "audio/; unpack the corpus"
        )
    splits: dict[str, list[Utterance]] = {}
    for folder in folders:
        splits |= _language(folder, f"{folder.name}_", bad, subsets)
    return splits


def _language(folder: Path, prefix: str, bad: list[str], subsets: Subsets) -> dict[str, list[Utterance]]:
    language, splits = folder.resolve().name, {}
    for name in ("train", "dev", "test"):
        path = folder / f"{name}.tsv"
        if path.exists() and subsets.wants(name, f"{prefix}{name}", language):
            splits[f"{prefix}{name}"] = _read(path, folder / "audio" / name, language, bad)
    return splits


def _read(path: Path, folder: Path, language: str, bad: list[str]) -> list[Utterance]:
    rows: dict[str, list[str]] = {}
    texts = []
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        if len(fields) < 7:
            bad.append(f"{path}, line {number}: {len(fields)} fields instead of 7")
            continue
        identity = Path(fields[1]).stem
        rows.setdefault(identity, fields)
        texts.append((identity, fields[3]))
    utterances = []
    for identity, text, audio in match(texts, audio_below(folder, bad, ".wav"), path, bad):
        fields = rows[identity]
        extra = {"sentence": fields[0], "raw_text": fields[2], "gender": fields[6].strip().lower()}
        lang = language.partition("_")[0]
        utterances.append(Utterance(identity, audio, text, lang=lang, extra=extra))
    return utterances
