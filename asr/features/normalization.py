"""Mean and standard deviation of features over the training audio."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.masks import length_mask

# A bin that hardly varies in training must not be amplified where it varies later. An example is the empty
# upper half of telephone speech. One unit of natural log is well below the spread of any bin with speech.
MIN_STD = 1.0


class Statistics:
    """Running mean and variance of every feature over the valid frames of many batches, in float64."""

    def __init__(self, n_features: int) -> None:
        self.count = 0
        self.total = torch.zeros(n_features, dtype=torch.float64)
        self.square = torch.zeros(n_features, dtype=torch.float64)

    def add(self, features: Tensor, lengths: Tensor) -> None:
        """Count features (B, T, F), not normalized, with lengths (B,) in frames."""
        valid = features[length_mask(lengths, features.size(1))].double().cpu()  # (frames, F)
        self.count += valid.size(0)
        self.total += valid.sum(0)
        self.square += valid.square().sum(0)

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (F,) each. The latter is at least MIN_STD."""
        mean = self.total / max(1, self.count)
        variance = (self.square / max(1, self.count) - mean.square()).clamp_min(0)
        return mean, variance.sqrt().clamp_min(MIN_STD)
