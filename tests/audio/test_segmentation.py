"""Cutting at silence: all sound is in exactly one piece, for any sizes of the blocks."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.segmentation import FRAME, PAUSE, segments

RATE = 1000  # samples of each second that hypothesis has to draw
AUDIBLE = 0.01  # a sample this high makes its frame louder than SILENCE_DB, whatever surrounds it

levels = st.sampled_from([0.0, 0.0, 1e-5, 0.05, 0.5])
stretches = st.lists(st.tuples(levels, st.integers(1, 3 * RATE)), min_size=1, max_size=8)
longests = st.floats(0.1, 5.0)


def recording(parts, seed=0):
    """Noise of the given levels and numbers of samples."""
    random = np.random.default_rng(seed)
    return np.concatenate([level * random.uniform(-1, 1, size) for level, size in parts]).astype(np.float32)


def noise(seconds, rate, level=0.3):
    return recording([(level, round(seconds * rate))])


def in_blocks(samples, cuts):
    return np.split(samples, sorted(cut % (len(samples) + 1) for cut in cuts))


@given(stretches, longests)
def test_pieces_are_in_order_without_overlap_and_within_the_limit(parts, longest):
    samples = recording(parts)
    at, covered = 0, np.zeros(len(samples), bool)
    for start, piece in segments([samples], RATE, longest):
        assert type(start) is float  # and not numpy's, which prints as np.float64(...)
        first = round(start * RATE)
        assert first >= at  # in order, and without overlap
        at = first + len(piece)
        assert 0 < len(piece) <= longest * RATE
        np.testing.assert_array_equal(piece, samples[first:at])  # where it says, and within the recording
        covered[first:at] = True
    assert covered[np.abs(samples) > AUDIBLE].all()


@given(stretches, longests, st.lists(st.integers(0, 30 * RATE), max_size=20))
def test_pieces_do_not_depend_on_the_blocks(parts, longest, cuts):
    samples = recording(parts)
    at_once = list(segments([samples], RATE, longest))
    by_blocks = list(segments(in_blocks(samples, cuts), RATE, longest))
    assert [start for start, _ in at_once] == [start for start, _ in by_blocks]
    for (_, one), (_, other) in zip(at_once, by_blocks, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sample_by_sample():
    samples = recording([(0.5, 700), (0.0, 400), (0.5, 800), (0.0, 900)])
    at_once = [(start, len(piece)) for start, piece in segments([samples], RATE, 1.0)]
    assert at_once == [
        (start, len(piece)) for start, piece in segments(np.split(samples, len(samples)), RATE, 1.0)
    ]


@given(st.data(), st.sampled_from([8000, 16000, 22050]), st.floats(1.0, 4.0))
def test_the_cut_is_in_the_pause(data, rate, longest):
    """Two sounds too long for one piece, the pause between them in the second half of what one may hold."""
    pause = data.draw(st.floats(PAUSE + 2 * FRAME, longest / 2))
    first = data.draw(st.floats(longest / 2, longest - pause))
    second = data.draw(st.floats(longest - first, longest - pause))  # what is left of them is one piece
    hiss = data.draw(st.sampled_from([0.0, 0.001, 0.02]))  # in the pause
    sizes = [round(seconds * rate) for seconds in (first, pause, second)]
    samples = recording(zip((0.3, hiss, 0.3), sizes, strict=True))
    (start, before), (begin, after) = segments([samples], rate, longest)
    assert start == 0 and round(begin * rate) + len(after) == len(samples)
    assert sizes[0] <= len(before) and begin * rate <= sizes[0] + sizes[1] + 1e-6


def test_audio_without_a_pause_is_cut():
    pieces = [piece for _, piece in segments([noise(60, RATE)], RATE, 7.0)]
    assert sum(map(len, pieces)) == 60 * RATE
    assert max(map(len, pieces)) <= 7 * RATE


def test_silence_around_is_trimmed_to_a_margin():
    samples = np.concatenate([np.zeros(3210), noise(1, RATE), np.zeros(2000)]).astype(np.float32)
    ((start, piece),) = segments([samples], RATE, 30.0)
    assert 3.21 - PAUSE - FRAME <= start <= 3.21 - PAUSE
    assert 4.21 + PAUSE <= start + len(piece) / RATE <= 4.21 + PAUSE + FRAME


@pytest.mark.parametrize("level", [0.0, 3e-4])
def test_silence_has_no_pieces(level):
    assert list(segments([noise(0.9, 16000, level)] * 100, 16000, 30.0)) == []
    assert list(segments([], 16000, 30.0)) == []
    assert list(segments([np.zeros(0, np.float32)], 16000, 30.0)) == []


def test_very_quiet_sound_is_not_silence():
    assert len(list(segments([noise(1, 16000, 1e-3)], 16000, 30.0))) == 1  # -65 dB


def test_pieces_do_not_keep_the_silence_around_them():
    """A window of short sounds must not hold the hours that they come from."""
    sparse = np.concatenate([noise(0.2, 16000), np.zeros(29 * 16000, np.float32)])
    blocks = (sparse.copy() for _ in range(40))
    tracemalloc.start()
    try:
        pieces = list(segments(blocks, 16000, 30.0))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 40 <= len(pieces) <= 41
    assert held < 3 * sum(piece.nbytes for _, piece in pieces)


def test_a_pause_in_the_first_half_is_better_than_a_cut_in_a_word():
    samples = recording([(0.3, 3 * 16000), (0.001, 8000), (0.3, 12 * 16000)])
    (_, before), (begin, _), *_ = segments([samples], 16000, 9.0)
    assert 3.0 <= len(before) / 16000 <= 3.5 and 3.0 <= begin <= 3.5


def test_memory_does_not_grow_with_the_length():
    peaks = []
    for count in (5, 50):
        blocks = (noise(5, 16000) for _ in range(count))
        tracemalloc.start()
        for _ in segments(blocks, 16000, 20.0):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
