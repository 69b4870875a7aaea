"""Figures in words, by num2words (github.com/savoirfairelinux/num2words)."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache

from asr.errors import AsrError

# Languages that write 1,000.5; the others here write 1.000,5.
_POINT = {"en", "zh", "ja", "ko", "th", "he", "hi", "bn", "cy", "ga", "ta", "te", "ur", "sw"}
# Languages that write 1 000,5 with a plain space. A space that does not break is read so in every language.
_SPACED = {"fr", "ru", "uk", "be", "pl", "cs", "sk", "lt", "lv", "fi", "sv", "no", "hu"}
_UNBROKEN = "\u00a0\u202f"
_BROKEN = {"am"}  # num2words 0.5 has errors above 1998, and never ends at 1,234,567
# Thai, Lao, Burmese, Khmer, Japanese, Chinese: scripts in which a number follows a word without a space.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff"


def number_speller() -> Callable[[str, str], str]:
    """A function (text, language) -> text with numbers in words.

    Long strings of figures, and those that begin with 0, are spelled figure by figure. Ordinals are known in
    English. Years are read as numbers. Figures that are part of a word (B2B, 5km) stay, and so do numbers
    that num2words cannot spell. Raises AsrError where num2words is not installed.
    """
    try:
        from num2words import CONVERTER_CLASSES, num2words
    except ImportError:
        raise AsrError("normalization 'numbers' needs the package num2words; pip install num2words") from None

    def spell(text: str, lang: str) -> str:
        codes = lang.replace("-", "_"), re.split("[-_]", lang)[0]
        code = next((code for code in codes if code in CONVERTER_CLASSES.keys() - _BROKEN), "")
        if not code:
            raise AsrError(f"numbers cannot be spelled in the language {lang!r}; leave `numbers` out")
        return _number(codes[1] in _SPACED).sub(lambda found: _spell(found, code, num2words), text)

    return spell


@cache
def _number(spaced: bool) -> re.Pattern[str]:
    """A number with its groups and decimals, and the ending of an English ordinal."""
    letter, space = rf"[^\W{_UNSPACED}]", f"[{_UNBROKEN}{' ' if spaced else ''}]"
    figures = rf"(?:[1-9]\d{{0,2}}(?:{space}\d{{3}})++(?!\d)|\d++)(?:[.,]\d++)*+"
    return re.compile(rf"(?<!{letter})(?<![\d.,]){figures}(st|nd|rd|th)?(?!{letter}|[.,]?\d)")


def _spell(found: re.Match[str], lang: str, num2words: Callable[..., str]) -> str:
    """The words of a number, or the number itself where num2words fails, each language in its own way."""
    try:
        return _words(found, lang, num2words) or found[0]
    except (ArithmeticError, LookupError, TypeError, ValueError, NotImplementedError):
        return found[0]


def _words(found: re.Match[str], lang: str, num2words: Callable[..., str]) -> str:
    figures, ordinal = re.sub(rf"[ {_UNBROKEN}]", "", found[0].removesuffix(found[1] or "")), found[1]
    if ordinal and lang != "en":
        return found[0]
    group, decimal = (",", ".") if lang.split("_")[0] in _POINT else (".", ",")
    if re.fullmatch(rf"\d{{1,3}}(\{group}\d{{3}})+(\{decimal}\d+)?", figures):
        figures = figures.replace(group, "")
    whole, separator, rest = figures.partition(decimal)
    if not (whole + rest).isdecimal() or (separator and not rest):
        parts = re.split("[.,]", figures)
        return " ".join(_words_of(part, lang, num2words) for part in parts)
    if ordinal:
        spoken = num2words(int(whole), lang=lang, to="ordinal")
    elif rest:
        spoken = num2words(Decimal(f"{whole}.{rest}"), lang=lang)
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
