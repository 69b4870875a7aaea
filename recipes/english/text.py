"""Normalization of English text: lower-case letters, apostrophe and space."""

from __future__ import annotations

import gzip
import lzma
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from asr.datasets.manifest import read_manifest
from asr.errors import AsrError

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "manifest.jsonl"
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
ONES = _ONES.split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
TENS = _TENS.split()

# One or two digits that are no part of a longer number, a decimal, a time or a word such as "3d".
_NUMBER = re.compile(r"(?<![\w.,:])(?<!\w')(\d{1,2})(?![\w:]|[.,]\d)")
# Signs that are read aloud in more than one way. {} and [] enclose remarks that nobody reads.
_UNKNOWN_READING = re.compile(r"[\d#*@$%+=/<>^_{}\[\]~\\|]")
_ACRONYM = re.compile(r"\b[A-Z]{2,}\b")


def normalize(text: str, *, capitals: bool = False) -> str | None:
    """The words of `text` in lower case, or None when the text does not say how it was read.

    Numbers from 0 to 99 become words and "&" becomes "and". Other numbers and signs such as "#" or "*" have
    several readings: the result is None. Words in capitals ("PBX") may be spelled or spoken: the result is
    None too, unless `capitals` says that the whole corpus is written in capitals. Text without a letter
    gives None.
    """
    text = unicodedata.normalize("NFKD", text).replace("\u2019", "'").replace("\u2018", "'")
    text = "".join(character for character in text if not unicodedata.combining(character))
    if not capitals and _ACRONYM.search(text):
        return None
    text = _NUMBER.sub(lambda match: f" {number_words(int(match[1]))} ", text.replace("&", " and "))
    if _UNKNOWN_READING.search(text):
        return None
    text = re.sub("[^a-z']+", " ", text.lower())
    text = re.sub("(?<![a-z])'+|'+(?![a-z])", " ", text)  # quotation marks; an apostrophe is between letters
    return " ".join(text.split()) or None


def number_words(number: int) -> str:
    """The words of a number from 0 to 99."""
    if number < 20:
        return ONES[number]
    tens, ones = divmod(number, 10)
    return TENS[tens - 2] + (f" {ONES[ones]}" if ones else "")


class Exclusion:
    """Sentences of the test and development sets, which must not occur in other training text.

    A text is excluded when it equals one of the sentences, or contains `words` consecutive words of one.
    """

    def __init__(self, sentences: Iterable[str], words: int = 5) -> None:
        self.words = words
        self.sentences = set(sentences)
        self.sequences = {part for sentence in self.sentences for part in self._parts(sentence)}

    def __contains__(self, text: str) -> bool:
        return text in self.sentences or any(part in self.sequences for part in self._parts(text))

    def _parts(self, text: str) -> Iterable[tuple[str, ...]]:
        words = text.split()
        return (tuple(words[i : i + self.words]) for i in range(len(words) - self.words + 1))


def read_excluded(folder: Path) -> Exclusion:
    """The sentences of the development and test sets of a folder, and of data/samples."""
    held_out = sorted([*folder.glob("dev-*.jsonl"), *folder.glob("test-*.jsonl")])
    if not held_out:
        raise AsrError(f"{folder}: has no dev-*.jsonl and test-*.jsonl; run prepare_recordings.py first")
    held_out.append(SAMPLES)
    # Single digits of the digits' sets are everywhere; only sentences can be kept apart.
    return Exclusion(
        u.text for path in held_out for u in read_manifest(path) if u.text and len(u.text.split()) > 2
    )


def read_lines(path: Path) -> list[str]:
    """The lines of a text that are not empty: plain, .gz or .xz."""
    with _OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
        return [line.strip() for line in lines if line.strip()]
