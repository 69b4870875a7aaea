"""Words after a pause begin with their sound; all other words keep their times."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr import audio
from asr.audio.segmentation import mean_squares
from asr.transcription.onsets import EARLIER, FRAME, LATER, begin_with_sound, onset_of
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Character, Word

RATE = 16000
SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits"


def word(start: float, end: float, text: str = "ab") -> Word:
    middle = (start + end) / 2
    return Word(text, start, end, 1.0, (Character("a", start, middle), Character("b", middle, end)))


def tones(
    *spans: tuple[float, float], rate: int = RATE, seconds: float = 4.0, noise: float = 0.0
) -> np.ndarray:
    """A tone in each span, and noise everywhere: (samples,)."""
    samples = noise * np.random.default_rng(0).standard_normal(round(seconds * rate))
    for start, end in spans:
        at = np.arange(round(start * rate), round(end * rate))
        samples[at] += 0.3 * np.sin(2 * np.pi * 440 * at / rate)
    return samples.astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("late", [-0.1, -0.04, 0.0, 0.04, 0.09, 0.16])
def test_a_word_after_a_pause_begins_where_it_sounds(late, noise):
    samples = tones((0.5, 0.9), (1.3, 1.8), noise=noise)
    words = [word(10.5 + late, 10.85), word(11.3 + late, 11.75)]
    found = begin_with_sound(words, samples, RATE, start=10.0)
    assert [each.start for each in found] == pytest.approx([10.5, 11.3], abs=FRAME)
    assert [each.end for each in found] == [10.85, 11.75]
    assert [each.characters[0].start for each in found] == [each.start for each in found]


def test_a_word_without_a_pause_before_it_keeps_its_time():
    samples = tones((0.5, 1.8))
    words = (word(0.54, 0.9), word(1.1, 1.6))
    found = begin_with_sound(words, samples, RATE, 0.0)
    assert found[0].start == pytest.approx(0.5, abs=FRAME) and found[1] == words[1]
    assert begin_with_sound(words, tones(noise=0.1), RATE, 0.0) == words  # nothing but noise
    assert begin_with_sound((), samples, RATE, 0.0) == ()


def test_a_short_gap_is_a_part_of_the_word_and_a_longer_one_is_a_pause():
    (found,) = begin_with_sound([word(0.66, 0.9)], tones((0.5, 0.6), (0.62, 1.0)), RATE, 0.0)
    assert found.start == pytest.approx(0.5, abs=FRAME)
    (found,) = begin_with_sound([word(0.68, 0.9)], tones((0.5, 0.6), (0.65, 1.0)), RATE, 0.0)
    assert found.start == pytest.approx(0.65, abs=FRAME)


def test_frames_of_a_rate_that_100_does_not_divide_do_not_drift():
    samples = tones((198.0, 199.0), rate=11025, seconds=200.0)
    (found,) = begin_with_sound([word(198.1, 198.5)], samples, 11025, 0.0)
    assert found.start == pytest.approx(198.0, abs=FRAME)


def test_a_beginning_is_not_looked_for_far_away():
    far = word(0.7, 0.9)
    assert begin_with_sound([far], tones((0.2, 1.0)), RATE, 0.0) == (far,)


def test_words_of_a_recognizer_begin_where_their_sound_begins():
    recognizer = Recognizer("digits", "cpu")
    for name in ("zip_code", "flight", "pi"):
        samples = np.concatenate([np.zeros(RATE), audio.read(SAMPLES / f"{name}.wav", RATE)])
        energy = 10 * np.log10(mean_squares(samples, RATE // 100) + 1e-10)
        onset = int(np.argmax(energy >= energy[:160].max() - 30)) / 100
        assert recognizer.transcribe(samples, RATE).words[0].start == pytest.approx(onset, abs=0.02)


def test_no_character_is_before_the_beginning_of_its_word():
    late = replace(
        word(0.4, 0.6),
        characters=(Character("a", 0.4, 0.44), Character("b", 0.44, 0.48), Character("c", 0.56, 0.6)),
    )
    (found,) = begin_with_sound([late], tones((0.5, 1.0)), RATE, 0.0)
    assert [(each.start, each.end) for each in found.characters] == [(0.5, 0.5), (0.5, 0.5), (0.56, 0.6)]


@given(
    st.lists(st.floats(-100, 0), min_size=1, max_size=80),
    st.integers(0, 79), st.integers(0, 79), st.integers(0, 79),
)  # fmt: skip
def test_a_beginning_moves_a_little_at_most_and_never_into_the_word_before(energy, before, at, after):
    at, before, after = (min(each, len(energy) - 1) for each in (at, before, after))
    found = onset_of(np.array(energy), before, at, after)
    assert at - EARLIER <= found <= at + LATER
    assert found == at or found > before
    assert found == at or found < max(after, at + 1)
