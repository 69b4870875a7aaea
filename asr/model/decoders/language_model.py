"""A language model: a Transformer decoder without an encoder, which gives text its probability."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr.config_lm import LanguageModelConfig
from asr.model.attention import MultiHeadAttention
from asr.model.blocks import Residual, SinusoidalPositions, feed_forward, final_norm


@dataclass
class LanguageState:
    """Keys and values of every block (n_layers, B, n_heads, capacity, d_head), allocated once."""

    keys: Tensor
    values: Tensor
    position: int = 0

    def select(self, rows: Tensor) -> LanguageState:
        """The state of the given rows (indices, in any order, repeated or left out).

        What is there already stays where it is: of the caches only what has been written is copied, and on a
        CPU only for rows that change. This state is not to be used any more.
        """
        own = torch.arange(len(rows), device=rows.device)
        resized = len(rows) != self.keys.size(1)
        # Which rows change, only the host could tell: a device would have to be waited for.
        to = own if resized or rows.device.type != "cpu" else own[rows != own]
        for name in ("keys", "values"):
            cache: Tensor = getattr(self, name)
            new = cache.new_empty(cache.size(0), len(rows), *cache.shape[2:]) if resized else cache
            new[:, to, :, : self.position] = cache[:, rows[to], :, : self.position]
            setattr(self, name, new)
        return self


class LanguageBlock(nn.Module):
    """Masked self-attention, then a feed-forward layer, each with its residual connection."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config.d_model, config.n_heads, config.attention_dropout)
        self.feed_forward = feed_forward(config)
        self.attention_residual = Residual(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor) -> Tensor:
        """All positions at once: x (B, U, d_model) -> the same shape."""
        x = self.attention_residual(x, lambda y: self.attention(y, causal=True))
        return self.feed_forward_residual(x, self.feed_forward)

    def step(self, x: Tensor, state: LanguageState, layer: int) -> Tensor:
        """One position x (B, 1, d_model); its key and value are written into the state's caches."""
        keys, values, seen = state.keys[layer], state.values[layer], state.position + 1

        def attention(y: Tensor) -> Tensor:
            keys[:, :, seen - 1 : seen], values[:, :, seen - 1 : seen] = self.attention.project(y)
            return self.attention.attend(y, keys[:, :, :seen], values[:, :, :seen])

        x = self.attention_residual(x, attention)
        return self.feed_forward_residual(x, self.feed_forward)


class LanguageModel(nn.Module):
    """A decoder-only Transformer over characters (Al-Rfou et al. 2019), of one sentence at a time.

    Padding needs no mask: it comes after a sentence's end, and no position sees what comes after it.
    """

    def __init__(self, config: LanguageModelConfig, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, config.d_model)
        nn.init.normal_(self.embed.weight, std=config.d_model**-0.5)  # scaled up where it is used
        self.scale = math.sqrt(config.d_model)
        self.positions = SinusoidalPositions(config.d_model, config.dropout)
        self.blocks = nn.ModuleList(LanguageBlock(config) for _ in range(config.n_layers))
        self.norm = final_norm(config)
        self.out = nn.Linear(config.d_model, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, U), each row from BOS on -> logits (B, U, V) of the token that follows each."""
        x = self.positions(self.embed(tokens) * self.scale)
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))

    def start(self, batch: int, capacity: int) -> LanguageState:
        """An empty state of `batch` rows, with caches for `capacity` positions."""
        attention: MultiHeadAttention = self.blocks[0].attention  # type: ignore[assignment]
        heads, d_model = attention.n_heads, self.embed.embedding_dim
        size = (len(self.blocks), batch, heads, capacity, d_model // heads)
        return LanguageState(self.embed.weight.new_empty(size), self.embed.weight.new_empty(size))

    def step(self, tokens: Tensor, state: LanguageState) -> Tensor:
        """One position for every row: tokens (B,) -> log-probabilities (B, V); the state moves on."""
        if state.position >= state.keys.size(3):  # a write beyond the cache would be lost without a word
            raise IndexError(f"the state has room for {state.keys.size(3)} positions, and they are taken")
        x = self.positions(self.embed(tokens).unsqueeze(1) * self.scale, state.position)
        for layer, block in enumerate(self.blocks):
            x = block.step(x, state, layer)  # type: ignore[operator]
        state.position += 1
        return torch.log_softmax(self.out(self.norm(x)).squeeze(1).float(), dim=-1)
