"""The Transformer decoder: masked self-attention and cross-attention, all positions at once or one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from asr.config import ModelConfig
from asr.model.attention import MultiHeadAttention
from asr.model.blocks import Residual, SinusoidalPositions, feed_forward, final_norm


@dataclass
class DecoderState:
    """Keys and values of every block, allocated once; what a step writes and the next one reads.

    `keys`, `values` (n_layers, B * W, n_heads, capacity, d_head) hold the positions decoded so far, of W
    hypotheses for each utterance (1 until `reorder`), one utterance after the other; `memory_keys`,
    `memory_values` (n_layers, B, n_heads, S, d_head) those of the encoder's states, which the hypotheses of
    an utterance share; `memory_mask` (B, 1, 1, S) is true where a state is valid.
    """

    keys: Tensor
    values: Tensor
    memory_keys: Tensor
    memory_values: Tensor
    memory_mask: Tensor
    position: int = 0
    spare: tuple[Tensor, Tensor] | None = None  # what keys and values are reordered into: the last but one

    def select(self, rows: Tensor) -> DecoderState:
        """The state of the given utterances (indices, in any order, repeated or left out)."""
        keys, values = (
            cache.unflatten(1, (len(self.memory_mask), -1)).index_select(1, rows).flatten(1, 2)
            for cache in (self.keys, self.values)
        )
        memory_keys, memory_values = (
            cache.index_select(1, rows) for cache in (self.memory_keys, self.memory_values)
        )
        mask = self.memory_mask.index_select(0, rows)
        return DecoderState(keys, values, memory_keys, memory_values, mask, self.position)

    def reorder(self, parents: Tensor) -> DecoderState:
        """The state in which each utterance's hypotheses continue the given ones: parents (B, W).

        Only what has been written is copied, into caches that take turns. This state is used up.
        """
        utterances, width = parents.shape
        held = self.keys.size(1) // utterances
        rows = (parents + held * torch.arange(utterances, device=parents.device).unsqueeze(1)).flatten()
        if self.spare is None or width != held:
            layers, _, *shape = self.keys.shape
            spare = self.keys.new_empty(2, layers, utterances * width, *shape)
            self.spare = (spare[0], spare[1])
        for cache, target in zip((self.keys, self.values), self.spare, strict=True):
            torch.index_select(cache[..., : self.position, :], 1, rows, out=target[..., : self.position, :])
        old = (self.keys, self.values) if width == held else None
        return replace(self, keys=self.spare[0], values=self.spare[1], spare=old)


class DecoderBlock(nn.Module):
    """Masked self-attention, cross-attention, feed-forward, each with its residual connection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config.d_model, config.n_heads, config.attention_dropout)
        self.cross_attention = MultiHeadAttention(config.d_model, config.n_heads, config.attention_dropout)
        self.feed_forward = feed_forward(config)
        self.self_attention_residual = Residual(config)
        self.cross_attention_residual = Residual(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self, x: Tensor, memory: Tensor, memory_mask: Tensor, weights: list[Tensor] | None = None
    ) -> Tensor:
        """Teacher forcing: x (B, U, d_model), memory (B, S, d_model) -> (B, U, d_model).

        The cross-attention's weights (B, n_heads, U, S) are appended to `weights` where it is given.
        """
        x = self.self_attention_residual(x, lambda y: self.self_attention(y, causal=True))
        keys, values = self.cross_attention.project(memory)

        def cross_attention(y: Tensor) -> Tensor:
            if weights is not None:
                weights.append(self.cross_attention.weights(y, keys, memory_mask))
            return self.cross_attention.attend(y, keys, values, memory_mask)

        x = self.cross_attention_residual(x, cross_attention)
        return self.feed_forward_residual(x, self.feed_forward)

    def step(self, x: Tensor, state: DecoderState, layer: int) -> Tensor:
        """One position x (B, 1, d_model); its key and value are written into the state's caches."""
        seen = state.position + 1

        def self_attention(y: Tensor) -> Tensor:
            keys, values = state.keys[layer], state.values[layer]
            keys[:, :, seen - 1 : seen], values[:, :, seen - 1 : seen] = self.self_attention.project(y)
            return self.self_attention.attend(y, keys[:, :, :seen], values[:, :, :seen])

        def cross_attention(y: Tensor) -> Tensor:
            # The hypotheses of an utterance ask its memory together, as if they were positions of one text.
            keys, values = state.memory_keys[layer], state.memory_values[layer]
            together = y.view(len(state.memory_mask), -1, y.size(2))  # (B, W, d_model)
            return self.cross_attention.attend(together, keys, values, state.memory_mask).view_as(y)

        x = self.self_attention_residual(x, self_attention)
        x = self.cross_attention_residual(x, cross_attention)
        return self.feed_forward_residual(x, self.feed_forward)

    def forward_cached(
        self, x: Tensor, state: DecoderState, layer: int, places: Tensor, mask: Tensor
    ) -> Tensor:
        """Positions x (B, U, d_model) at places (B, U) of the caches, or (1, U) where all rows have the same.

        `mask` (B or 1, 1, U, seen) is true where a position may be seen.
        """

        def self_attention(y: Tensor) -> Tensor:
            keys, values = state.keys[layer], state.values[layer]
            seen, size = mask.size(3), places.size(1)
            rows = torch.arange(len(places), device=places.device).unsqueeze(1)
            for cache, new in zip((keys, values), self.self_attention.project(y), strict=True):
                if len(places) == 1:
                    cache[:, :, seen - size : seen] = new
                else:
                    cache[rows, :, places] = new.transpose(1, 2)  # (B, U, n_heads, d_head)
            return self.self_attention.attend(y, keys[:, :, :seen], values[:, :, :seen], mask)

        def cross_attention(y: Tensor) -> Tensor:
            keys, values = state.memory_keys[layer], state.memory_values[layer]
            together = y.reshape(len(state.memory_mask), -1, y.size(2))  # (utterances, W * U, d_model)
            return self.cross_attention.attend(together, keys, values, state.memory_mask).view_as(y)

        x = self.self_attention_residual(x, self_attention)
        x = self.cross_attention_residual(x, cross_attention)
        return self.feed_forward_residual(x, self.feed_forward)


class Decoder(nn.Module):
    """Tokens and encoder states to logits of the next token."""

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, config.d_model)
        # Small weights, scaled up where they are used (section 3.4): they learn fast, and meet the positions
        # at the same size.
        nn.init.normal_(self.embed.weight, std=config.d_model**-0.5)
        self.scale = math.sqrt(config.d_model)
        self.positions = SinusoidalPositions(config.d_model, config.dropout)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_layers))
        self.norm = final_norm(config)
        self.out = nn.Linear(config.d_model, vocabulary)

    def forward(
        self, tokens: Tensor, memory: Tensor, memory_mask: Tensor, weights: list[Tensor] | None = None
    ) -> Tensor:
        """tokens (B, U), each row from BOS on -> logits (B, U, V) of the token that follows each.

        Every block appends the weights of its cross-attention (B, n_heads, U, S) to `weights`.
        """
        x = self.positions(self.embed(tokens) * self.scale)
        for block in self.blocks:
            x = block(x, memory, memory_mask, weights)
        return self.out(self.norm(x))

    def start(self, memory: Tensor, memory_mask: Tensor, capacity: int) -> DecoderState:
        """An empty state for up to `capacity` positions."""
        projected = [block.cross_attention.project(memory) for block in self.blocks]  # type: ignore[operator, union-attr]
        memory_keys, memory_values = (torch.stack(each) for each in zip(*projected, strict=True))
        layers, batch, heads, _, d_head = memory_keys.shape
        cache = memory_keys.new_zeros(2, layers, batch, heads, capacity, d_head)
        return DecoderState(cache[0], cache[1], memory_keys, memory_values, memory_mask)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """tokens (B,) at the state's position -> logits (B, V); the state moves on by one position."""
        if state.position >= state.keys.size(3):  # a write beyond the cache would be lost without a word
            raise IndexError(f"the state has room for {state.keys.size(3)} positions, and they are taken")
        x = self.positions(self.embed(tokens).unsqueeze(1) * self.scale, state.position)
        for layer, block in enumerate(self.blocks):
            x = block.step(x, state, layer)  # type: ignore[operator]
        state.position += 1
        return self.out(self.norm(x)).squeeze(1)

    def forward_cached(self, tokens: Tensor, state: DecoderState, starts: Tensor) -> Tensor:
        """tokens (B, U), each row's from its own position on, starts (B,) -> logits (B, U, V).

        What the caches held from there on is overwritten; the state's `position` is not used. Nothing is
        dropped out: this is for decoding.
        """
        first, last = torch.stack(starts.aminmax()).tolist()
        seen = last + tokens.size(1)
        starts = starts[:1] if first == last else starts  # rows that are equally far are written at once
        places = starts.unsqueeze(1) + torch.arange(tokens.size(1), device=tokens.device)  # (B or 1, U)
        if seen > state.keys.size(3):
            raise IndexError(f"the state has room for {state.keys.size(3)} positions, not for {seen}")
        mask = torch.arange(seen, device=places.device) <= places.unsqueeze(2)  # (B or 1, U, seen)
        x = self.embed(tokens) * self.scale + self.positions.upto(seen)[places]
        for layer, block in enumerate(self.blocks):
            x = block.forward_cached(x, state, layer, places, mask.unsqueeze(1))  # type: ignore[operator]
        return self.out(self.norm(x))
