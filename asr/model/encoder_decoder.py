"""The assembled Transformer: encoder, decoder and CTC head behind the seams of `asr.model.interfaces`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from asr.config import ModelConfig
from asr.masks import length_mask
from asr.model.decoders.transformer import Decoder, DecoderState
from asr.model.encoders.transformer import Encoder
from asr.model.interfaces import Memory


class Transformer(nn.Module):
    """Attention encoder-decoder (Vaswani et al. 2017; Dong et al. 2018 for speech) with a CTC head.

    The CTC head on the encoder (Watanabe et al. 2017) keeps the alignment monotonic while the
    cross-attention learns, and gives a bound on the length when decoding.
    """

    # Weights with one row for each token: with another vocabulary, a row goes where its character goes.
    BY_TOKEN = (
        "decoder.embed.weight",
        *("decoder.out.weight", "decoder.out.bias"),
        *("ctc_head.weight", "ctc_head.bias"),
    )

    def __init__(self, config: ModelConfig, n_mels: int, vocabulary: int) -> None:
        super().__init__()
        self.encoder = Encoder(config, n_mels)
        self.decoder = Decoder(config, vocabulary)
        self.ctc_head = nn.Linear(config.d_model, vocabulary) if config.ctc else None

    def compile(self, **options: Any) -> None:
        """Compile each block by itself (`torch.compile`): all are alike, so that one compilation serves them.

        As a whole, the network would be compiled anew for many a combination of lengths.
        """
        for block in (*self.encoder.blocks, *self.decoder.blocks):
            block.compile(**options)

    def encode(self, features: Tensor, lengths: Tensor) -> Memory:
        """features (B, T, n_mels), lengths (B,) in frames -> memory with S = ceil(T / 4)."""
        return Memory(*self.encoder(features, lengths))

    def decode(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Teacher forcing: tokens (B, U) from BOS on -> logits (B, U, V)."""
        return self.decoder(tokens, memory.states, _mask(memory))

    def cross_attention(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Weights of the cross-attention under teacher forcing (B, n_layers, n_heads, U, S), float32."""
        weights: list[Tensor] = []
        self.decoder(tokens, memory.states, _mask(memory), weights)
        return torch.stack(weights, dim=1)

    def start(self, memory: Memory, capacity: int) -> DecoderState:
        """Caches for `capacity` positions; keys and values of the cross-attention are computed here, once."""
        return self.decoder.start(memory.states, _mask(memory), capacity)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """tokens (B,) -> log-probabilities (B, V) of the next ones, float32; the state is updated."""
        return self.decoder.step(tokens, state).float().log_softmax(-1)

    def forward_cached(self, tokens: Tensor, state: DecoderState, starts: Tensor) -> Tensor:
        """tokens (B, U) at positions from starts (B,) on -> log-probabilities (B, U, V), float32."""
        return self.decoder.forward_cached(tokens, state, starts).float().log_softmax(-1)

    def ctc(self, memory: Memory) -> Tensor | None:
        """Log-probabilities (B, S, V), float32, the blank at PAD's place; None without a CTC head."""
        return None if self.ctc_head is None else self.ctc_head(memory.states).float().log_softmax(-1)


def _mask(memory: Memory) -> Tensor:
    return length_mask(memory.lengths, memory.states.size(1))[:, None, None, :]  # (B, 1, 1, S)
