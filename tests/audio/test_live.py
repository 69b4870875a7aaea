"""Pieces of audio that is coming in do not depend on the blocks, and hold all that is voiced."""

from itertools import pairwise

import numpy as np
import pytest

from asr.audio import live
from asr.audio.live import live_pieces
from asr.errors import AsrError

RATE = 16000


def tone(seconds):
    return (0.3 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * RATE), np.float32)


def in_blocks(samples, size):
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def pieces(samples, size=4000, longest=10.0, **options):
    return list(live_pieces(in_blocks(samples, size), RATE, RATE, longest, False, **options))


SOUND = np.concatenate([silence(3), tone(1.2), silence(0.6), tone(0.5), silence(1.7), tone(0.9)])


@pytest.mark.parametrize("size", [160, 7001, 200_000])
def test_a_piece_ends_with_a_pause(size):
    finals = [piece for piece in pieces(SOUND, size) if piece.final]
    assert [piece.start for piece in finals] == pytest.approx([2.6, 6.6], abs=0.03)
    assert [len(piece.samples) / RATE for piece in finals] == pytest.approx([3.1, 1.3], abs=0.05)
    for piece in finals:
        first = round(piece.start * RATE)
        np.testing.assert_allclose(piece.samples, SOUND[first : first + len(piece.samples)], atol=1e-4)


def test_a_piece_ends_soon():
    """Between 1 and 2 s after its last sound."""
    given = []

    def blocks():
        for block in in_blocks(np.concatenate([tone(1.0), silence(9)]), RATE // 10):
            given.append(len(block))
            yield block

    final = next(piece for piece in live_pieces(blocks(), RATE, RATE, 10.0, False) if piece.final)
    assert final.start == 0 and 2.0 < sum(given) / RATE < 3.0


def test_a_piece_is_given_while_it_lasts():
    found = pieces(SOUND, every=0.5)
    assert [piece.final for piece in found].count(True) == 2
    first = [piece for piece in found if piece.start < 4]
    assert len(first) >= 5 and first[-1].final
    lengths = [len(piece.samples) for piece in first[:-1]]
    assert lengths == sorted(lengths) and lengths[0] < RATE
    assert len({piece.start for piece in first}) == 1


def test_a_long_piece_is_cut_in_its_quietest_place():
    sound = np.concatenate([tone(1.6), silence(0.4), tone(0.8), silence(0.3), tone(4.0)])
    finals = [piece for piece in pieces(sound, longest=3.0) if piece.final]
    assert max(len(piece.samples) for piece in finals) <= 3.0 * RATE
    assert finals[0].start + len(finals[0].samples) / RATE == pytest.approx(1.8, abs=0.25) or finals[
        0
    ].start + len(finals[0].samples) / RATE == pytest.approx(2.95, abs=0.25)
    covered = np.zeros(len(sound), bool)
    for piece in finals:
        covered[round(piece.start * RATE) :][: len(piece.samples)] = True
    assert covered[np.abs(sound) > 0.1].all()
    for one, other in pairwise(finals):
        assert one.start + len(one.samples) / RATE <= other.start + 1e-6


@pytest.mark.parametrize("voiced", [2.5, 2.9, 2.99, 3.0])
def test_no_piece_is_longer_than_the_longest(voiced):
    """Models of a fixed window refuse longer ones, also before a piece has ended."""
    found = pieces(np.concatenate([silence(1), tone(voiced), silence(3)]), 1600, longest=3.0)
    assert max(len(piece.samples) for piece in found) <= 3.0 * RATE
    assert sum(len(piece.samples) for piece in found if piece.final) >= voiced * RATE


def test_memory_does_not_grow_in_silence():
    """Only the context is held."""
    seen = []

    def blocks():
        for _ in range(200):
            yield silence(1.0)
            seen.append(1)

    assert list(live_pieces(blocks(), RATE, RATE, 10.0, False)) == [] and len(seen) == 200


def test_other_types_and_rates():
    """int16, two channels and another rate."""
    stereo = np.stack([SOUND, SOUND], 1)[::2]
    whole = (stereo * 32767).astype(np.int16)
    found = [p for p in live_pieces(in_blocks(whole, 999), RATE // 2, RATE, 10.0, False) if p.final]
    assert [piece.start for piece in found] == pytest.approx([2.6, 6.6], abs=0.05)
    assert list(live_pieces([], RATE, RATE, 10.0)) == []


def test_one_channel():
    stereo = in_blocks(np.stack([silence(len(SOUND) / RATE), SOUND], 1), 999)
    assert list(live_pieces(stereo, RATE, RATE, 10.0, False, channel=0)) == []
    one, both = (list(live_pieces(stereo, RATE, RATE, 10.0, False, channel=i)) for i in (1, None))
    np.testing.assert_allclose(one[-1].samples, 2 * both[-1].samples, atol=1e-6)


def test_a_piece_that_proves_to_be_no_speech_ends_empty(monkeypatch):
    """The detector revises its decision when it hears more."""
    monkeypatch.setattr(
        live, "is_speech", lambda frames: np.arange(len(frames)) < (25 if len(frames) < 100 else 0)
    )
    sound = np.concatenate([tone(0.5), silence(4.5)])
    *partial, final = live_pieces(in_blocks(sound, 4000), RATE, RATE, 10.0)
    assert partial and not any(piece.final for piece in partial)
    assert (final.final, final.start, len(final.samples)) == (True, 0.0, 0)


def test_impossible_samples_and_rates():
    with pytest.raises(AsrError, match=r"audio stream: NaN or infinite sample at 2\.000 s"):
        list(live_pieces([silence(1), silence(1), np.full(9, np.nan)], RATE, RATE, 10.0, False))
    with pytest.raises(AsrError, match=r"audio stream: samples cannot have the shape \(\); give"):
        list(live_pieces([np.array(0.5)], RATE, RATE, 10.0))
    with pytest.raises(AsrError, match="audio stream: sample rate of 3 Hz"):
        list(live_pieces([], 3, RATE, 10.0))
