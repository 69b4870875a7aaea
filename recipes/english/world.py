"""Speech in another voice by the WORLD vocoder (Morise et al. 2016; `pip install pyworld`)."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pyworld
from numpy.typing import NDArray

Audio = NDArray[np.float32]  # mono, (time,)
FRAME_PERIOD = 5.0  # ms


@dataclass(frozen=True)
class Change:
    """How WORLD changes a voice. 1 leaves it as it is."""

    warp: float  # of the spectral envelope's frequencies: above 1 a shorter vocal tract
    pitch: float  # factor of the fundamental frequency
    intonation: float  # factor of its range, in log frequency
    breath: float  # exponent of the aperiodicity: below 1 more breath

    @property
    def id(self) -> str:
        """A name for the manifest, as "world-1.08-0.80" (warp, pitch)."""
        return f"world-{self.warp:.2f}-{self.pitch:.2f}"


def draw_change(draw: random.Random) -> Change:
    """A change towards another person; pitch goes with the length of the vocal tract, loosely."""
    warp = draw.uniform(0.82, 1.22)
    return Change(warp, warp**1.5 * draw.uniform(0.72, 1.4), draw.uniform(0.6, 1.5), draw.uniform(0.6, 1.3))


def revoice(audio: Audio, sample_rate: int, change: Change) -> Audio:
    """The same words at the same times in another voice; the length stays.

    The pitch is found by DIO and refined by StoneMask: ten times as fast as Harvest.
    """
    samples = audio.astype(np.float64)
    f0, times = pyworld.dio(samples, sample_rate, frame_period=FRAME_PERIOD)
    f0 = pyworld.stonemask(samples, f0, times, sample_rate)
    envelope = pyworld.cheaptrick(samples, f0, times, sample_rate)  # (frames, bins), power
    aperiodicity = pyworld.d4c(samples, f0, times, sample_rate)  # (frames, bins), 0 to 1

    bins = np.arange(envelope.shape[1])
    position = np.minimum(bins / change.warp, bins[-1])
    lower = position.astype(int)
    upper = np.minimum(lower + 1, bins[-1])
    fraction = position - lower
    logs = np.log(envelope)
    envelope = np.exp(logs[:, lower] * (1 - fraction) + logs[:, upper] * fraction)

    voiced = f0 > 0
    if voiced.any():
        center = np.exp(np.log(f0[voiced]).mean())
        f0[voiced] = np.clip(center * change.pitch * (f0[voiced] / center) ** change.intonation, 60, 500)
    result = pyworld.synthesize(
        f0,
        np.ascontiguousarray(envelope),
        np.clip(aperiodicity**change.breath, 0, 1),
        sample_rate,
        FRAME_PERIOD,
    )
    return np.pad(result, (0, audio.size))[: audio.size].astype(np.float32)
