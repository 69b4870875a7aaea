"""Segmentation: long recordings are cut in pauses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

SILENCE_DB = -70.0  # dBFS: quieter audio has no speech that could be recognized
FAINT_DB = -90.0  # dBFS: the same for audio in which speech was detected
FRAME = 0.02  # seconds: the resolution with which energy is measured
PAUSE = 0.2  # seconds: a cut goes through the middle of the quietest stretch of this length
AROUND = 0.4  # seconds that are kept before and after detected speech
SEPARATE = 1.0  # seconds: a longer stretch without speech is not decoded, and ends a piece
OVERLAP = 1.0  # seconds of overlap on each side of a cut that is not in a pause
CLEARER = 0.1  # a cut in the first half needs an energy below this fraction of that in the second half


VoiceActivity = Callable[[Iterable[np.ndarray], int], Iterator[tuple[np.ndarray, np.ndarray]]]
"""From blocks and a sample rate to (samples, whether each of their frames has speech)."""


def segments(
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    longest_seconds: float,
    voice_activity: VoiceActivity | None = None,
    overlap: bool = False,
) -> Iterator[tuple[float, np.ndarray]]:
    """Cut a recording, given in blocks (samples,), into pieces of `longest_seconds` at most.

    Yields (start in seconds, samples). Each cut is in the middle of the quietest 0.2 s in the second half of
    the longest possible piece. If the first half has a much quieter place (a pause), the cut is there.
    Stretches of silence are left out, and a piece begins and ends at most 0.2 s before and after its sound.
    Cuts depend only on the samples and on `longest_seconds`, not on the sizes of the blocks. Memory holds one
    piece and one block.

    With `voice_activity`, sound without speech counts as silence, and 1 s of it ends a piece. A cut can be
    inside a word only if there is no pause. With `overlap`, the pieces on both sides of such a cut share up
    to 2 s, so each word is complete in one of the two pieces.
    """
    stream = voice_activity(blocks, sample_rate) if voice_activity else ((block, None) for block in blocks)
    longest = max(1, int(longest_seconds * sample_rate))
    shared = int(min(OVERLAP, longest_seconds / 8) * sample_rate) if overlap else 0  # on each side of a cut
    cutter = _Cutter(sample_rate, voice_activity is not None)
    held, voiced = np.zeros(0, np.float32), np.zeros(0, np.float32)  # `voiced` is zero where nobody speaks
    start = 0  # position of held[0], in samples
    for block, speech in stream:
        held = np.concatenate([held, block])
        if speech is None:
            voiced = held
        else:
            mask = np.repeat(speech, max(1, int(FRAME * sample_rate)))[: len(block)]
            voiced = np.concatenate([voiced, block * mask])
        while len(held) > longest:
            cut, pause = _best_cut(voiced[: longest - shared], sample_rate)
            both = 0 if pause else min(shared, cut // 2)
            yield from cutter.audible(held[: cut + both], voiced[: cut + both], start)
            cut -= both
            held, voiced, start = held[cut:], voiced[cut:], start + cut
    yield from cutter.audible(held, voiced, start)


def _best_cut(samples: np.ndarray, sample_rate: int) -> tuple[int, bool]:
    """Where to cut the longest possible piece (samples,), and whether the cut is at silence."""
    half = len(samples) // 2
    cut, energy = _quietest(samples[half:], sample_rate)
    early_cut, early_energy = _quietest(samples[:half], sample_rate, last=True)
    if early_cut and early_energy < CLEARER * energy:
        return early_cut, early_energy == 0
    return max(1, half + cut), energy == 0


def best_cut(samples: np.ndarray, sample_rate: int) -> int:
    """Where to cut samples (samples,), zero where nobody speaks, so that the first piece is long."""
    return _best_cut(samples, sample_rate)[0]


def _quietest(samples: np.ndarray, sample_rate: int, last: bool = False) -> tuple[int, float]:
    """The middle and the energy of the quietest PAUSE seconds, the first or the last of equals."""
    frame = max(1, int(FRAME * sample_rate))
    energy = mean_squares(samples[: len(samples) // frame * frame], frame)
    stretch = max(1, min(len(energy), round(PAUSE / FRAME)))
    if not len(energy):
        return 0, 0.0
    sums = np.lib.stride_tricks.sliding_window_view(energy, stretch).sum(1)
    index = len(sums) - 1 - int(sums[::-1].argmin()) if last else int(sums.argmin())
    return index * frame + stretch * frame // 2, float(sums[index])


@dataclass(frozen=True)
class _Cutter:
    """Takes the silence out of pieces."""

    sample_rate: int
    voice_activity: bool

    def audible(
        self, samples: np.ndarray, voiced: np.ndarray, start: int
    ) -> Iterator[tuple[float, np.ndarray]]:
        """The parts of the samples in which something is voiced, with a margin around them."""
        frame = max(1, int(FRAME * self.sample_rate))
        floor = FAINT_DB if self.voice_activity else SILENCE_DB
        loud = np.flatnonzero(mean_squares(voiced, frame) > 10 ** (floor / 10))
        if not len(loud):
            return
        margin = round((AROUND if self.voice_activity else PAUSE) / FRAME)
        apart = round(SEPARATE / FRAME) if self.voice_activity else len(voiced)
        for part in np.split(loud, np.flatnonzero(np.diff(loud) > apart) + 1):
            first = max(0, int(part[0]) - margin) * frame
            # A copy: one second of sound must not keep five silent minutes in memory.
            piece = samples[first : (int(part[-1]) + 1 + margin) * frame].copy()
            yield (start + first) / self.sample_rate, piece


def mean_squares(samples: np.ndarray, frame: int) -> np.ndarray:
    """Mean square of every frame of `frame` samples, the last one padded with zeros: (frames,)."""
    padded = np.pad(samples, (0, -len(samples) % frame))
    return np.square(padded.reshape(-1, frame)).mean(1)
