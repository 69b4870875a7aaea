"""The convolutional front end, which divides time by 4."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from asr.masks import length_mask
from asr.model.kernels import Linear, linear
from asr.section import PartSection, Positive


class ConvolutionFrontEnd(nn.Module):
    """Two 3x3 convolutions with stride 2 over time and frequency, then a projection to d_model.

    Each convolution is followed by a mask. So the zeros after an utterance's end are the same in a batch as
    for the utterance alone. The layer normalization at the end brings the states to the size of the
    positions, which are added next. Without it the cross-attention takes longer to learn its place.
    """

    frames_per_state = 4.0

    class Config(PartSection):
        """Settings of the convolutional front end."""

        kind: Literal["convolution"] = "convolution"
        channels: Positive = Field(64, description="channels of both convolutions")

    def __init__(self, config: ConvolutionFrontEnd.Config, n_features: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, config.channels, kernel_size=3, stride=2, padding=1)
            for channels in (1, config.channels)
        )
        self.project = Linear(config.channels * _halved(_halved(n_features)), config.d_model)
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> (B, S, d_model), lengths (B,) with S = ceil(T / 4)."""
        x = self._first(features)  # (B, channels, ceil(T / 2), ceil(F / 2))
        lengths = _halved(lengths)
        # A mask before ReLU equals one after it, and ReLU can then work in place.
        x = (x * length_mask(lengths, x.size(2))[:, None, :, None]).relu_()
        x = self.convolutions[1](x)  # (B, channels, S, ceil(F / 4))
        lengths = _halved(lengths)
        x = (x * length_mask(lengths, x.size(2))[:, None, :, None]).relu_()
        x = self.project(x.transpose(1, 2).flatten(2))  # (B, S, channels * F / 4) -> (B, S, d_model)
        return self.norm(x), lengths

    def _first(self, features: Tensor) -> Tensor:
        """The first convolution of features (B, T, F): (B, channels, ceil(T / 2), ceil(F / 2)).

        As a product of its patches it is fast, and leaves the channels adjacent in memory, as the second
        convolution needs them. Only the gradients of float32 are slow that way on a CPU.
        """
        first = self.convolutions[0]
        assert isinstance(first, nn.Conv2d)
        bf16 = torch.is_autocast_enabled(features.device.type)
        if features.device.type == "cpu" and torch.is_grad_enabled() and not bf16:
            return first(features.unsqueeze(1))
        patches = pad(features, (1, 1, 1, 1)).unfold(1, 3, 2).unfold(2, 3, 2).flatten(3)  # (B, T/2, F/2, 9)
        return linear(patches, first.weight.flatten(1), first.bias).permute(0, 3, 1, 2)


def _halved(length):  # type: ignore[no-untyped-def]  # int -> int, Tensor -> Tensor
    """The length after a kernel of 3 with padding 1 and stride 2: ceil(length / 2)."""
    return (length + 1) // 2
