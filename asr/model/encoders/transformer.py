"""The Transformer encoder: positions, then blocks of self-attention with an optional convolution."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from asr.masks import length_mask
from asr.model.attention import self_attention
from asr.model.blocks import Block, EncoderSection, Residual, feed_forward, final_norm
from asr.model.convolution import Convolution
from asr.model.interfaces import Memory
from asr.model.intermediate_ctc import AfterBlock
from asr.model.positions.interface import Relation, build_positions


class EncoderBlock(Block):
    """Self-attention, an optional convolution, a feed-forward layer, each with its residual connection."""

    def __init__(self, config: TransformerEncoder.Config) -> None:
        super().__init__()
        self.conv_kernel = config.conv_kernel
        self.attention = self_attention(config)
        self.feed_forward = feed_forward(config)
        self.attention_residual = Residual(config)
        if config.conv_kernel:
            self.convolution = Convolution(config.d_model, config.conv_kernel)
            self.convolution_residual = Residual(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor, relation: Relation | None = None) -> Tensor:
        """x (B, S, d_model), mask (B, 1, 1, S) true where a state is valid -> (B, S, d_model)."""
        x = self.attention_residual(x, lambda y: self.attention(y, mask, relation=relation))
        if self.conv_kernel:
            x = self.convolution_residual(x, lambda y: self.convolution(y, mask[:, 0, 0]))
        return self.feed_forward_residual(x, self.feed_forward)


class TransformerEncoder(nn.Module):
    """The states of a front end to encoder states (Vaswani et al. 2017, section 3.1)."""

    stride = 1

    class Config(EncoderSection):
        """Settings of a Transformer encoder."""

        kind: Literal["transformer"] = "transformer"
        conv_kernel: int = Field(
            0,
            ge=0,
            description="kernel size of the convolution in each block, an odd number of "
            "states; 0: no convolution",
        )

        @field_validator("conv_kernel")
        @classmethod
        def _is_odd(cls, kernel: int) -> int:
            if kernel and kernel % 2 == 0:
                raise ValueError(f"{kernel} is even; the kernel needs a middle, so use {kernel + 1}")
            return kernel

    def __init__(self, config: TransformerEncoder.Config) -> None:
        super().__init__()
        self.positions = build_positions(config)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.n_layers))
        self.norm = final_norm(config)

    def forward(self, x: Tensor, lengths: Tensor, after_block: AfterBlock | None = None) -> Memory:
        """x (B, S, d_model), lengths (B,) in states -> memory of the same shape."""
        x = self.positions(x)
        mask = length_mask(lengths, x.size(1))[:, None, None, :]
        relation = self.positions.relation_of(x)
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, mask, relation)
            x = x if after_block is None else after_block(x, number)
        return Memory(self.norm(x), lengths)
