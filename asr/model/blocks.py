"""Parts that encoders and decoders share: residual connections, feed-forward layers, positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from asr.model.kernels import Linear
from asr.section import Fraction, PartSection, Positive


class BlockSection(PartSection):
    """Sizes of a stack of Transformer blocks."""

    n_layers: Positive = Field(6, description="number of blocks")
    n_heads: Positive = Field(4, description="attention heads; they divide d_model")
    d_ffn: Positive = Field(1024, description="size of the hidden layer of the feed-forward parts")
    dropout: Fraction = Field(0.1, description="share of the values that are set to 0 in training")
    attention_dropout: Fraction = Field(
        0.0, description="the same for attention weights; above 0 the fused kernels cannot be used on a CPU"
    )
    norm: Literal["pre", "post"] = Field(
        "pre", description="place of the layer norm; post is the 2017 paper's and needs a longer warm-up"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> BlockSection:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads {self.n_heads} does not divide d_model {self.d_model}")
        if self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} is odd; sinusoidal positions need an even size")
        return self


class Dropout(nn.Dropout):
    """Dropout that is eight times as fast as torch's on a CPU, where torch draws random numbers one by one.

    One 64-bit number gives eight bytes, each compared with a threshold. The rate is rounded to a 256th. The
    remaining values are scaled by the rounded rate, so the expectation is exact.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        threshold = round(self.p * 256)
        if not self.training or x.device.type != "cpu" or not 0 < threshold < 256:
            return super().forward(x)
        numbers = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        scale = torch.empty(x.shape, dtype=x.dtype)  # the comparison writes 0 and 1 without a cast
        torch.ge(numbers.view(torch.uint8)[: x.numel()].view(x.shape), threshold, out=scale)
        return x * scale.mul_(256 / (256 - threshold))


class Residual(nn.Module):
    """A residual connection with layer normalization around a sublayer.

    pre:  x + dropout(sublayer(norm(x)))   trains without a long warm-up (Xiong et al. 2020); the stack needs
                                           one more norm at its end
    post: norm(x + dropout(sublayer(x)))   as in Vaswani et al. 2017
    """

    def __init__(self, config: BlockSection) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.norm = nn.LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x (B, T, d_model) -> the same shape."""
        if self.pre:
            return x + self.dropout(sublayer(self.norm(x)))
        return self.norm(x + self.dropout(sublayer(x)))


def final_norm(config: BlockSection) -> nn.Module:
    """The norm after the last block. Post-norm blocks end with one, so they need no other."""
    return nn.LayerNorm(config.d_model) if config.norm == "pre" else nn.Identity()


def feed_forward(config: BlockSection) -> nn.Module:
    """Position-wise feed-forward layer (section 3.3), d_model -> d_ffn -> d_model."""
    return nn.Sequential(
        Linear(config.d_model, config.d_ffn),
        nn.ReLU(),
        Dropout(config.dropout),
        Linear(config.d_ffn, config.d_model),
    )


class SinusoidalPositions(nn.Module):
    """Adds sinusoids of geometrically spaced wavelengths (section 3.5). Positions have no upper limit."""

    table: Tensor

    def __init__(self, d_model: int, dropout: float, size: int = 1024) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.register_buffer("table", _sinusoids(size, d_model), persistent=False)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """x (B, T, d_model), whose first position is `offset`, plus the sinusoids of its positions."""
        end = offset + x.size(1)
        return self.dropout(x + self.up_to(end)[offset:end])

    def up_to(self, end: int) -> Tensor:
        """The sinusoids of `end` positions or more: (>= end, d_model)."""
        if end > self.table.size(0):
            self.table = _sinusoids(2 * end, self.table.size(1)).to(self.table)
        return self.table


def _sinusoids(size: int, d_model: int) -> Tensor:
    """(size, d_model): sine in the even channels, cosine in the odd ones."""
    frequency = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))  # (d_model / 2,)
    angle = torch.arange(size).unsqueeze(1) * frequency  # (size, d_model / 2)
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1)
