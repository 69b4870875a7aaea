"""Normalisation of texts before they are compared, by name, so that a report can say which it was."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from asr.errors import AsrError

NORMALISATIONS = ("none", "case", "basic", "english")

_APOSTROPHES = str.maketrans("’ʼ＇`´", "'" * 5)


def normaliser(name: str) -> Callable[[str], str] | None:
    """The function of a normalisation; None for "none".

    case     upper and lower case are one (Unicode case folding); NIST's marks `{ a / b }` stay
    basic    Unicode NFKC, case folding, and punctuation and symbols become spaces; apostrophes and hyphens
             within a word stay (don't, zero-based), and so do combining marks: Hindi and Thai need them
    english  OpenAI's for Whisper (Radford et al. 2022, appendix C): numbers, contractions, British
             spelling, fillers; the package whisper-normalizer, which the extra `asr[normalise]` installs

    Raises AsrError for another name, and for "english" where its package is not installed.
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
                    "normalisation 'english' needs the package whisper-normalizer; "
                    "pip install 'asr[normalise]', or choose basic"
                ) from None
            english: Callable[[str], str] = EnglishTextNormalizer()
            return english
    raise AsrError(f"{name!r} is no normalisation; choose one of {', '.join(NORMALISATIONS)}")


def basic(text: str) -> str:
    """Text with case, punctuation and Unicode form made one; words are separated by single spaces."""
    # Folding can undo the form (NFKC of a fold is not always a fold of NFKC), hence once more after it.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = folded.translate(_APOSTROPHES)
    if folded.isascii() and folded.replace(" ", "").isalnum():
        return " ".join(folded.split())
    kept = []
    for i, char in enumerate(folded):
        inside = char in "'-" and folded[i - 1 : i].isalnum() and folded[i + 1 : i + 2].isalnum()
        kept.append(char if inside or unicodedata.category(char)[0] in "LMN" else " ")
    return " ".join("".join(kept).split())
