"""A folder of audio files, each beside a text file of the same name: a/b.wav and a/b.txt."""

from __future__ import annotations

from pathlib import Path

from asr.audio import EXTENSIONS
from asr.datasets.corpora.base import ALL, Subsets
from asr.datasets.manifest import Utterance
from asr.errors import AsrError

_NOT_TEXTS = ("README", "LICENSE", "LICENCE", "COPYING", "CHANGES")


def read_folder(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """All audio in and below `source` as one split "all"; ids are paths without their suffix.

    Audio without a readable text adds a line to `bad`; durations are not known yet. Raises
    AsrError where there is no audio at all.
    """
    files = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")  # "._a.wav" is macOS's own
    )
    if not files:
        raise AsrError(f"{source}: no audio in this folder; give one that holds {' '.join(EXTENSIONS)}")
    named = {path.with_suffix("") for path in files}
    for path in sorted(source.rglob("*.txt")):
        lonely = path.with_suffix("") not in named and not path.name.startswith((".", *_NOT_TEXTS))
        if lonely and any(name.parent == path.parent for name in named):
            bad.append(f"{path}: a text without a recording")
    utterances = []
    for path in files:
        transcript = path.with_suffix(".txt")
        try:
            text = " ".join(transcript.read_text(encoding="utf-8-sig").split())
        except UnicodeDecodeError:
            bad.append(f"{transcript}: not UTF-8 text; save it as UTF-8")
        except OSError as error:
            bad.append(f"{path}: its text {transcript.name} cannot be read ({error.strerror}); add it")
        else:
            identity = path.relative_to(source).with_suffix("").as_posix()
            utterances.append(Utterance(identity, path, text))
    return {"all": utterances} if subsets.wants("all") else {}
