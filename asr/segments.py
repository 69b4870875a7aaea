"""Cutting long recordings at silence, never inside a word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

# A recording this quiet throughout (full scale is 0 dB) holds no speech that could be recognised.
SILENCE_DB = -70.0
FRAME = 0.02  # seconds: the grain in which energy is measured
QUIET = 0.2  # seconds: a cut goes through the middle of the quietest stretch so long


def segments(
    blocks: Iterable[np.ndarray], sample_rate: int, longest: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Cut a recording, given block by block, into pieces of at most `longest` seconds: (start, samples).

    Each cut is at the quietest place of the second half of what may be one piece. Stretches of silence are
    left out, so that an hour of it costs nothing. A piece begins and ends near what sounds in it.
    """
    held, start = np.zeros(0, np.float32), 0  # `start` is the place of held[0] in the recording, in samples
    most = int(longest * sample_rate)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > most:
            cut = most // 2 + _quietest(held[most // 2 : most], sample_rate)
            yield from _audible(held[:cut], start, sample_rate)
            held, start = held[cut:], start + cut
    yield from _audible(held, start, sample_rate)


def _quietest(samples: np.ndarray, sample_rate: int) -> int:
    """The middle of the quietest stretch of QUIET seconds."""
    from librosa.feature import rms  # takes a second to import, and only long recordings need it

    stretch, frame = min(len(samples), int(QUIET * sample_rate)), int(FRAME * sample_rate)
    energy = rms(y=samples, frame_length=stretch, hop_length=frame, center=False)[0]
    return int(energy.argmin()) * frame + stretch // 2


def _audible(samples: np.ndarray, start: int, sample_rate: int) -> Iterator[tuple[float, np.ndarray]]:
    """The samples without the silence before and after, or nothing when all is silence."""
    frame = int(FRAME * sample_rate)
    loud = np.flatnonzero(_energy(samples, frame) > 10 ** (SILENCE_DB / 10))
    if len(loud):
        margin = round(QUIET / FRAME)
        first = max(0, int(loud[0]) - margin) * frame
        # A copy: one second that sounds must not keep five silent minutes in memory.
        yield (start + first) / sample_rate, samples[first : (loud[-1] + 1 + margin) * frame].copy()


def _energy(samples: np.ndarray, frame: int) -> np.ndarray:
    """Mean square of every frame, the last one filled up with zeros."""
    padded = np.pad(samples, (0, -len(samples) % frame))
    return np.square(padded.reshape(-1, frame)).mean(1)
