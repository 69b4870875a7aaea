"""The Transformer encoder: positions and blocks of self-attention, with an optional convolution in each block."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import glu, silu

from asr.masks import length_mask
from asr.model.attention import MultiHeadAttention
from asr.model.blocks import BlockSection, Residual, SinusoidalPositions, feed_forward, final_norm
from asr.model.interfaces import Memory
from asr.model.kernels import Linear


class Convolution(nn.Module):
    """The convolution module of the Conformer (Gulati et al. 2020, section 2.2).

    A gate, a depthwise convolution over time, a norm, and a projection. The norm is over the channels of a
    frame. The paper's is over the batch, which would make a result depend on the other utterances.
    """

    def __init__(self, d_model: int, kernel: int) -> None:
        super().__init__()
        self.gate = Linear(d_model, 2 * d_model)
        # With two dimensions, because torch's one-dimensional convolution takes ten times as long on a CPU.
        self.depthwise = nn.Conv2d(d_model, d_model, (kernel, 1), padding=(kernel // 2, 0), groups=d_model)
        self.norm = nn.LayerNorm(d_model)
        self.out = Linear(d_model, d_model)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, S, d_model), valid (B, S) -> (B, S, d_model)."""
        x = glu(self.gate(x), dim=-1) * valid.unsqueeze(2)  # zeros after each row's end
        x = self.depthwise(x.transpose(1, 2).unsqueeze(3))  # (B, d_model, S, 1)
        return self.out(silu(self.norm(x.squeeze(3).transpose(1, 2))))


class EncoderBlock(nn.Module):
    """Self-attention, an optional convolution, a feed-forward layer, each with its residual connection."""

    def __init__(self, config: TransformerEncoder.Config) -> None:
        super().__init__()
        self.conv_kernel = config.conv_kernel
        self.attention = MultiHeadAttention(config.d_model, config.n_heads, config.attention_dropout)
        self.feed_forward = feed_forward(config)
        self.attention_residual = Residual(config)
        if config.conv_kernel:
            self.convolution = Convolution(config.d_model, config.conv_kernel)
            self.convolution_residual = Residual(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, S, d_model), mask (B, 1, 1, S) true where a state is valid -> (B, S, d_model)."""
        x = self.attention_residual(x, lambda y: self.attention(y, mask))
        if self.conv_kernel:
            x = self.convolution_residual(x, lambda y: self.convolution(y, mask[:, 0, 0]))
        return self.feed_forward_residual(x, self.feed_forward)


class TransformerEncoder(nn.Module):
    """The states of a front end to encoder states (Vaswani et al. 2017, section 3.1)."""

    class Config(BlockSection):
        """Settings of a Transformer encoder."""

        kind: Literal["transformer"] = "transformer"
        conv_kernel: int = Field(
            0, ge=0, description="states under the convolution in each block, odd; 0: no convolution"
        )

        @field_validator("conv_kernel")
        @classmethod
        def _is_odd(cls, kernel: int) -> int:
            if kernel and kernel % 2 == 0:
                raise ValueError(f"{kernel} is even; the kernel needs a middle, so use {kernel + 1}")
            return kernel

    def __init__(self, config: TransformerEncoder.Config) -> None:
        super().__init__()
        self.positions = SinusoidalPositions(config.d_model, config.dropout)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.n_layers))
        self.norm = final_norm(config)

    def forward(self, x: Tensor, lengths: Tensor) -> Memory:
        """x (B, S, d_model), lengths (B,) in states -> memory of the same shape."""
        x = self.positions(x)
        mask = length_mask(lengths, x.size(1))[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return Memory(self.norm(x), lengths)
