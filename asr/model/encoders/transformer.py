"""The Transformer encoder: front end, positions, blocks of self-attention and, if wanted, convolutions."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import glu, silu

from asr.config import ModelConfig
from asr.masks import length_mask
from asr.model.attention import MultiHeadAttention
from asr.model.blocks import Residual, SinusoidalPositions, feed_forward, final_norm
from asr.model.front_ends.convolution import ConvFrontEnd
from asr.model.kernels import Linear


class Convolution(nn.Module):
    """The convolution module of the Conformer (Gulati et al. 2020, section 2.2): what is near.

    A gate, a depthwise convolution over time, a norm, a projection. The norm is over the channels of a frame
    and not, as in the paper, over the batch: what else is in the batch then changes nothing.
    """

    def __init__(self, d_model: int, kernel: int) -> None:
        super().__init__()
        self.gate = Linear(d_model, 2 * d_model)
        # Of two dimensions, because torch's one-dimensional one takes ten times as long on a CPU.
        self.depthwise = nn.Conv2d(d_model, d_model, (kernel, 1), padding=(kernel // 2, 0), groups=d_model)
        self.norm = nn.LayerNorm(d_model)
        self.out = Linear(d_model, d_model)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, S, d_model), valid (B, S) -> (B, S, d_model)."""
        x = glu(self.gate(x), dim=-1) * valid.unsqueeze(2)  # beyond a row's end is what pads the convolution
        x = self.depthwise(x.transpose(1, 2).unsqueeze(3))  # (B, d_model, S, 1)
        return self.out(silu(self.norm(x.squeeze(3).transpose(1, 2))))


class EncoderBlock(nn.Module):
    """Self-attention, a convolution if wanted, a feed-forward layer, each with its residual connection."""

    def __init__(self, config: ModelConfig) -> None:
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
        """x (B, S, d_model), mask (B, 1, 1, S) true where a frame is valid -> (B, S, d_model)."""
        x = self.attention_residual(x, lambda y: self.attention(y, mask))
        if self.conv_kernel:
            x = self.convolution_residual(x, lambda y: self.convolution(y, mask[:, 0, 0]))
        return self.feed_forward_residual(x, self.feed_forward)


class Encoder(nn.Module):
    """Features to encoder states."""

    def __init__(self, config: ModelConfig, n_mels: int) -> None:
        super().__init__()
        self.front_end = ConvFrontEnd(n_mels, config.conv_channels, config.d_model)
        self.positions = SinusoidalPositions(config.d_model, config.dropout)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))
        self.norm = final_norm(config)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, n_mels), lengths (B,) in frames -> states (B, S, d_model), lengths (B,)."""
        x, lengths = self.front_end(features, lengths)
        x = self.positions(x)
        mask = length_mask(lengths, x.size(1))[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x), lengths
