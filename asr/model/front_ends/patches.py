"""The front end of the Vision Transformer: patches of the spectrogram, projected linearly."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from asr.model.kernels import Linear
from asr.section import PartSection, Positive


class PatchFrontEnd(nn.Module):
    """The spectrogram is cut into patches of frames and frequency bins, and each patch becomes a state.

    Dosovitskiy et al. 2021 for images; Gong et al. 2021 (AST) for spectrograms. The patches of one time
    follow one another, from low to high frequencies. So the states are in the order of time, as CTC needs.
    The positions of the encoder give this order, and a learned vector is added for each place on the
    frequency axis. The layer normalization brings the states to the size of the positions.
    """

    class Config(PartSection):
        """Settings of the front end that cuts the spectrogram into patches."""

        kind: Literal["patches"] = "patches"
        frames: Positive = Field(16, description="frames in a patch")
        bins: Positive = Field(
            16, description="frequency bins in a patch; fewer bins give more states for the same time"
        )

    def __init__(self, config: PatchFrontEnd.Config, n_features: int) -> None:
        super().__init__()
        self.frames, self.bins = config.frames, config.bins
        self.bands = (n_features + config.bins - 1) // config.bins
        self.frames_per_state = config.frames / self.bands
        self.project = Linear(config.frames * config.bins, config.d_model)
        self.band = nn.Parameter(torch.zeros(self.bands, config.d_model))
        nn.init.normal_(self.band, std=0.02)  # as in the Vision Transformer
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), zero after each row's length, lengths (B,) -> (B, S, d_model), lengths (B,).

        S = ceil(T / frames) * ceil(F / bins). The last patches are filled with zeros.
        """
        missing_frames = -features.size(1) % self.frames
        missing_bins = -features.size(2) % self.bins
        x = pad(features, (0, missing_bins, 0, missing_frames))
        x = x.unflatten(2, (self.bands, self.bins)).unflatten(1, (-1, self.frames))
        # (B, time, frames, bands, bins)
        x = self.project(x.transpose(2, 3).flatten(3))  # (B, time, bands, d_model)
        x = self.norm(x + self.band)
        return x.flatten(1, 2), (lengths + self.frames - 1) // self.frames * self.bands
