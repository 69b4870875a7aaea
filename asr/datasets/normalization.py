"""Normalization of texts at preparation, by name. The names of `asr score --normalize` mean the same here.

What was done is recorded beside the manifests, in corpus.json, so that a score can say it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from asr.datasets.manifest import Utterance
from asr.errors import AsrError
from asr.scoring.normalize import NORMALIZATIONS, normalizer

STEPS = ("numbers", *NORMALIZATIONS[1:], "upper")

# Languages that write 1,000.5; the others here write 1.000,5.
_POINT = {"en", "zh", "ja", "ko", "th", "he", "hi", "bn", "cy", "ga", "ta", "te", "ur", "sw", "am"}
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(st|nd|rd|th)?(?![\w]|[.,]\d)")


def text_normalizer(names: str) -> Callable[[Utterance], str]:
    """The function of a list such as "numbers,basic": the normalized text of an utterance.

    numbers  figures in words of the utterance's language, by num2words, before anything else
    upper    upper case, after anything else
    case, basic, english  as in `asr score`; english is for English only

    Raises AsrError for an unknown name, and for a package that is not installed. The function raises AsrError
    for a language in which numbers cannot be spelled, or where an utterance has none.
    """
    chosen = [name.strip() for name in names.split(",")]
    if unknown := [name for name in chosen if name not in STEPS]:
        raise AsrError(f"--normalize {unknown[0]!r}: unknown; choose from {', '.join(STEPS)}")
    functions = [normalizer(name) for name in NORMALIZATIONS[1:] if name in chosen]
    if len(functions) > 1:
        raise AsrError(f"--normalize {names}: case, basic and english exclude each other; keep one")
    spell = number_speller() if "numbers" in chosen else None

    def normalize(utterance: Utterance) -> str:
        text = utterance.text or ""
        if spell is not None and any(map(str.isdigit, text)):
            if utterance.lang is None:
                raise AsrError(f"utterance {utterance.id!r}: its language is not known; give --lang")
            text = spell(text, utterance.lang)
        for function in functions:
            text = function(text) if function else text
        return " ".join((text.upper() if "upper" in chosen else text).split())

    return normalize


def number_speller() -> Callable[[str, str], str]:
    """A function (text, language) -> text with numbers in words.

    Long strings of figures, and those that begin with 0, are spelled figure by figure. Ordinals are known in
    English. Years are read as numbers. Raises AsrError where num2words is not installed.
    """
    try:
        from num2words import CONVERTER_CLASSES, num2words
    except ImportError:
        raise AsrError(
            "normalization 'numbers' needs the package num2words; pip install 'asr[normalize]'"
        ) from None

    def spell(text: str, lang: str) -> str:
        codes = lang.replace("-", "_"), re.split("[-_]", lang)[0]
        code = next((code for code in codes if code in CONVERTER_CLASSES), "")
        if not code:
            raise AsrError(f"numbers cannot be spelled in the language {lang!r}; leave `numbers` out")
        return _NUMBER.sub(lambda found: _words(found, code, num2words), text)

    return spell


def _words(found: re.Match[str], lang: str, num2words: Callable[..., str]) -> str:
    figures, ordinal = found[0].removesuffix(found[1] or ""), found[1]
    if ordinal and lang != "en":
        return found[0]
    point = lang.split("_")[0] in _POINT
    group, decimal = (",", ".") if point else (".", ",")
    if re.fullmatch(rf"\d{{1,3}}(\{group}\d{{3}})+(\{decimal}\d+)?", figures):
        figures = figures.replace(group, "")
    whole, separator, rest = figures.partition(decimal)
    if not (whole + rest).isdecimal() or (separator and not rest):
        parts = re.split("[.,]", figures)
        return " ".join(_words_of(part, lang, num2words) for part in parts)
    if ordinal:
        spoken = num2words(int(whole), lang=lang, to="ordinal")
    elif rest:
        spoken = num2words(float(f"{whole}.{rest}"), lang=lang)
    else:
        return _words_of(whole, lang, num2words)
    return _plain(spoken)


def _words_of(figures: str, lang: str, num2words: Callable[..., str]) -> str:
    if len(figures) > 1 and (figures[0] == "0" or len(figures) > 12):
        return " ".join(num2words(int(figure), lang=lang) for figure in figures)
    return _plain(num2words(int(figures), lang=lang))


def _plain(spoken: str) -> str:
    """Words without the hyphens and commas that some languages write in numbers."""
    return " ".join(spoken.replace("-", " ").replace(",", " ").split())


def normalize_splits(
    splits: dict[str, list[Utterance]], names: str, bad: list[str]
) -> dict[str, list[Utterance]]:
    """All utterances with normalized texts. One of whose text nothing is left goes to `bad`."""
    function = text_normalizer(names)
    done: dict[str, list[Utterance]] = {}
    for split, group in splits.items():
        done[split] = []
        for utterance in group:
            text = function(utterance)
            if utterance.text and utterance.text.strip() and not text:
                bad.append(f"utterance {utterance.id!r}: nothing is left of its text {utterance.text[:60]!r}")
            else:
                done[split].append(replace(utterance, text=text))
    return done


def recorded(manifest: Path) -> str:
    """The normalization that corpus.json beside a manifest records; empty for none."""
    try:
        record = json.loads((manifest.parent / "corpus.json").read_text(encoding="utf-8"))
        name = str(record["normalize"]) if manifest.stem in record["splits"] else "none"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return "" if name == "none" else name
