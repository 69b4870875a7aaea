"""Accents by spelling, and phonemes as a head mishears them, of the English recipe."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.datasets.manifest import Utterance, read_manifest, write_manifest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "recipes" / "english"))
from accents import CHANGES, RULES, draw_accent, with_accent  # noqa: E402
from misheard import Confusions  # noqa: E402


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


def test_accents_change_some_words_and_the_keeps_its_voice() -> None:
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


PAIRS = [("abc", "abc"), ("abc", "xbc"), ("abc", "ac"), ("abc", "abcy")]


def test_confusions_count_what_was_heard() -> None:
    found = Confusions(PAIRS)
    assert found.substitutes == {"a": Counter("x"), "b": Counter({"": 1})}
    assert found.added == Counter("y") and found.added_share == pytest.approx(1 / 3)


def test_phonemes_are_misheard_at_the_rate_and_spaces_stay() -> None:
    found, draw = Confusions(PAIRS), random.Random(0)
    assert found.with_errors("abc cab", 0.0, draw) == "abc cab"
    changed = found.with_errors("a " * 4000, 0.3, draw)
    assert changed.count(" ") == 4000
    words = Counter(changed.split(" "))
    assert words["x"] / 4000 == pytest.approx(0.2, abs=0.03)
    assert words["ay"] / 4000 == pytest.approx(0.1, abs=0.03)
    assert words["a"] / 4000 == pytest.approx(0.7, abs=0.03)
    assert Counter(found.with_errors("b " * 1000, 1.0, draw).split(" "))[""] > 500


@pytest.mark.skipif(find_library("espeak-ng") is None, reason="needs libespeak-ng")
def test_misheard_sentences_from_the_command_line(tmp_path: Path) -> None:
    samples = read_manifest(ROOT / "data" / "samples" / "manifest.jsonl")[:2]
    rows = [Utterance(u.id, u.audio, u.text, u.duration, phonemes="ðə") for u in samples]
    write_manifest(tmp_path / "heard.jsonl", rows)
    write_manifest(tmp_path / "dev-a.jsonl", [Utterance("d", Path("a.wav"), "nobody was awake there", 1.0)])
    (tmp_path / "phonemes.txt").write_text(
        "abcdefghijklmnopqrstuvwxyzæðøŋœɐɑɒɔɕɖəɚɛɜɟɣɨɪɭɯɲɳɵɹɾʁʂʃʈʊʋʌʎʑʒʔβθχᵻ"
    )
    (tmp_path / "books.txt").write_text("it was a bright day in the village\nnobody was awake there\n")
    command = [sys.executable, str(ROOT / "recipes/english/misheard.py"), tmp_path, tmp_path / "books.txt"]
    command += [tmp_path / "heard.jsonl", "--sentences", "40"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert "misheard.jsonl: 40 sentences" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "misheard.jsonl").read_text().splitlines()]
    assert len(lines) == 40 and all(line["phonemes"] for line in lines)
    assert all(line["text"] != "nobody was awake there" for line in lines)
    assert any(
        line["text"] == "it was a bright day in the village" and " " in line["phonemes"] for line in lines
    )


@pytest.mark.parametrize(
    ("phonemes", "symbols", "message"),
    [
        (None, "ab", "no utterance has phonemes; name manifests of"),
        ("ab", "ab", "the phoneme head has 67 phonemes, but phonemes.txt has 2"),
    ],
)
def test_manifests_and_symbols_that_do_not_fit(
    tmp_path: Path, phonemes: str | None, symbols: str, message: str
) -> None:
    sample = read_manifest(ROOT / "data" / "samples" / "manifest.jsonl")[0]
    row = Utterance(sample.id, sample.audio, sample.text, sample.duration, phonemes=phonemes)
    write_manifest(tmp_path / "a.jsonl", [row])
    write_manifest(tmp_path / "dev-a.jsonl", [Utterance("d", Path("a.wav"), "nobody was awake", 1.0)])
    (tmp_path / "phonemes.txt").write_text(symbols)
    (tmp_path / "books.txt").write_text("it was a bright day\n")
    command = [sys.executable, ROOT / "recipes/english/misheard.py", tmp_path, tmp_path / "books.txt"]
    done = subprocess.run([*map(str, command), str(tmp_path / "a.jsonl")], capture_output=True, text=True)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
