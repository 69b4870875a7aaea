"""Calibration: from the confidence of a word to the probability that it is right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr.errors import AsrError
from asr.files import atomic_write
from asr.run_folder import WEIGHTS

CALIBRATION = "calibration.json"  # in the model folder
FEWEST = 50  # words for each point of the curve


@dataclass(frozen=True)
class Calibration:
    """A rising curve: of the words with confidence `raw[i]`, the share `right[i]` is right."""

    raw: tuple[float, ...]
    right: tuple[float, ...]

    def __call__(self, confidence: float) -> float:
        """The probability that a word is right, 0 to 1: linear between the points."""
        return float(np.interp(confidence, self.raw, self.right))

    @classmethod
    def fit(cls, confidences: Sequence[float], right: Sequence[bool]) -> Calibration:
        """Isotonic regression of groups of words with similar confidence (Zadrozny and Elkan 2002).

        Raises AsrError for fewer than 100 words.
        """
        if len(confidences) < 2 * FEWEST:
            raise AsrError(f"{len(confidences)} words: too few to calibrate; use {2 * FEWEST} or more")
        order = np.argsort(confidences, kind="stable")
        count = max(2, min(20, len(order) // FEWEST))
        # Each group: mean confidence, share of right words, number of words. Neighbors are pooled where the
        # share does not rise.
        pooled: list[tuple[float, float, int]] = []
        for group in np.array_split(order, count):
            pooled.append(
                (
                    float(np.asarray(confidences)[group].mean()),
                    float(np.asarray(right)[group].mean()),
                    len(group),
                )
            )
            while len(pooled) > 1 and pooled[-2][1] >= pooled[-1][1]:
                (x, y, n), (u, v, m) = pooled[-2:]
                pooled[-2:] = [((x * n + u * m) / (n + m), (y * n + v * m) / (n + m), n + m)]
        return cls(tuple(round(x, 4) for x, _, _ in pooled), tuple(round(y, 4) for _, y, _ in pooled))

    def save(self, folder: Path) -> None:
        """Write it to a model folder, for the weights that are there now."""
        with atomic_write(folder / CALIBRATION) as out:
            json.dump({"weights": _digest(folder), "raw": self.raw, "right": self.right}, out)


def load_calibration(folder: Path) -> Calibration | None:
    """The calibration of a model folder; None if it has none, or one that was measured with other weights.

    Raises AsrError for a broken file.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        raw, right = (tuple(float(v) for v in values[name]) for name in ("raw", "right"))
        if not raw or len(raw) != len(right) or list(raw) != sorted(raw):
            raise ValueError("its lists do not fit")
        return Calibration(raw, right) if values["weights"] == _digest(folder) else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AsrError(f"{path}: not a calibration ({error}); delete it, or measure it again") from None


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
