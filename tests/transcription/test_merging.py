"""Overlapping segments: no word is lost or doubled, whichever of them has it whole."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from asr import audio
from asr.model_folder import load_model
from asr.transcription.merging import merge_overlaps
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Segment, Word

SAMPLES = Path(__file__).parents[2] / "data/samples/digits"
RATE = 8000


def segment(start, end, *words):
    made = tuple(Word(text, at, at + 0.3, 0.5) for text, at in words)
    return Segment(start, end, " ".join(text for text, _ in words), 0.5, words=made)


def texts(*segments):
    return [each.text for each in merge_overlaps(segments)]


def test_a_common_word_joins():
    first = segment(0, 10, ("one", 7.0), ("two", 8.1), ("three", 8.9), ("fo", 9.7))
    second = segment(8, 18, ("o", 8.0), ("three", 8.95), ("four", 9.6), ("five", 10.5))
    assert texts(second, first) == ["one two three", "four five"]
    merged = merge_overlaps([first, second])
    assert merged[0].end == merged[1].start == pytest.approx(9.2)
    assert [word.text for word in merged[1].words] == ["four", "five"]


def test_without_a_common_word_the_middle_decides():
    first = segment(0, 10, ("one", 7.0), ("two", 8.4), ("x", 9.5))
    second = segment(8, 18, ("y", 8.2), ("three", 9.4))
    assert texts(first, second) == ["one two", "three"]


def test_segments_have_their_words_whole():
    first = segment(0, 10, ("one", 7.0), ("two", 8.8))
    second = segment(8, 18, ("three", 8.95), ("four", 9.6))
    for both in ([first, second], [segment(0, 10, ("two", 8.6)), segment(8, 18, ("two", 8.62), ("x", 8.85))]):
        one, other = merge_overlaps(both)
        assert one.start < one.end == other.start == other.words[0].start
    one, other = merge_overlaps([first, segment(8, 18, ("three", 9.2))])
    assert one.end == other.start == pytest.approx(one.words[-1].end)


def test_the_same_word_twice_is_kept_twice():
    first = segment(0, 10, ("one", 8.2), ("one", 9.0))
    second = segment(8, 18, ("one", 8.2), ("one", 9.0), ("one", 9.8))
    assert texts(first, second) == ["one one", "one"]


def test_a_part_of_a_text_keeps_its_own_spaces():
    """A text can have words with spaces and characters without them."""
    words = [
        Word(text, at, at + 0.3, 0.5) for text, at in (("打", 7), ("hello", 8.1), ("好", 8.5), ("我", 9.7))
    ]
    first = Segment(0, 10, "打hello 好我", 0.5, words=tuple(words))
    second = segment(8, 18, ("好", 8.5), ("four", 9.6))
    assert texts(first, second) == ["打hello 好", "four"]


def test_segments_that_do_not_overlap_stay():
    both = (segment(0, 8, ("a", 7.0)), segment(8, 9, ("b", 8.1)))
    assert merge_overlaps(both) == list(both)


def test_samples_joined_without_pauses():
    """The digits model: digits without a pause, many times as long as a segment, are all there, once.

    Without overlaps 5 of the 78 words are lost. The model mishears some, which merging cannot help.
    """
    sounds, expected = [], []
    for name in ("pi", "countdown", "lottery", "phone_number", "zip_code") * 2:
        samples = audio.read(SAMPLES / f"{name}.wav", RATE)
        loud = np.flatnonzero(np.abs(samples) > 0.003)
        sounds.append(samples[loud[0] : loud[-1]])
        expected += (SAMPLES / f"{name}.txt").read_text().split()
    bundle = load_model("digits", "cpu")
    bundle.metadata["longest_seconds"] = "4.0"
    found = Recognizer(bundle).transcribe(np.concatenate(sounds), RATE)
    words = found.text.split()
    assert abs(len(words) - len(expected)) <= 2
    assert Levenshtein.distance(words, expected) <= 8
    assert len(found.segments) > 6
    for one, other in pairwise(found.words):
        assert one.start < other.start and other.start > one.end - 0.05
