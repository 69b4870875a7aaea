"""A folder of audio files, each beside a text file of the same name: a/b.wav and a/b.txt."""

from __future__ import annotations

from pathlib import Path

from asr.audio import EXTENSIONS
from asr.datasets.corpora.base import ALL, LEFT_OUT, Subsets
from asr.datasets.manifest import Utterance
from asr.errors import AsrError
from asr.files import files_below

_NOT_TEXTS = ("README", "LICENSE", "LICENCE", "COPYING", "CHANGES", LEFT_OUT)


def read_folder(source: Path, bad: list[str], subsets: Subsets = ALL) -> dict[str, list[Utterance]]:
    """All audio in and below `source` as one split "all"; ids are paths without their suffix.

    Audio without a readable text, and a text without audio, add a line to `bad`; durations are not known yet.
    Raises AsrError where there is no audio at all.
    """
    problems: list[AsrError] = []
    found = files_below(source, problems)
    paths = [path for path in found if path.name[0] != "."]  # "._a.wav" is macOS's own
    bad += map(str, problems)
    files = [path for path in paths if path.suffix.lower() in EXTENSIONS]
    if not files:
        raise AsrError(f"{source}: no audio in this folder; give one that holds {' '.join(EXTENSIONS)}")
    named = {path.with_suffix("") for path in files}
    texts = [path for path in paths if path.suffix == ".txt" and not path.name.startswith(_NOT_TEXTS)]
    bad += [f"{path}: a text without a recording" for path in texts if path.with_suffix("") not in named]
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
