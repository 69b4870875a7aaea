"""Parts that encoders and decoders share: residual connections and feed-forward layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from asr.model.kernels import Linear
from asr.model.positions.interface import PositionsField
from asr.section import Fraction, PartSection, Positive


class BlockSection(PartSection):
    """Sizes of a stack of Transformer blocks."""

    n_layers: Positive = Field(6, description="number of blocks")
    n_heads: Positive = Field(4, description="attention heads; d_model must be a multiple of this number")
    d_ffn: Positive = Field(1024, description="size of the hidden layer of the feed-forward parts")
    dropout: Fraction = Field(0.1, description="share of the values that are set to 0 in training")
    attention_dropout: Fraction = Field(
        0.0, description="the same for attention weights; above 0 the fused kernels cannot be used on a CPU"
    )
    norm: Literal["pre", "post"] = Field(
        "pre", description="place of the layer norm; post is the 2017 paper's and needs a longer warm-up"
    )
    activation: Literal["relu", "gelu", "silu", "swiglu"] = Field(
        "relu",
        description="activation of the feed-forward parts; swiglu has a third matrix, so two thirds of d_ffn "
        "give the same number of weights",
    )
    positions: PositionsField = Field(
        {"kind": "sinusoidal"}, validate_default=True, description="how positions are encoded"
    )
    key_bias: bool = Field(True, description="bias of the projection to keys; Whisper has none")

    @model_validator(mode="after")
    def _heads_divide(self) -> BlockSection:
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}; change one of them"
            )
        if self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} is odd; sinusoidal positions need an even number")
        if self.positions.kind == "rotary" and self.d_model // self.n_heads % 2:
            raise ValueError(
                f"a head has {self.d_model // self.n_heads} channels; rotary positions need an even number, "
                "so choose other n_heads"
            )
        return self


class EncoderSection(BlockSection):
    """Settings of a stack of encoder blocks."""

    window: Positive | None = Field(
        None, description="local attention: states on each side that a state attends to; null: all states"
    )


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


class Block(nn.Module):
    """One of the equal layers of an encoder or decoder. `EncoderDecoder.compile` compiles each by itself."""


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


class SwiGLU(nn.Module):
    """The first half of the channels through SiLU, times the second half (Shazeer 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., 2 * n) -> (..., n)."""
        gate, values = x.chunk(2, dim=-1)
        return silu(gate) * values


ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "swiglu": SwiGLU}


def feed_forward(config: BlockSection) -> nn.Module:
    """Position-wise feed-forward layer (section 3.3), d_model -> d_ffn -> d_model."""
    gated = config.activation == "swiglu"
    return nn.Sequential(
        Linear(config.d_model, 2 * config.d_ffn if gated else config.d_ffn),
        ACTIVATIONS[config.activation](),
        Dropout(config.dropout),
        Linear(config.d_ffn, config.d_model),
    )
