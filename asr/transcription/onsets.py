"""Corrects the beginnings of words after a pause, so that a word begins where its sound begins.

CTC places a character where the model is sure of it, which is often some frames after the sound began. Where
a word follows a pause, the energy of the recording shows its beginning more exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asr.audio.segmentation import mean_squares
from asr.transcription.transcript import Word

FRAME = 0.01  # seconds, about: a whole number of samples
BELOW_LOUDEST = 30.0  # dB: a frame is sound if it is at most so much below the loudest one,
ABOVE_PAUSE = 10.0  # dB: and at least so much above the quietest frame near the beginning
EARLIER, LATER = 20, 12  # frames: how far a beginning can move
GAP = 3  # frames: a quiet part up to this length belongs to the word, such as the closure of a stop


def begin_with_sound(
    words: Sequence[Word], samples: np.ndarray, sample_rate: int, start: float
) -> tuple[Word, ...]:
    """The words of a segment with corrected beginnings. Those without a pause before them stay as they are.

    samples (samples,) of the segment, which begins at `start` seconds.
    """
    if not words:
        return ()
    size = max(1, round(sample_rate * FRAME))
    energy = 10 * np.log10(mean_squares(samples, size) + 1e-10)

    def frame(seconds: float) -> int:
        return min(len(energy) - 1, round((seconds - start) * sample_rate / size))

    found = []
    before = 0
    for i, word in enumerate(words):
        after = words[i + 1].start if i + 1 < len(words) else word.end + 0.2
        onset = onset_of(energy, before, frame(word.start), frame(after))
        moved = onset != frame(word.start)
        found.append(_moved(word, round(start + onset * size / sample_rate, 3)) if moved else word)
        before = frame(word.end)
    return tuple(found)


def onset_of(energy: np.ndarray, before: int, at: int, after: int) -> int:
    """The frame at which a word begins to sound, or `at` if no pause before it is found.

    energy (frames,) in dB. The word was found at the frame `at`. The word before it ends at the frame
    `before`, and the next one begins at the frame `after`.
    """
    first, last = max(before, at - EARLIER), min(at + LATER, max(after, at + 1))
    around = energy[first:last]
    if at < first or len(around) < 2:
        return at
    loudest = energy[at : max(after, at + 1)].max()
    loud = around >= max(loudest - BELOW_LOUDEST, around.min() + ABOVE_PAUSE)
    for begin, end in _sounds(loud):
        if first + end > at:  # the sound at `at`, or the first one after it
            return first + begin if begin > 0 else at  # at 0 it may belong to the word before
    return at


def _sounds(loud: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each run of loud frames (frames,). Short gaps do not end a run."""
    edges = np.flatnonzero(np.diff(loud, prepend=False, append=False)).tolist()
    found: list[tuple[int, int]] = []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if found and begin - found[-1][1] <= GAP:
            begin = found.pop()[0]
        found.append((begin, end))
    return found


def _moved(word: Word, start: float) -> Word:
    """The word with another beginning. No character begins or ends before it."""
    first, *others = word.characters
    characters = [
        replace(first, start=start, end=max(first.end, start)),
        *(replace(each, start=max(each.start, start), end=max(each.end, start)) for each in others),
    ]
    return replace(word, start=start, end=max(word.end, start), characters=tuple(characters))
