"""The interface of every kind of features."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from asr.section import FeaturesSection


class Features(Protocol):
    """A module that turns waveforms into features, on the model's device: (B, samples) -> (B, T, F)."""

    @property
    def config(self) -> FeaturesSection:
        """Its settings."""
        ...

    @property
    def n_features(self) -> int:
        """F, the number of values in a frame."""
        ...

    @property
    def frame_seconds(self) -> float:
        """The time from one frame to the next, in seconds."""
        ...

    def frames(self, samples: Tensor) -> Tensor:
        """Number of frames of waveforms with so many samples: (B,) -> (B,)."""
        ...

    def fit(self, waveforms: Tensor, lengths: Tensor) -> None:
        """Count a batch of training audio in the statistics, where the kind has statistics."""
        ...

    def finish_fit(self) -> None:
        """Use the statistics counted so far."""
        ...

    def __call__(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, samples), lengths (B,) in samples -> features (B, T, F), lengths (B,) in frames.

        Frames after a row's length are zero.
        """
        ...


@runtime_checkable
class LimitsLength(Protocol):
    """Features that refuse recordings longer than their window."""

    @property
    def max_samples(self) -> int | None:
        """The most samples that a waveform can have; None: any number."""
        ...


@runtime_checkable
class HasFrequencies(Protocol):
    """Features whose values are energies around frequencies. Warping the frequency axis needs them."""

    @property
    def frequencies(self) -> Tensor:
        """The center of each bin (F,) in Hz, rising."""
        ...
