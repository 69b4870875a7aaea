"""Multilingual LibriSpeech: read books in eight languages (Pratap et al. 2020; openslr.org/94).

mls_german/metainfo.txt
mls_german/dev/transcripts.txt                           lines of "id, tab, text"
mls_german/dev/audio/10087/11650/10087_11650_000000.flac (.opus in the archives mls_german_opus)
"""

from __future__ import annotations

from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, audio_below, language_code, match, read_lines
from asr.datasets.manifest import Utterance
from asr.errors import AsrError


def read_mls(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """Splits train, dev and test of mls_<language>/. The folder above it gives german_train and so on.

    Durations are not known yet. Raises AsrError where there is no transcripts.txt.
    """
    if any(source.glob("*/transcripts.txt")):
        return _language(source, "", bad, subsets)
    folders = sorted(path for path in source.glob("mls_*") if any(path.glob("*/transcripts.txt")))
    if not folders:
        raise AsrError(f"{source}: no mls_<language>/dev/transcripts.txt in it; give the unpacked corpus")
    splits: dict[str, list[Utterance]] = {}
    for folder in folders:
        splits |= _language(folder, f"{_name(folder)}_", bad, subsets)
    return splits


def _name(folder: Path) -> str:
    return folder.resolve().name.removeprefix("mls_").removesuffix("_opus")


def _language(folder: Path, prefix: str, bad: list[str], subsets: Subsets) -> dict[str, list[Utterance]]:
    language, genders, splits = _name(folder), _genders(folder / "metainfo.txt"), {}
    for name in ("train", "dev", "test"):
        path = folder / name / "transcripts.txt"
        if not path.exists() or not subsets.wants(name, f"{prefix}{name}", language):
            continue
        fields = [line.partition("\t") for line in read_lines(path)]
        texts = [(identity, text.strip()) for identity, _, text in fields]
        utterances = []
        for identity, text, audio in match(texts, audio_below(folder / name / "audio", bad), path, bad):
            speaker = identity.partition("_")[0]
            extra = {"gender": genders[speaker]} if speaker in genders else {}
            utterances.append(
                Utterance(identity, audio, text, speaker=speaker, lang=language_code(language), extra=extra)
            )
        splits[f"{prefix}{name}"] = utterances
    return splits


def _genders(path: Path) -> dict[str, str]:
    """ "f" or "m" by speaker, from lines of "speaker | gender | ..."; empty without the file."""
    rows = [line.split("|") for line in read_lines(path)[1:]] if path.exists() else []
    return {row[0].strip(): row[1].strip().lower() for row in rows if len(row) > 1}
