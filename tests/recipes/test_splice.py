"""Sentences that are joined from the words of recordings."""

from __future__ import annotations

import random
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.audio import write
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.decoding.alignment import TokenSpan
from asr.errors import AsrError
from asr.model_folder import load_bundle

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "english"
sys.path.append(str(RECIPE))
import splice  # noqa: E402
from splice import Piece, Recording, Words, located, quietest  # noqa: E402
from splice import splice as join  # noqa: E402
from text import Exclusion  # noqa: E402

RATE = 16_000
SAMPLES = RECIPE.parents[1] / "data" / "samples"


def recording(name: str, text: str, gender: str = "f", unsure: frozenset[str] = frozenset()) -> Recording:
    """Each word is 100 samples of its own value."""
    words = tuple(text.split())
    cuts = tuple((100 * i, 100 * i + 100) for i in range(len(words)))
    utterance = Utterance(name, Path("a.wav"), text, 1.0, name, extra={"gender": gender})
    return Recording(utterance, words, cuts, tuple(word not in unsure for word in words))


@pytest.fixture(autouse=True)
def _small_vocabularies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "VOCABULARY", 1)


def test_words_end_in_the_pauses_between_them() -> None:
    # Three bursts, with a short gap of 0.06 s and a long one of 0.6 s.
    audio = np.zeros(2 * RATE, np.float32)
    noise = np.random.default_rng(0)
    for begin, end in ((0.3, 0.6), (0.66, 0.9), (1.5, 1.8)):
        part = slice(round(begin * RATE), round(end * RATE))
        audio[part] = 0.1 * noise.standard_normal(part.stop - part.start)
    spans = [
        TokenSpan(int(at / 0.04), int(at / 0.04) + 1, p)
        for at, p in ((0.4, 0.9), (0.5, 0.9), (0.61, 0.9), (0.7, 0.9), (1.2, 0.9), (1.6, 0.1))
    ]
    found = located(Utterance("a-1", Path("a.wav"), "ab c d", 2.0), spans, 0.04, audio)
    assert found.words == ("ab", "c", "d")
    (first, second, third) = [(begin / RATE, end / RATE) for begin, end in found.cuts]
    assert first[0] <= 0.3
    assert 0.6 <= first[1] <= 0.66 and second[0] == first[1]
    assert 0.7 < second[1] <= 0.9 + splice.PAUSE
    assert second[1] < third[0] <= 1.5
    assert 1.6 < third[1] <= 2.0
    assert found.usable == (True, True, False)


def test_the_quietest_place_is_near_the_given_time() -> None:
    energy = np.ones(RATE)
    energy[8000 + 300] = 0
    energy[100] = -1  # quieter, but too far away
    assert quietest(energy, 0.5) == pytest.approx(8300 / RATE)


def test_a_sentence_has_only_words_of_one_corpus_of_which_ctc_is_sure() -> None:
    words = Words(
        [recording("a-1", "the red house", unsure=frozenset({"red"})), recording("b-1", "a red door")]
    )
    assert words.longest_part("see the red door of the house and the house", "a") == ("the", "house")
    assert words.longest_part("a red red door", "b") == ("a", "red", "red", "door")
    assert len(words) == 5


def test_a_corpus_of_few_words_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "VOCABULARY", 3)
    words = Words([recording("a-1", "the red house"), recording("digits-1", "one two two")])
    assert set(words.vocabularies) == {"a"}
    assert all(words.draw_recording(random.Random(i)).corpus == "a" for i in range(20))


@given(
    st.integers(0, 10_000), st.lists(st.sampled_from(["the", "red", "house", "is", "far", "old"]), min_size=1)
)
def test_pieces_say_the_words_in_the_voices_of_the_group(seed: int, sentence: list[str]) -> None:
    women = [recording("a-1", "the red house"), recording("a-2", "the house is old")]
    men = [recording("a-3", "the old house is far", "m")]
    words = Words([*women, *men])
    pieces = words.choose(tuple(sentence), women[0].group, random.Random(seed))
    spoken_words = [w for p in pieces for w in p.recording.words[p.first : p.first + p.count]]
    assert spoken_words == sentence
    for piece in pieces:
        assert 1 <= piece.count <= splice.LONGEST_PIECE
        spoken = piece.recording.words[piece.first : piece.first + piece.count]
        if piece.recording in men:  # only what no woman spoke
            assert not any(" ".join(spoken) in " ".join(woman.words) for woman in women)


def test_words_that_follow_each_other_in_a_recording_are_taken_together() -> None:
    words = Words([recording("a-1", "the red house")])
    counts = {
        piece.count
        for seed in range(30)
        for piece in words.choose(("the", "red", "house"), words.recordings[0].group, random.Random(seed))
    }
    assert counts == {1, 2, 3}


def test_pieces_fade_into_each_other() -> None:
    one, other = recording("a-1", "the red"), recording("a-2", "old house")
    for item, value in ((one, 1.0), (other, 0.5)):
        item.__dict__["samples"] = np.full(200, value, np.float32)  # in place of a file
    joined = join([Piece(one, 0, 2), Piece(other, 1, 1)])
    fade = min(100, round(splice.FADE * RATE))
    assert joined.shape == (300 - fade,)
    assert joined[: 200 - fade] == pytest.approx(1.0)
    assert joined[200:] == pytest.approx(0.5)
    assert np.abs(np.diff(joined)).max() < 0.02


def test_books_without_the_recorded_words_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "FAILURES", 50)
    words = Words([recording("a-1", "xylophones quickly zigzag")])
    with pytest.raises(AsrError, match="use other books, or more recordings"):
        list(splice.spliced(words, ["no word of this"], Exclusion([]), 1, random.Random(0)))


def test_a_part_that_is_a_held_out_sentence_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "FAILURES", 50)
    words, book = Words([recording("a-1", "crimson houses glitter")]), ["see the crimson houses glitter now"]
    words.recordings[0].__dict__["samples"] = np.full(16_000, 0.1, np.float32)  # in place of a file
    monkeypatch.setattr(splice, "refusal", lambda audio, text: "")
    ((text, _, _),) = splice.spliced(words, book, Exclusion([]), 1, random.Random(0))
    assert text == "crimson houses glitter"
    with pytest.raises(AsrError, match="consecutive words that were recorded"):
        list(splice.spliced(words, book, Exclusion([text]), 1, random.Random(0)))


def test_a_manifest_without_texts_has_no_words() -> None:
    assert not list(splice.align(load_bundle("english", "cpu"), []))


@pytest.mark.skipif(find_library("espeak-ng") is None, reason="needs libespeak-ng")
def test_a_shard_from_the_command_line(tmp_path: Path) -> None:
    recorded = [u for u in read_manifest(SAMPLES / "manifest.jsonl") if u.text and len(u.text.split()) > 5]
    from asr.audio import read

    pieces = []
    for i, utterance in enumerate(recorded):
        write(tmp_path / f"{i}.flac", read(utterance.audio, RATE), RATE)
        pieces.append(Utterance(f"own-{i}", tmp_path / f"{i}.flac", utterance.text, utterance.duration, "s"))
    write_manifest(tmp_path / "train.jsonl", pieces)
    write_manifest(tmp_path / "dev-a.jsonl", [Utterance("d", Path("a.wav"), "the letter to the man", 1.0)])
    (tmp_path / "phonemes.txt").write_text("abdefghijklmnoprstuvwzæðŋɑɐəɚɛɜɡɪɹɾʃʊʌʒθɔᵻ")
    (tmp_path / "books.txt").write_text("the milk and the garden and the gate\nthe letter to the man\n")
    script = (
        f"import sys; sys.path.insert(0, {str(RECIPE)!r}); import splice; "
        "splice.VOCABULARY = 5; splice.main()"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(tmp_path / "books.txt")]
    command += [str(tmp_path / "train.jsonl"), "--shards", "1", "--first", "3", "--sentences", "6"]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "spliced-003.jsonl: 6 sentences" in first
    made = read_manifest(tmp_path / "spliced-003.jsonl")
    vocabulary = {word for utterance in recorded for word in (utterance.text or "").split()}
    for item in made:
        assert item.text and set(item.text.split()) <= vocabulary
        assert item.text != "the letter to the man"
        assert item.phonemes and item.duration
        audio = read(item.audio, RATE)
        assert len(audio) / RATE == pytest.approx(item.duration, abs=0.01)
        assert np.abs(audio).max() > 0.01
    assert "exists" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
