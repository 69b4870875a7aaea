"""The state of a run beside weights and moments, and the rules that read it. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

History = Sequence[Mapping[str, Any]]
"""One entry for each validation: the step and its scores."""


class StreamPosition(NamedTuple):
    """How many batches of an endless stream are done. An epoch is a series of pools, and a pool is a series
    of batches.
    """

    epoch: int = 0
    pool: int = 0
    batch: int = 0


@dataclass
class TrainState:
    """The state that resuming needs, in addition to the weights and the moments of the optimizer."""

    step: int = 0  # steps done, skipped ones included
    position: StreamPosition = field(default_factory=StreamPosition)
    seconds: float = 0.0  # spent in steps, over all parts of the run
    history: list[dict[str, Any]] = field(default_factory=list)  # validations
    bad: list[str] = field(default_factory=list)  # recordings that could not be read, one message each
    updates: int = 0  # steps that changed the weights
    skipped: int = 0  # steps in a row that did not change the weights
    typical_loss: float | None = None  # moving average of the loss per token
    unalignable: int = 0  # texts of this epoch that were too long for CTC
    precision: str | None = None  # in which steps compute; a run keeps it if train.precision is auto
    loss_scale: dict[str, float] = field(default_factory=dict)  # the state of the scaler of fp16
    data: str = ""  # describes the training and validation data, to notice when they change

    def to_json(self) -> dict[str, Any]:
        """Values for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainState:
        """The state of stored values. Raises TypeError or ValueError for other values."""
        values = dict(values)
        if isinstance(values["position"], int):  # until version 0.2
            values["position"] = (values.pop("epoch"), 0, values["position"])
            values["updates"] = values["step"] - values.get("skipped", 0)
        if "bf16" in values:  # until version 0.3
            values["precision"] = {True: "bf16", False: "float32", None: None}[values.pop("bf16")]
        return cls(**values | {"position": StreamPosition(*values["position"])})


def criterion(entry: Mapping[str, Any]) -> float:
    """The score that decides which validation is the best. Lower is better."""
    return float(entry["cer"] if "cer" in entry else entry["perplexity"])


def describe(entry: Mapping[str, Any]) -> str:
    """The score that decides, with its name."""
    return f"CER {entry['cer']:.2%}" if "cer" in entry else f"perplexity {entry['perplexity']:.3f}"


def best_validations(history: History, count: int) -> list[Mapping[str, Any]]:
    """The validations with the lowest score. Of equal ones, the later one is first."""
    return sorted(history, key=lambda entry: (criterion(entry), -entry["step"]))[:count]


def time_is_over(seconds: float, max_minutes: float | None) -> bool:
    """Whether a run has trained for its longest time."""
    return max_minutes is not None and seconds >= 60 * max_minutes


def stop_reason(
    step: int,
    history: History,
    steps: int,
    patience: int | None = None,
    stop_wer: float | None = None,
    max_minutes: float | None = None,
    seconds: float = 0.0,
) -> str | None:
    """Why a run ends at a step, None if it goes on.

    `stop_wer` is compared with the WER, or with the CER in scripts without spaces between words.
    """
    if step >= steps:
        return "all steps are done"
    if time_is_over(seconds, max_minutes):
        return "train.max_minutes is reached"
    if not history or history[-1]["step"] != step:
        return None
    last = history[-1]
    if stop_wer is not None and last.get("wer", last.get("cer", 1.0)) <= stop_wer:
        return "train.stop_wer is reached"
    scores = [criterion(entry) for entry in history]
    if patience is not None and len(scores) - 1 - scores.index(min(scores)) >= patience:
        return f"no better score for {patience} validations"
    return None


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
