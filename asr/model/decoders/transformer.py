"""The Transformer decoder: masked self-attention and cross-attention, all positions at once or one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from asr.kinds import POSITIONS
from asr.masks import length_mask
from asr.model.attention import MultiHeadAttention, self_attention
from asr.model.blocks import Block, BlockSection, Residual, feed_forward, final_norm
from asr.model.interfaces import Memory
from asr.model.kernels import Linear, linear
from asr.model.positions.interface import Relation, build_positions
from asr.section import Positive, load_kind


@dataclass
class MemoryCache:
    """Keys and values of the encoder's states, which the hypotheses of an utterance share.

    `keys`, `values` (n_layers, B, n_heads, S, d_head). `mask` (B, 1, 1, S) is added to the scores: torch
    would convert a mask of true and false to this form in every call.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor

    def select(self, rows: Tensor) -> MemoryCache:
        """The cache of the given utterances (indices)."""
        keys, values = self.keys.index_select(1, rows), self.values.index_select(1, rows)
        return MemoryCache(keys, values, self.mask.index_select(0, rows))


@dataclass
class DecoderState:
    """Keys and values of every block, allocated once.

    `keys`, `values` (n_layers, B * W, n_heads, capacity, d_head) hold the positions decoded so far, of W
    hypotheses for each of B utterances (1 until `reorder`), one utterance after the other. Without an encoder
    there is no `memory`, and all rows are hypotheses of one utterance.
    """

    keys: Tensor
    values: Tensor
    memory: MemoryCache | None
    position: int = 0
    spare: tuple[Tensor, Tensor] | None = None  # unused caches, which the next `reorder` writes to

    @property
    def utterances(self) -> int:
        """B, the number of utterances."""
        return 1 if self.memory is None else len(self.memory.mask)

    def select(self, rows: Tensor) -> DecoderState:
        """The state of the given utterances (indices, in any order, repeated or left out)."""
        keys, values = (
            cache.unflatten(1, (self.utterances, -1)).index_select(1, rows).flatten(1, 2)
            for cache in (self.keys, self.values)
        )
        return DecoderState(keys, values, self.memory and self.memory.select(rows), self.position)

    def reorder(self, parents: Tensor) -> DecoderState:
        """The state in which each utterance's hypotheses continue the given ones: parents (B, W).

        Only the positions decoded so far are copied, into a second pair of caches; the two pairs take turns.
        This state must not be used after this call.
        """
        utterances, width = parents.shape
        old_width = self.keys.size(1) // utterances
        first = old_width * torch.arange(utterances, device=parents.device).unsqueeze(1)
        rows = (parents + first).flatten()
        if self.spare is None or width != old_width:
            layers, _, *shape = self.keys.shape
            spare = self.keys.new_empty(2, layers, utterances * width, *shape)
            self.spare = (spare[0], spare[1])
        for cache, target in zip((self.keys, self.values), self.spare, strict=True):
            torch.index_select(cache[..., : self.position, :], 1, rows, out=target[..., : self.position, :])
        old = (self.keys, self.values) if width == old_width else None
        return replace(self, keys=self.spare[0], values=self.spare[1], spare=old)

    def check_capacity(self, size: int) -> None:
        """Raises IndexError when the caches have fewer than `size` positions."""
        if size > self.keys.size(3):  # a write after the end of a cache would be lost without an error
            raise IndexError(f"the state has capacity for {self.keys.size(3)} positions, not for {size}")


class DecoderSection(BlockSection):
    """Settings of a stack of decoder blocks with its embedding and its output."""

    tie_embedding: bool = Field(
        False, description="the output layer uses the weights of the embedding and has no bias"
    )
    scale_embedding: bool = Field(True, description="multiply embeddings by the square root of d_model")

    @model_validator(mode="after")
    def _positions_fit_caches(self) -> DecoderSection:
        if load_kind(POSITIONS, self.positions.kind).attention is not None:
            raise ValueError(
                f"positions {self.positions.kind} are only for encoders; choose none, sinusoidal, learned "
                "or rotary for a decoder"
            )
        return self


class DecoderBlock(Block):
    """Masked self-attention, cross-attention, feed-forward, each with its residual connection.

    A language model's block has no cross-attention.
    """

    def __init__(self, config: BlockSection, cross_attention: bool) -> None:
        super().__init__()
        self.self_attention = self_attention(config)
        self.self_attention_residual = Residual(config)
        if cross_attention:
            self.cross_attention = MultiHeadAttention(config)
            self.cross_attention_residual = Residual(config)
        self.feed_forward = feed_forward(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self,
        x: Tensor,
        memory: Memory | None,
        relation: Relation | None = None,
        weights: list[Tensor] | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Teacher forcing: x (B, U, d_model) -> the same shape.

        Each position sees the ones before it, or all positions of `visible` (B, 1, 1, U) if that is given.
        The cross-attention's weights (B, n_heads, U, S) are appended to `weights` if it is given.
        """

        def attention(y: Tensor) -> Tensor:
            return self.self_attention(y, visible, causal=visible is None, relation=relation)

        x = self.self_attention_residual(x, attention)
        if memory is not None:
            keys, values = self.cross_attention.project(memory.states)
            mask = _memory_mask(memory)

            def cross_attention(y: Tensor) -> Tensor:
                if weights is not None:
                    weights.append(self.cross_attention.weights(y, keys, mask))
                return self.cross_attention.attend(y, keys, values, mask)

            x = self.cross_attention_residual(x, cross_attention)
        return self.feed_forward_residual(x, self.feed_forward)

    def step(self, x: Tensor, state: DecoderState, layer: int, relation: Relation | None) -> Tensor:
        """One position x (B, 1, d_model). Its key and value are written to the state's caches."""
        end = state.position + 1

        def attention(y: Tensor) -> Tensor:
            keys, values = state.keys[layer], state.values[layer]
            keys[:, :, end - 1 : end], values[:, :, end - 1 : end] = self.self_attention.project(y, relation)
            return self.self_attention.attend(y, keys[:, :, :end], values[:, :, :end], relation=relation)

        x = self.self_attention_residual(x, attention)
        x = self._attend_to_memory(x, state, layer)
        return self.feed_forward_residual(x, self.feed_forward)

    def forward_cached(
        self,
        x: Tensor,
        state: DecoderState,
        layer: int,
        positions: Tensor,
        mask: Tensor,
        relation: Relation | None,
    ) -> Tensor:
        """x (B, U, d_model) at positions (B, U) of the caches, or (1, U) if they are the same for all rows.

        `mask` (B or 1, 1, U, end) is true where a position may be seen.
        """

        def attention(y: Tensor) -> Tensor:
            keys, values = state.keys[layer], state.values[layer]
            end, size = mask.size(3), positions.size(1)
            rows = torch.arange(len(positions), device=positions.device).unsqueeze(1)
            for cache, new in zip((keys, values), self.self_attention.project(y, relation), strict=True):
                if len(positions) == 1:
                    cache[:, :, end - size : end] = new
                else:
                    cache[rows, :, positions] = new.transpose(1, 2)  # (B, U, n_heads, d_head)
            return self.self_attention.attend(
                y, keys[:, :, :end], values[:, :, :end], mask, relation=relation
            )

        x = self.self_attention_residual(x, attention)
        x = self._attend_to_memory(x, state, layer)
        return self.feed_forward_residual(x, self.feed_forward)

    def _attend_to_memory(self, x: Tensor, state: DecoderState, layer: int) -> Tensor:
        """Cross-attention of x (B * W, U, d_model) to the memory in the caches."""
        memory = state.memory
        if memory is None:
            return x

        def cross_attention(y: Tensor) -> Tensor:
            # The hypotheses of an utterance query its memory together, like positions of one text.
            together = y.reshape(state.utterances, -1, y.size(2))  # (B, W * U, d_model)
            keys, values = memory.keys[layer], memory.values[layer]
            return self.cross_attention.attend(together, keys, values, memory.mask).view_as(y)

        return self.cross_attention_residual(x, cross_attention)


class TransformerDecoder(nn.Module):
    """Tokens and encoder states to logits of the next token (Vaswani et al. 2017, section 3.1).

    Without `cross_attention` it is a language model.
    """

    class Config(DecoderSection):
        """Settings of a Transformer decoder."""

        kind: Literal["transformer"] = "transformer"
        n_layers: Positive = Field(3, description="number of blocks")
        alignment_heads: tuple[tuple[int, int], ...] = Field(
            (),
            description="[block, head] pairs whose cross-attention follows time; word times are "
            "computed from it",
        )

        @model_validator(mode="after")
        def _alignment_heads_exist(self) -> TransformerDecoder.Config:
            for block, head in self.alignment_heads:
                if not (0 <= block < self.n_layers and 0 <= head < self.n_heads):
                    raise ValueError(
                        f"alignment_heads: there is no head {head} in block {block}; both are counted from 0"
                    )
            return self

    def __init__(self, config: DecoderSection, vocabulary_size: int, cross_attention: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, config.d_model)
        # The weights are small, and are scaled up where they are used (section 3.4). So they learn fast, and
        # their scaled size is that of the positions.
        nn.init.normal_(self.embed.weight, std=config.d_model**-0.5)
        self.scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.positions = build_positions(config)
        if self.positions.max_length is not None:  # then the decoder is a `LimitsPositions`
            self.max_positions = self.positions.max_length
        self.blocks = nn.ModuleList(DecoderBlock(config, cross_attention) for _ in range(config.n_layers))
        self.norm = final_norm(config)
        self.out = None if config.tie_embedding else Linear(config.d_model, vocabulary_size)
        self.alignment_heads = getattr(config, "alignment_heads", ())
        self._cache_shape = (config.n_layers, config.n_heads, config.d_model // config.n_heads)

    def forward(self, tokens: Tensor, memory: Memory | None, weights: list[Tensor] | None = None) -> Tensor:
        """tokens (B, U), each row from the prompt on -> logits (B, U, V) of the token that follows each.

        Every block appends the weights of its cross-attention (B, n_heads, U, S) to `weights`.
        """
        x = self.positions(self.embed(tokens) * self.scale)
        relation = self.positions.relation_of(x)
        for block in self.blocks:
            x = block(x, memory, relation, weights)
        return self._logits(x)

    def cross_attention(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Weights of the cross-attention under teacher forcing (B, n_layers, n_heads, U, S), float32."""
        weights: list[Tensor] = []
        self(tokens, memory, weights)
        return torch.stack(weights, dim=1)

    def alignment(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Logits (B, U, V) and the weights of the alignment heads (B, N, U, S), float32."""
        weights: list[Tensor] = []
        x = self.positions(self.embed(tokens) * self.scale)
        relation = self.positions.relation_of(x)
        for layer, block in enumerate(self.blocks):
            heads = [head for number, head in self.alignment_heads if number == layer]
            of_block: list[Tensor] | None = [] if heads else None
            x = block(x, memory, relation, of_block)
            weights += [each[:, heads] for each in of_block or ()]  # all heads need too much memory
        return self._logits(x), torch.cat(weights, 1)

    def start(self, memory: Memory, capacity: int) -> DecoderState:
        """An empty state for `capacity` positions. The cross-attention's keys are computed here, once."""
        projected = [block.cross_attention.project(memory.states) for block in self.blocks]  # type: ignore[operator, union-attr]
        keys, values = (torch.stack(each) for each in zip(*projected, strict=True))
        hidden = ~_memory_mask(memory)
        mask = torch.zeros(hidden.shape, dtype=keys.dtype, device=keys.device)
        cache = MemoryCache(keys, values, mask.masked_fill_(hidden, torch.finfo(keys.dtype).min))
        return replace(self.start_rows(len(memory.lengths), capacity, keys.dtype), memory=cache)

    def start_rows(self, rows: int, capacity: int, dtype: torch.dtype | None = None) -> DecoderState:
        """An empty state without a memory: `rows` texts of up to `capacity` positions."""
        layers, heads, d_head = self._cache_shape
        cache = self.embed.weight.new_zeros(2, layers, rows, heads, capacity, d_head, dtype=dtype)
        return DecoderState(cache[0], cache[1], None)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """tokens (B,) at the state's position -> logits (B, V). The state moves on by one position."""
        state.check_capacity(state.position + 1)
        x = self.positions(self.embed(tokens).unsqueeze(1) * self.scale, state.position)
        relation = self.positions.relation(torch.full((1,), state.position, device=tokens.device))
        for layer, block in enumerate(self.blocks):
            x = block.step(x, state, layer, relation)  # type: ignore[operator]
        state.position += 1
        return self._logits(x).squeeze(1)

    def forward_cached(self, tokens: Tensor, state: DecoderState, starts: Tensor) -> Tensor:
        """tokens (B, U), each row from its own position on, starts (B,) -> logits (B, U, V).

        Cache entries from there on are overwritten. The state's `position` is not used. There is no dropout:
        this is for decoding.
        """
        first, last = torch.stack(starts.aminmax()).tolist()
        end = last + tokens.size(1)
        state.check_capacity(end)
        starts = starts[:1] if first == last else starts  # rows at the same position are written at once
        positions = starts.unsqueeze(1) + torch.arange(tokens.size(1), device=tokens.device)  # (B or 1, U)
        mask = torch.arange(end, device=tokens.device) <= positions.unsqueeze(2)  # (B or 1, U, end)
        x = self.positions.at(self.embed(tokens) * self.scale, positions, end)
        relation = self.positions.relation(positions)
        for layer, block in enumerate(self.blocks):
            x = block.forward_cached(x, state, layer, positions, mask.unsqueeze(1), relation)  # type: ignore[operator]
        return self._logits(x)

    def _logits(self, x: Tensor) -> Tensor:
        """States of the last block (B, U, d_model) -> logits (B, U, V)."""
        x = self.norm(x)
        return linear(x, self.embed.weight, None) if self.out is None else self.out(x)


def _memory_mask(memory: Memory) -> Tensor:
    """True where a state is valid: (B, 1, 1, S)."""
    return length_mask(memory.lengths, memory.states.size(1))[:, None, None, :]
