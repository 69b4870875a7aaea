"""The Transformer encoder: front end, positions, self-attention blocks."""

from __future__ import annotations

from torch import Tensor, nn

from asr.config import ModelConfig
from asr.features import length_mask
from asr.model.attention import MultiHeadAttention
from asr.model.blocks import Residual, SinusoidalPositions, feed_forward, final_norm
from asr.model.frontend import ConvFrontEnd


class EncoderBlock(nn.Module):
    """Self-attention, then a feed-forward layer, each with its residual connection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config.d_model, config.n_heads, config.attention_dropout)
        self.feed_forward = feed_forward(config)
        self.around_attention = Residual(config)
        self.around_feed_forward = Residual(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, S, d_model), mask (B, 1, 1, S) true where a frame is valid -> (B, S, d_model)."""
        x = self.around_attention(x, lambda y: self.attention(y, mask))
        return self.around_feed_forward(x, self.feed_forward)


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
