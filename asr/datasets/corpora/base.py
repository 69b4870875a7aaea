"""What the readers of corpora share: subsets, text files, and the match of texts with recordings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from asr.audio import EXTENSIONS
from asr.errors import AsrError
from asr.files import files_below

_LANGUAGES = {
    "arabic": "ar", "bengali": "bn", "bulgarian": "bg", "cantonese": "yue", "catalan": "ca", "chinese": "zh",
    "croatian": "hr", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "estonian": "et",
    "finnish": "fi", "french": "fr", "german": "de", "greek": "el", "hebrew": "he", "hindi": "hi",
    "hungarian": "hu", "indonesian": "id", "irish": "ga", "italian": "it", "japanese": "ja", "korean": "ko",
    "latvian": "lv", "lithuanian": "lt", "mandarin": "zh", "norwegian": "no", "persian": "fa", "polish": "pl",
    "portuguese": "pt", "romanian": "ro", "russian": "ru", "slovak": "sk", "slovenian": "sl", "spanish": "es",
    "swahili": "sw", "swedish": "sv", "tamil": "ta", "telugu": "te", "thai": "th", "turkish": "tr",
    "ukrainian": "uk", "urdu": "ur", "vietnamese": "vi", "welsh": "cy",
}  # fmt: skip


def language_code(name: str | None) -> str | None:
    """The code of a language that is given by its English name; other names stay as they are."""
    return None if name is None else _LANGUAGES.get(name.strip().lower(), name)


class Subsets:
    """The subsets (splits or languages) that a user asks for; none means all."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = tuple(names)
        self._offered: dict[str, None] = {}

    def wants(self, *names: str) -> bool:
        """Whether a part of the corpus is asked for by any of its names."""
        self._offered.update(dict.fromkeys(names))
        return not self.names or any(name in self.names for name in names)

    def refuse_unknown(self, source: Path) -> None:
        """Raises AsrError for a name that no part of the corpus had."""
        unknown = [name for name in self.names if name not in self._offered]
        if unknown:
            raise AsrError(
                f"{source}: no subset {unknown[0]!r} there; it has {', '.join(self._offered) or 'none'}"
            )


ALL = Subsets()
LEFT_OUT = "left_out.txt"  # the list in OUT of what was left out; it is not the text of a recording


def source_folder(source: Path, *names: str) -> Path:
    """The folder of one of these names inside `source`, or `source` itself if it has none of them."""
    return next((source / name for name in names if (source / name).is_dir()), source)


def read_lines(path: Path) -> list[str]:
    """The lines of `numbered_lines` without their numbers."""
    return [line for _, line in numbered_lines(path)]


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Number (from 1) and text of the lines of `read_text` that are not blank. Raises AsrError as it does."""
    return [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark, with "\\n" at the end of each line.

    Raises AsrError for a file that cannot be read, and names the first line that is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AsrError(
            f"{path}: this file of the corpus cannot be read ({error.strerror}); check the path"
        ) from None
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AsrError(
            f"{path}, line {line}: not UTF-8 text (perhaps Latin-1); save it as UTF-8 (iconv -t utf-8)"
        ) from None


def audio_below(folder: Path, bad: list[str], *suffixes: str) -> dict[str, Path]:
    """The recordings in and below `folder` by name without suffix, hidden ones (`._a.wav`) excepted.

    Adds a line to `bad` for a second recording of a name.
    """
    selected = suffixes or EXTENSIONS
    found: dict[str, Path] = {}
    problems: list[AsrError] = []
    for path in files_below(folder, problems):
        if path.suffix.lower() not in selected or path.name.startswith("."):
            continue
        if (first := found.setdefault(path.stem, path)) != path:
            bad.append(f"{path}: a second recording of {path.stem}; {first} is kept")
    bad += map(str, problems)
    return found


def match(
    texts: Iterable[tuple[str, str]], recordings: dict[str, Path], where: Path, bad: list[str]
) -> Iterator[tuple[str, str, Path]]:
    """(id, text, recording) of each text that has a recording.

    Adds a line to `bad` for a text without a recording, a recording without a text, and an id that occurs
    again (its first text is kept).
    """
    seen: set[str] = set()
    for identity, text in texts:
        if identity in seen:
            bad.append(f"{where}: duplicate id {identity!r}; the first is kept")
        elif identity not in recordings:
            bad.append(f"{where}: {identity}: a text without a recording")
        else:
            yield identity, text, recordings[identity]
        seen.add(identity)
    for identity, path in recordings.items():
        if identity not in seen:
            bad.append(f"{path}: a recording without a text in {where.name}")
