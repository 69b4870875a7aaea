"""Segmentation: long recordings are cut in pauses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

SILENCE_DB = -70.0  # dBFS: audio that is quieter throughout holds no speech that could be recognized
FRAME = 0.02  # seconds: the resolution with which energy is measured
PAUSE = 0.2  # seconds: a cut goes through the middle of the quietest stretch of this length
CLEARER = 0.1  # a pause in the first half is preferred only if its energy is below this part of the other one


def segments(
    blocks: Iterable[np.ndarray], sample_rate: int, longest_seconds: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Cut a recording, given in blocks (samples,), into pieces of `longest_seconds` at most.

    Yields (start in seconds, samples). Each cut is in the middle of the quietest 0.2 s of the second half of
    the longest piece. If the first half has a much quieter place, a pause, the cut is there. Only without any
    pause can a cut fall into a word. Stretches of silence are left out, and a piece begins and ends at most
    0.2 s before and after its sound. Cuts depend on the samples and on `longest_seconds` alone, not on the
    sizes of the blocks. Memory holds one piece and one block.
    """
    held, start = (
        np.zeros(0, np.float32),
        0,
    )  # `start`: position of held[0], in samples
    longest = max(1, int(longest_seconds * sample_rate))
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > longest:
            cut = _best_cut(held[:longest], sample_rate)
            yield from _audible(held[:cut], start, sample_rate)
            held, start = held[cut:], start + cut
    yield from _audible(held, start, sample_rate)


def _best_cut(samples: np.ndarray, sample_rate: int) -> int:
    """Where to cut the longest possible piece (samples,)."""
    half = len(samples) // 2
    cut, energy = _quietest(samples[half:], sample_rate)
    early_cut, early_energy = _quietest(samples[:half], sample_rate, last=True)
    if early_cut and early_energy < CLEARER * energy:
        return early_cut
    return max(1, half + cut)


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


def _audible(samples: np.ndarray, start: int, sample_rate: int) -> Iterator[tuple[float, np.ndarray]]:
    """The samples without the silence before and after, or nothing when all is silence."""
    frame = max(1, int(FRAME * sample_rate))
    loud = np.flatnonzero(mean_squares(samples, frame) > 10 ** (SILENCE_DB / 10))
    if len(loud):
        margin = round(PAUSE / FRAME)
        first = max(0, int(loud[0]) - margin) * frame
        # A copy: one second of sound must not keep five silent minutes in memory.
        yield (start + first) / sample_rate, samples[first : (loud[-1] + 1 + margin) * frame].copy()


def mean_squares(samples: np.ndarray, frame: int) -> np.ndarray:
    """Mean square of every frame of `frame` samples, the last one padded with zeros: (frames,)."""
    padded = np.pad(samples, (0, -len(samples) % frame))
    return np.square(padded.reshape(-1, frame)).mean(1)
