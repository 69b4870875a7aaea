"""Accents for synthetic speech: words are spelled as a speaker of another language would say them.

A synthesizer reads the changed spelling, and the text of the utterance keeps the words as they are. So
"three good friends" may be read as "sree goot friens". The rules are sound changes that are common among
learners of English; Swan and Smith 2001, "Learner English", lists them by first language. Spelling is a
rough means: it works for every synthesizer, and a word that a rule damages too much is rare.
"""

from __future__ import annotations

import random
import re

ACCENTED = 0.35  # share of sentences with an accent
RULES = (3, 8)  # rules of one accent, drawn from all
STRENGTH = (0.3, 0.9)  # probability that an accent applies one of its rules to a word

_VOICED_TH = (
    "the this that these those they them their there then than though with other mother father brother"
)
VOICED_TH = frozenset(_VOICED_TH.split())

_CONSONANT = "[bcdfghklmnprstvz]"
# A pattern, and what replaces it; an accent draws one of the alternatives.
CHANGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"th", ("s", "t", "f", "z", "d")),  # think: sink, tink
    (r"^v|(?<=[aeiou])v(?=[aeiou])", ("w", "b", "f")),  # very: wery
    (r"^w(?=[aeiou])", ("v",)),  # west: vest
    (r"(?<=[aeioun])d$", ("t", "", "da")),  # good: goot
    (r"(?<=[aeioun])g$", ("k", "ga")),  # dog: dok
    (r"(?<=[aeiou])b$", ("p", "ba")),
    (r"(?<=[aeiou])[tkp]$", ("",)),  # cat: ca
    (r"(?<=[aeiou][tkp])$", ("a", "uh")),  # book: booka
    (r"(?<=[nlst])[tdk]$", ("",)),  # friend: frien
    (r"(?<=[aeiou])ll?$", ("o", "w", "")),  # school: schoo
    (r"^r|(?<=[aeiou])rr?(?=[aeiou])", ("l", "w")),  # rice: lice
    (r"^l|(?<=[aeiou])ll?(?=[aeiou])", ("r", "n")),  # light: right
    (r"(?<=[aeiou])n$", ("ng", "")),  # thin: thing
    (r"ing$", ("in", "eeng")),
    (rf"(?<={_CONSONANT})i(?={_CONSONANT}$)", ("ee",)),  # ship: sheep
    (rf"(?<={_CONSONANT})ee(?={_CONSONANT}$)", ("i",)),  # sheep: ship
    (rf"(?<={_CONSONANT})a(?={_CONSONANT}$)", ("e", "u")),  # bad: bed
    (rf"(?<={_CONSONANT})oo(?=k$)", ("u",)),
    (r"^s(?=[tpk])", ("es",)),  # stop: estop
    (r"sh", ("s",)),  # she: see
    (r"ch", ("sh",)),
    (r"^j|ge$", ("z", "ch")),
    (r"^h(?=[aeiou])", ("", "kh")),
    (r"(?<=[bpkg])r", ("l",)),  # bread: blead
)

Accent = tuple[tuple[re.Pattern[str], str], ...]


def draw_accent(draw: random.Random) -> Accent:
    """Some of the changes, each with one of its replacements."""
    chosen = draw.sample(CHANGES, draw.randint(*RULES))
    return tuple((re.compile(pattern), draw.choice(replacements)) for pattern, replacements in chosen)


def with_accent(text: str, draw: random.Random) -> str:
    """The text as a new speaker with an accent would say it, for a synthesizer.

    One letter alone stays, and so does the apostrophe with what follows it.
    """
    accent, strength = draw_accent(draw), draw.uniform(*STRENGTH)
    return " ".join(_pronounced(word, accent, strength, draw) for word in text.split())


def _pronounced(word: str, accent: Accent, strength: float, draw: random.Random) -> str:
    stem, apostrophe, rest = word.partition("'")
    if len(stem) < 2:
        return word
    if stem in VOICED_TH:  # "the" is changed to "de", not to "te"
        return re.sub("th", "d", stem) + apostrophe + rest if draw.random() < strength / 2 else word
    changed = stem
    for pattern, replacement in accent:
        if draw.random() < strength:
            changed = pattern.sub(replacement, changed)
    return changed + apostrophe + rest
