"""TED-LIUM 3: English talks (Hernandez et al. 2018; openslr.org/51). soundfile reads its NIST sphere files.

    TEDLIUM_release-3/legacy/dev/stm/BlaiseAguerayArcas_2007.stm
    TEDLIUM_release-3/legacy/dev/sph/BlaiseAguerayArcas_2007.sph

The legacy splits have the dev and test talks of TED-LIUM 2, with which published results are scored.
"""

from __future__ import annotations

import re
from pathlib import Path

from asr.datasets.corpora.base import ALL, Subsets, audio_below, numbered_lines, source_folder
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

_IGNORED = "ignore_time_segment_in_scoring"
_MARKS = re.compile(r"<[^>]*>|\{[^}]*\}|\(\d+\)")  # <unk>, {NOISE}, and the number of a pronunciation


def read_tedlium(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """Splits train, dev and test. `source` holds TEDLIUM_release-3/, or is that folder.

    Marks such as <unk> and {NOISE} are removed, and clitics that stand alone are joined (it 's becomes it's).
    Raises AsrError where there is no legacy folder.
    """
    root = source_folder(source, "TEDLIUM_release-3") / "legacy"
    folders = [root / name for name in ("train", "dev", "test") if (root / name / "stm").is_dir()]
    if not folders:
        raise AsrError(f"{source}: no TEDLIUM_release-3/legacy/dev/stm in it; give the unpacked corpus")
    return {folder.name: _read(folder, bad) for folder in folders if subsets.wants(folder.name)}


def _read(folder: Path, bad: list[str]) -> list[Utterance]:
    recordings = audio_below(folder / "sph", bad, ".sph")
    tables = {path.stem: path for path in sorted((folder / "stm").glob("*.stm")) if path.name[0] != "."}
    lonely = [path for name, path in recordings.items() if name not in tables]
    bad += [f"{path}: a recording without an stm file" for path in lonely]
    utterances = []
    for path in tables.values():
        for number, line in numbered_lines(path):
            if line.startswith(";;"):
                continue
            utterance = _parse(line, recordings)
            if isinstance(utterance, str):
                bad.append(f"{path}, line {number}: {utterance}")
            elif utterance is not None:
                utterances.append(utterance)
    return utterances


def _parse(line: str, recordings: dict[str, Path]) -> Utterance | str | None:
    """The utterance of one line, what is wrong with it, or None for a part that is never scored."""
    fields = line.split(maxsplit=6)
    try:
        name, _, speaker, start, end, _ = fields[:6]
        begin, seconds = float(start), round(float(end) - float(start), 6)
    except ValueError:
        return f"not recording, channel, speaker, start, end, label, text: {line[:60]!r}"
    text = fields[6] if len(fields) > 6 else ""
    if text.strip() == _IGNORED:
        return None
    if begin < 0 or seconds <= 0:
        return f"impossible times {start} to {end}"
    if name not in recordings:
        return f"no recording {name}.sph"
    text = re.sub(r" '(?=\w)", "'", " ".join(_MARKS.sub(" ", text).split()))
    if not text:
        return f"no words in {line[:60]!r}"  # a model would learn an empty text as silence
    identity = f"{name}-{round(begin * 100):07}-{round((begin + seconds) * 100):07}"
    return Utterance(identity, recordings[name], text, seconds, speaker=speaker, lang="en", start=begin)
