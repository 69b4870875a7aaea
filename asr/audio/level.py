"""Level normalization, for models that were trained on audio of one level."""

from __future__ import annotations

import numpy as np

from asr.audio.samples import SAMPLE_RATE
from asr.audio.segmentation import FRAME, SILENCE_DB, mean_squares

TARGET_DB = -26.0  # dBFS, mean square of the loud frames: the active speech level of ITU-T P.56 corpora
LARGEST_GAIN_DB = 40.0  # a recording of noise alone is not amplified by more than this
LOUD_RANGE_DB = 20.0  # frames within this range of the loudest ones count as speech


def speech_level(samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> float:
    """The level of the loud frames of mono samples (samples,) in dBFS; -inf for silence.

    Frames last 20 ms. A frame is loud if its level is within 20 dB of the 95th percentile of all frames that
    are not silent. So neither pauses nor a single click change the level.
    """
    energy = mean_squares(samples, max(1, int(FRAME * sample_rate)))
    energy = energy[energy > 10 ** (SILENCE_DB / 10)]
    if not len(energy):
        return -np.inf
    reference = np.percentile(energy, 95)
    loud = energy[energy >= reference * 10 ** (-LOUD_RANGE_DB / 10)]
    return float(10 * np.log10(np.minimum(loud, reference).mean()))


def normalize_level(
    samples: np.ndarray, sample_rate: int = SAMPLE_RATE, level: float | None = None
) -> np.ndarray:
    """Apply one gain to mono samples (samples,), so that the level of the loud frames is -26 dBFS: float32.

    `level` is the present level in dBFS, measured if it is None. The gain is at most 40 dB; silence is
    returned unchanged. Peaks can exceed 1: nothing is clipped.

    A long recording can be normalized block by block in two ways. One gain for all of it: measure
    `speech_level` of the first 30 seconds and give it as `level` for each block. A gain for each segment:
    normalize what `segments` yields; this is better when speakers differ in level.
    """
    if level is None:
        level = speech_level(samples, sample_rate)
    if level == -np.inf:
        return samples.astype(np.float32)
    gain_db = min(TARGET_DB - level, LARGEST_GAIN_DB)
    return samples.astype(np.float32) * np.float32(10 ** (gain_db / 20))
