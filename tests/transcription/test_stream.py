"""Text while audio comes in: final texts are those of the same audio in a file."""

from pathlib import Path

import numpy as np
import pytest

from asr import audio
from asr.audio import live
from asr.errors import AsrError
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Segment

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits"
RATE = 16000


@pytest.fixture(scope="module")
def digits():
    return Recognizer("digits", "cpu")


@pytest.fixture(scope="module")
def speech():
    """Three recordings with 1.6 s between them."""
    parts = [audio.read(SAMPLES / f"{name}.wav", RATE) for name in ("pin", "year", "bus_line")]
    return np.concatenate([x for part in parts for x in (part, np.zeros(round(1.6 * RATE), np.float32))])


def test_final_texts_are_those_of_the_file(digits, speech):
    results = list(
        digits.transcribe_stream([speech[i : i + 1600] for i in range(0, len(speech), 1600)], RATE)
    )
    finals = [result.segment for result in results if result.final]
    assert [segment.text for segment in finals] == [
        (SAMPLES / f"{name}.txt").read_text().strip() for name in ("pin", "year", "bus_line")
    ]
    assert " ".join(s.text for s in finals) == digits.transcribe(speech, RATE).text
    for segment in finals:
        part = speech[round(segment.start * RATE) : round(segment.end * RATE)]
        assert Recognizer(digits.bundle, voice_activity=False).transcribe(part, RATE).text == segment.text
        assert [word.text for word in segment.words] == segment.text.split()
        assert segment.start < segment.words[0].start < segment.words[-1].end < segment.end + 0.01
    # Before a segment ends, its first words are there.
    partial = [r.text for r in results if not r.final and r.segment.start == finals[0].start]
    assert any(finals[0].text.startswith(text) and 0 < len(text) < len(finals[0].text) for text in partial)


@pytest.mark.parametrize("level", [-50.0, -20.0, 0.0, 10.0])
def test_the_level_changes_one_word_of_eleven_at_most(digits, speech, level):
    """From -50 dBFS to 10 dB above full scale, which is clipped.

    The edges of the speech that is found move by a few frames of 20 ms with the level, and with them
    sometimes a word.
    """
    changed = np.clip(speech * (10 ** (level / 20) / np.abs(speech).max()), -1, 1)
    expected, found = (digits.transcribe(each, RATE).text.split() for each in (speech, changed))
    assert len(found) == len(expected) == 11
    assert sum(a != b for a, b in zip(found, expected, strict=True)) <= 1


def test_several_segments_of_one_piece_are_all_given(digits, speech, monkeypatch):
    """Tokens for times can divide what is decoded at once."""

    def decode(pieces, decoder):
        for piece in pieces:
            times = (piece.start, piece.start + 0.1, piece.start + 0.2)
            piece.job.segments += [
                Segment(a, b, t, 0.9) for a, b, t in zip(times, times[1:], "ab", strict=False)
            ]

    monkeypatch.setattr(digits, "_recognize", decode)
    results = list(digits.transcribe_stream([speech], RATE))
    finals = [result.text for result in results if result.final]
    assert finals == ["a", "b"] * 3


def test_noise_gives_nothing(digits):
    noise = 0.01 * np.random.default_rng(0).standard_normal(4 * RATE)
    assert list(digits.transcribe_stream([noise], RATE)) == []


def test_channels(digits, speech):
    """A stream takes the channel that a file takes; two texts of one time have no place in it."""
    other = np.stack([0 * speech, speech], 1)
    first = Recognizer(digits.bundle, channels="first")
    assert list(first.transcribe_stream([other], RATE)) == []
    assert len([r for r in first.transcribe_stream([other[:, ::-1]], RATE) if r.final]) == 3
    separate = Recognizer(digits.bundle, channels="separate")
    with pytest.raises(AsrError, match="channels 'separate' is impossible; give 'mix' or 'first'"):
        list(separate.transcribe_stream([other], RATE))


def test_text_that_proves_to_be_no_speech_ends_empty(digits, speech, monkeypatch):
    decided = live.is_speech
    monkeypatch.setattr(live, "is_speech", lambda p: decided(p) & (len(p) < 100))
    results = list(digits.transcribe_stream([speech[i : i + 1600] for i in range(0, 48000, 1600)], RATE))
    assert results[-2].text and not results[-2].final
    assert (results[-1].text, results[-1].final) == ("", True)


def test_impossible_blocks(digits):
    with pytest.raises(AsrError, match="audio stream: NaN"):
        list(digits.transcribe_stream([np.full(16000, np.nan)], RATE))


def test_lack_of_memory_ends_a_stream_with_an_error(speech, monkeypatch):
    """The text of a segment must not be missing without a message."""

    def decode(batch, decoder, previous=()):
        raise MemoryError

    recognizer = Recognizer("digits", "cpu")
    monkeypatch.setattr(recognizer, "_decode", decode)
    with pytest.raises(AsrError, match="stream: not enough memory on cpu for a segment"):
        list(recognizer.transcribe_stream([speech], RATE))
