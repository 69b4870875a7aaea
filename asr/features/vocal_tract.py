"""Vocal tract length perturbation: the frequency axis of features is warped in training."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.features.settings import VocalTractConfig

CORNER = 4800.0  # Hz; the warping is proportional up to here, so that the formants stay below the corner


def perturb_vocal_tract(features: Tensor, frequencies: Tensor, config: VocalTractConfig) -> Tensor:
    """Features (B, T, F) of other vocal tract lengths (Jaitly and Hinton 2013), a factor for each row.

    `frequencies` (F,) are the rising centers of the bins, in Hz. The factor is drawn for a share
    `config.probability` of the rows. Random numbers come from torch's global generator of the CPU, so they
    are the same on every device.
    """
    low, high = config.factors
    factors = torch.empty(features.size(0)).uniform_(low, high)
    drawn = torch.rand(features.size(0)) < config.probability
    factors = torch.where(drawn, factors, 1.0).to(features.device)
    return warp_frequencies(features, frequencies, factors)


def warp_frequencies(features: Tensor, frequencies: Tensor, factors: Tensor) -> Tensor:
    """Features (B, T, F): the value at frequency f is the value of the input at the warped frequency.

    Warped means multiplied by the row's factor (B,) up to a corner, and then linear up to the highest
    frequency, which stays. Values between two bins are interpolated. A row with factor 1 does not change. A
    factor above 1 moves formants down, as a longer vocal tract does.
    """
    batch, _, bins = features.shape
    frequencies, factors = frequencies.float(), factors.float().unsqueeze(1)  # (F,), (B, 1)
    top = frequencies[-1]
    corner = torch.minimum(0.6 * top, top.new_tensor(CORNER)) * factors.clamp_max(1.0) / factors  # (B, 1)
    slope = (top - corner * factors) / (top - corner)
    proportional = frequencies * factors
    warped = torch.where(frequencies <= corner, proportional, top - slope * (top - frequencies))  # (B, F)

    right = torch.searchsorted(frequencies, warped.contiguous()).clamp(1, bins - 1)
    left = right - 1
    part = (warped - frequencies[left]) / (frequencies[right] - frequencies[left])
    part = part.clamp(0.0, 1.0)  # below the first bin its value is used
    matrix = features.new_zeros(batch, bins, bins, dtype=torch.float32)  # (B, source, target)
    matrix.scatter_add_(1, left.unsqueeze(1), (1 - part).unsqueeze(1))
    matrix.scatter_add_(1, right.unsqueeze(1), part.unsqueeze(1))
    return features @ matrix.to(features.dtype)
