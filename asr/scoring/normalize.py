"""Normalization of texts before they are compared. Each kind has a name, which is shown in reports.

Other changes that a user can ask for are here too: a mapping of words and a list of words to drop.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

from asr.errors import AsrError

NORMALIZATIONS = ("none", "case", "basic", "english")

_APOSTROPHES = str.maketrans("’ʼ＇`´", "'" * 5)


def normalizer(name: str) -> Callable[[str], str] | None:
    """The function of a normalization; None for "none".

    case     Unicode case folding; NIST's alternatives `{ a / b }` are kept
    basic    Unicode NFKC, case folding, and punctuation and symbols become spaces; apostrophes and hyphens
             within a word are kept (don't, zero-based), and so are combining marks, which Hindi and Thai need
    english  the normalizer of Whisper (Radford et al. 2022, appendix C): numbers, contractions, British
             spelling, fillers; from the package whisper-normalizer, which the extra `normalize` installs

    Raises AsrError for an unknown name, and for "english" if its package is not installed.
    """
    match name:
        case "none":
            return None
        case "case":
            return str.casefold
        case "basic":
            return basic
        case "english":
            try:
                from whisper_normalizer.english import EnglishTextNormalizer
            except ImportError:
                raise AsrError(
                    "normalization 'english' needs the package whisper-normalizer; "
                    "pip install whisper-normalizer, or choose basic"
                ) from None
            english: Callable[[str], str] = EnglishTextNormalizer()
            return english
    raise AsrError(f"unknown normalization {name!r}; choose one of {', '.join(NORMALIZATIONS)}")


def basic(text: str) -> str:
    """Text with one case and one Unicode form, without punctuation; single spaces separate the words."""
    # Case folding can produce text that is not in NFKC form, hence the second NFKC.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = folded.translate(_APOSTROPHES)
    if folded.isascii() and folded.replace(" ", "").isalnum():
        return " ".join(folded.split())
    in_word = [unicodedata.category(char)[0] in "LMN" for char in folded]  # letters, marks and numbers
    kept = [
        char if own or (char in "'-" and before and after) else " "
        for char, own, before, after in zip(
            folded, in_word, [False, *in_word], [*in_word[1:], False], strict=False
        )
    ]
    return " ".join("".join(kept).split())


def word_mapper(
    rules: Mapping[str, str], change: Callable[[str], str] | None = None, nothing: str = ""
) -> Callable[[str], str]:
    """A function that replaces whole words or phrases of a text.

    At each place the longest key of `rules` wins, and replacements are not replaced again. Keys and values go
    through `change` first, the normalization of the texts. A value that is then empty becomes `nothing`.
    """
    changed = {}
    for old, new in rules.items():
        key, value = (" ".join((change(side) if change else side).split()) for side in (old, new))
        if not key:
            raise AsrError(f"the normalization removes the whole mapped word {old!r}; delete its rule")
        changed[key] = value or nothing
    if not changed:
        return lambda text: text
    longest_first = sorted(changed, key=lambda key: (-len(key.split()), -len(key)))
    # A key's spaces match any white space; it must begin and end where words do.
    keys = "|".join(r"\s+".join(map(re.escape, key.split())) for key in longest_first)
    pattern = re.compile(rf"(?<!\S)(?:{keys})(?!\S)")
    return lambda text: pattern.sub(lambda found: changed[" ".join(found[0].split())], text)


def read_mapping(content: str, path: Path) -> dict[str, str]:
    """Rules of a mapping file: `old => new` on each line; an empty `new` drops `old`.

    `;` or `#` at the start of a line begins a comment. Square brackets around a side, as in NIST's GLM files,
    are ignored, and so is what follows a `/` after a bracket (NIST's contexts).
    """
    rules: dict[str, str] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith((";", "#", "*")):
            continue
        old, arrow, new = line.partition("=>")
        if not arrow or not old.strip():
            raise AsrError(f"{path}, line {number}: no `old => new` in {line.strip()[:60]!r}")
        old, new = _side(old), _side(new)
        if rules.setdefault(old, new) != new:
            raise AsrError(f"{path}, line {number}: duplicate rule for {old!r}; delete one")
    if not rules:
        raise AsrError(f"{path}: no rules; write `old => new` on each line")
    return rules


def read_words(content: str, path: Path) -> dict[str, str]:
    """Rules that drop the words of a list: one word or phrase on each line, `;` or `#` begins a comment."""
    lines = (line.strip() for line in content.splitlines())
    words = {" ".join(line.split()): "" for line in lines if line and not line.startswith((";", "#"))}
    if not words:
        raise AsrError(f"{path}: no words; write one word or phrase on each line")
    return words


def _side(text: str) -> str:
    text = text.strip()
    if found := re.match(r"\[([^\]]*)\]\s*(?:/.*)?$", text):
        text = found[1]
    return " ".join(text.split())
