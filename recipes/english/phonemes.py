"""IPA phonemes of text by espeak-ng (Debian package `libespeak-ng1`), one character for each phone symbol."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from asr.errors import AsrError

# Stress, length, ties, pauses and secondary articulations. The base symbols stay.
_DROPPED = set("ˈˌːˑ‿͜͡ |-_'ʰʲʷˤˠ˞ˀ")
_DROPPED_CATEGORIES = {"Mn", "Nd", "Zs", "Cc", "Sk", "No", "Po", "Pd", "Cf"}
_SYNCHRONOUS, _UTF8, _IPA = 2, 1, 2  # values of espeak-ng's speak_lib.h

# Languages whose tag in Common Voice differs from the name of espeak-ng's voice.
_VOICES = {"zh-CN": "cmn", "zh-TW": "cmn", "zh-HK": "yue", "nn-NO": "nb"}
_UNREADABLE = {"ja"}  # espeak-ng cannot read kanji


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        raise AsrError("libespeak-ng: not installed; run `apt-get install espeak-ng`")
    library = ctypes.CDLL(name)
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    if library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0) < 0:
        raise AsrError("libespeak-ng: cannot start; install the package espeak-ng-data")
    return library


@functools.cache
def _languages() -> frozenset[str]:
    """The tags of all languages that espeak-ng has a voice for, in lower case."""
    voices, tags = _library().espeak_ListVoices(None), []
    for voice in voices:
        if not voice:  # the array ends with a null pointer
            break
        entry = voice.contents.languages  # a byte of priority, then the first tag up to a zero byte
        tags.append(entry[1:].decode().lower())
    return frozenset(tags)


def voice_for(lang: str) -> str | None:
    """espeak-ng's language for a language tag such as "sv-SE"; None when espeak-ng does not have it."""
    if lang in _UNREADABLE:
        return None
    for tag in (_VOICES.get(lang, lang).lower(), lang.partition("-")[0].lower()):
        if tag in _languages():
            return tag
    return None


def phonemes(texts: Iterable[str], language: str = "en-us") -> list[str]:
    """The phones of each text, without spaces, stress, length or tones (about 1,500 texts a second).

    Affricates and diphthongs are two symbols. Raises AsrError when espeak-ng does not have the language.
    """
    return ["".join(words) for words in phonemes_of_words(texts, language)]


def phonemes_of_words(texts: Iterable[str], language: str = "en-us") -> list[list[str]]:
    """As `phonemes`, in the parts that espeak-ng writes with spaces between them: words, and "of the" as one.

    Raises AsrError when espeak-ng does not have the language.
    """
    library = _library()
    if language.lower() not in _languages():
        raise AsrError(f"espeak-ng: no voice for the language {language!r}; `espeak-ng --voices` lists them")
    properties = _Voice(languages=language.encode())
    if library.espeak_SetVoiceByProperties(ctypes.byref(properties)) != 0:
        raise AsrError(f"espeak-ng: cannot load the language {language!r}; install espeak-ng-data")
    return [[base_symbols(word) for word in _ipa(library, text).split()] for text in texts]


def _ipa(library: ctypes.CDLL, text: str) -> str:
    buffer = ctypes.create_string_buffer(text.encode())
    position = ctypes.c_void_p(ctypes.addressof(buffer))
    clauses = []
    while position.value:  # each call reads one clause and moves the position; null at the end of the text
        clauses.append(library.espeak_TextToPhonemes(ctypes.byref(position), _UTF8, _IPA).decode())
    return " ".join(clauses)


def base_symbols(ipa: str) -> str:
    """IPA reduced to base symbols: "(en)ˈtʃɡ̊ː" gives "tʃg"."""
    ipa = unicodedata.normalize("NFD", re.sub(r"\([^)]*\)", "", ipa))  # "(en)" marks a change of language
    kept = (c for c in ipa if c not in _DROPPED and unicodedata.category(c) not in _DROPPED_CATEGORIES)
    return "".join(kept).replace("ɡ", "g")


def inventory(english: Iterable[str], others: Sequence[tuple[str, str]]) -> str:
    """The phone symbols that become classes, sorted, as one string.

    `english` has the phones of each English text, `others` has (language, phones) of other texts. A symbol
    is included when it occurs 5 times and is in English, or 60 times in at least 3 others. Rare
    symbols (clicks, errors of espeak-ng) are too few to be learned.
    """
    in_english = Counter("".join(english))
    everywhere = Counter(in_english)
    languages = defaultdict(set)
    for language, phones in others:
        everywhere.update(phones)
        for symbol in set(phones):
            languages[symbol].add(language)
    return "".join(
        sorted(
            symbol
            for symbol, count in everywhere.items()
            if (symbol in in_english and count >= 5) or (len(languages[symbol]) >= 3 and count >= 60)
        )
    )


def restrict(phones: str, symbols: str) -> str:
    """`phones` without the symbols that are not in the inventory."""
    return "".join(symbol for symbol in phones if symbol in symbols)
