"""Phonemes as a head mishears them, of the English recipe."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from ctypes.util import find_library
from pathlib import Path

import pytest

from asr.datasets.manifest import Utterance, read_manifest, write_manifest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "recipes" / "english"))
from misheard import Confusions  # noqa: E402

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
