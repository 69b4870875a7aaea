"""Accents by spelling, of the English recipe."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "recipes" / "english"))
from accents import CHANGES, RULES, draw_accent, with_accent  # noqa: E402


@pytest.mark.parametrize(
    ("word", "changed"),
    [("think", "sink"), ("very", "wery"), ("west", "vest"), ("good", "goot"), ("dog", "dok"), ("cat", "ca"),
     ("book", "booka"), ("friend", "frien"), ("school", "schoo"), ("rice", "lice"), ("light", "right"),
     ("thin", "thing"), ("going", "goin"), ("ship", "sheep"), ("sheep", "ship"), ("bad", "bed"),
     ("stop", "estop"), ("she", "se"), ("bread", "blead"), ("jam", "zam"), ("hat", "at"), ("chair", "shair")],
)  # fmt: skip
def test_a_change_gives_its_example(word: str, changed: str) -> None:
    results = {re.sub(pattern, new, word) for pattern, replacements in CHANGES for new in replacements}
    assert changed in results


def test_an_accent_is_some_of_the_changes() -> None:
    sizes = Counter(len(draw_accent(random.Random(seed))) for seed in range(300))
    assert set(sizes) == set(range(RULES[0], RULES[1] + 1))


@given(st.lists(st.text("abcdeghilnorstuvw'", min_size=1, max_size=9), min_size=1, max_size=6), st.integers())
def test_an_accent_keeps_the_number_of_words_and_single_letters(words: list[str], seed: int) -> None:
    found = with_accent(" ".join(words), random.Random(seed)).split(" ")
    assert len(found) == len(words)
    for word, changed in zip(words, found, strict=True):
        assert changed.partition("'")[1:] == word.partition("'")[1:]
        if len(word.partition("'")[0]) < 2:
            assert changed == word


def test_accents_change_some_words_and_the_keeps_its_voiced_sound() -> None:
    words = ["the", "three", "good", "friends", "went", "there"]
    spoken = [with_accent(" ".join(words), random.Random(seed)).split() for seed in range(200)]
    changed = [after != before for found in spoken for after, before in zip(found, words, strict=True)]
    assert 0.1 < sum(changed) / len(changed) < 0.5
    assert {found[0] for found in spoken} == {"the", "de"}
    assert {found[-1] for found in spoken} == {"there", "dere"}


def test_names_of_letters_stay() -> None:
    assert {with_accent("r l v j's", random.Random(seed)) for seed in range(200)} == {"r l v j's"}


def test_a_synthesizer_gets_the_accent_and_the_utterance_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyworld")
    import synthesize

    spoken: list[str] = []

    def speak_all(requests: list[tuple[str, object]], folder: Path) -> list[np.ndarray]:
        spoken.extend(text for text, _ in requests)
        noise = np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
        return [0.1 * noise for _ in requests]

    monkeypatch.setattr(synthesize, "speak_all", speak_all)
    monkeypatch.setattr(
        synthesize, "draw_sentence", lambda book, excluded, draw: "three good friends went home"
    )
    monkeypatch.setattr(synthesize, "REVOICED", 0.0)
    made = synthesize.synthesized(["a"], synthesize.Exclusion([]), 200, random.Random(0), synthesize.Tally())
    assert {text for text, *_ in made} == {"three good friends went home"}
    changed = sum(text != "three good friends went home" for text in spoken)
    assert len(spoken) == 200 and 0.05 < changed / 200 < 0.35  # 35 % have an accent, which may change no word
