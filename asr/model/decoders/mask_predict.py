"""A decoder that fills all masked positions of a text in parallel, from both sides of each."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from asr.masks import length_mask
from asr.model.blocks import final_norm
from asr.model.decoders.transformer import DecoderBlock, DecoderSection
from asr.model.interfaces import Memory
from asr.model.kernels import linear
from asr.model.positions.interface import build_positions
from asr.section import Positive


class MaskPredictDecoder(nn.Module):
    """The conditional masked language model of Ghazvininejad et al. 2019 (Mask-Predict), for speech as in
    Higuchi et al. 2020 (Mask-CTC).

    It is a Transformer decoder whose self-attention sees the whole text. The mask is a weight of the decoder
    and not a token of the vocabulary, so no other code depends on it. There is no EOS: the length of a text
    is known before, from CTC or from a head on the mean of the encoder's states (the LENGTH token of
    Ghazvininejad et al. 2019, section 3.2, has the same purpose).
    """

    class Config(DecoderSection):
        """Settings of a mask-predict decoder. The length of a text comes from its own head or from CTC."""

        kind: Literal["mask_predict"] = "mask_predict"
        n_layers: Positive = Field(3, description="number of blocks")
        length_head: Positive | None = Field(
            None,
            description="a head predicts the number of tokens, up to this number; null: the "
            "number comes from CTC",
        )

        @model_validator(mode="after")
        def _positions_differ(self) -> MaskPredictDecoder.Config:
            # Rotary positions change scores alone: masks with equal values give equal sums at all positions.
            if self.length_head is not None and self.positions.kind in ("none", "rotary"):
                raise ValueError(
                    "length_head: decoding begins with only masks, and all masks look the same with "
                    f"positions {self.positions.kind}; set positions to sinusoidal or learned"
                )
            return self

        @property
        def needs_ctc(self) -> bool:
            """Whether the decoder works only beside a CTC head."""
            return self.length_head is None

    def __init__(self, config: MaskPredictDecoder.Config, vocabulary_size: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, config.d_model)
        self.mask = nn.Parameter(torch.empty(config.d_model))
        for weight in (self.embed.weight, self.mask):
            nn.init.normal_(weight, std=config.d_model**-0.5)
        self.scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.positions = build_positions(config)
        if self.positions.max_length is not None:  # then the decoder is a `LimitsPositions`
            self.max_positions = self.positions.max_length
        self.blocks = nn.ModuleList(
            DecoderBlock(config, cross_attention=True) for _ in range(config.n_layers)
        )
        self.norm = final_norm(config)
        self.out = None if config.tie_embedding else nn.Linear(config.d_model, vocabulary_size)
        self.length: nn.Linear | None = None
        if config.length_head is not None:
            self.length = nn.Linear(config.d_model, config.length_head + 1)
            self.predict_lengths = self._predict_lengths  # the interface PredictsLength

    def fill(self, tokens: Tensor, masked: Tensor, lengths: Tensor, memory: Memory) -> Tensor:
        """tokens (B, U), masked (B, U) bool, lengths (B,) -> logits (B, U, V) of the token at each position.

        A masked position does not see its token.
        """
        x = torch.where(masked.unsqueeze(2), self.mask, self.embed(tokens)) * self.scale  # (B, U, d_model)
        x = self.positions(x)
        relation = self.positions.relation_of(x)
        # An empty text sees one position of padding: attention to nothing is undefined.
        visible = length_mask(lengths.clamp_min(1), tokens.size(1))[:, None, None, :]  # (B, 1, 1, U)
        for block in self.blocks:
            x = block(x, memory, relation, visible=visible)
        x = self.norm(x)
        return linear(x, self.embed.weight, None) if self.out is None else self.out(x)

    def _predict_lengths(self, memory: Memory) -> Tensor:
        """Log-probabilities (B, N + 1) of 0 to N tokens, float32, from the mean of the valid states."""
        assert self.length is not None, "offered only with a length head"
        valid = length_mask(memory.lengths, memory.states.size(1)).unsqueeze(2)
        mean = (memory.states * valid).sum(1) / memory.lengths.clamp_min(1).unsqueeze(1)
        return self.length(mean).float().log_softmax(-1)
