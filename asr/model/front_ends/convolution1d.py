"""Convolutions over time, with the frequencies as channels: the front end of Whisper and of Speech2Text."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.functional import gelu, glu

from asr.masks import length_mask
from asr.section import PartSection, Positive


class Convolution1dFrontEnd(nn.Module):
    """Convolutions over time, each followed by an activation and a mask.

    The defaults are Whisper's (Radford et al. 2022): kernels of 3, and the second convolution halves the
    time. Speech2Text (Wang et al. 2020, fairseq S2T) has `kernels: [5, 5]`, `strides: [2, 2]`,
    `activation: glu` and `scale: true`.
    """

    class Config(PartSection):
        """Settings of the front end with one-dimensional convolutions."""

        kind: Literal["convolution1d"] = "convolution1d"
        channels: Positive | None = Field(
            None, description="values per state between two convolutions; null: d_model"
        )
        kernels: tuple[Positive, ...] = Field(
            (3, 3), description="kernel size of each convolution, an odd number of frames"
        )
        strides: tuple[Positive, ...] = Field(
            (1, 2), description="factor by which each convolution divides the number of frames"
        )
        activation: Literal["gelu", "glu"] = Field(
            "gelu", description="glu: a convolution computes twice the channels, and one half gates the other"
        )
        scale: bool = Field(False, description="multiply the states by the square root of d_model")

        @field_validator("kernels")
        @classmethod
        def _are_odd(cls, kernels: tuple[int, ...]) -> tuple[int, ...]:
            if not kernels or any(kernel % 2 == 0 for kernel in kernels):
                raise ValueError(f"{list(kernels)} is not a list of odd numbers; a kernel needs a middle")
            return kernels

        @model_validator(mode="after")
        def _as_many_strides(self) -> Convolution1dFrontEnd.Config:
            if len(self.strides) != len(self.kernels):
                raise ValueError(
                    f"{len(self.kernels)} kernels but {len(self.strides)} strides; "
                    "give one stride for each kernel"
                )
            return self

    def __init__(self, config: Convolution1dFrontEnd.Config, n_features: int) -> None:
        super().__init__()
        self.gated = config.activation == "glu"
        self.scale = math.sqrt(config.d_model) if config.scale else 1.0
        count = len(config.kernels)
        sizes = [n_features, *[config.channels or config.d_model] * (count - 1), config.d_model]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(
                sizes[i],
                sizes[i + 1] * (2 if self.gated else 1),
                config.kernels[i],
                config.strides[i],
                padding=config.kernels[i] // 2,
            )
            for i in range(count)
        )
        self.strides = config.strides
        self.frames_per_state = float(math.prod(config.strides))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> (B, S, d_model), lengths (B,).

        A stride s makes ceil(L / s) states of a length L.
        """
        x = features.transpose(1, 2)  # (B, F, T)
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            x = convolution(x)  # (B, channels, ceil(T / stride))
            x = glu(x, dim=1) if self.gated else gelu(x)
            lengths = (lengths + stride - 1) // stride
            x = x * length_mask(lengths, x.size(2)).unsqueeze(1)  # zeros, as after a single recording
        return x.transpose(1, 2) * self.scale, lengths
