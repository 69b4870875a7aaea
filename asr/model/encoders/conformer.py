"""The Conformer encoder. Blocks in its middle can work at half or a quarter of the rate of states."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.functional import pad

from asr.masks import length_mask
from asr.model.attention import self_attention
from asr.model.blocks import Block, EncoderSection, Residual, feed_forward
from asr.model.convolution import Convolution
from asr.model.interfaces import PHONEME_STATES, PHONEMES, Memory
from asr.model.intermediate_ctc import AfterBlock
from asr.model.kernels import Linear
from asr.model.phoneme_reader import PhonemeReader
from asr.model.positions.interface import Positions, PositionsField, Relation, build_positions


class ConformerBlock(Block):
    """Half a feed-forward step, self-attention, convolution, half a feed-forward step, and a norm.

    Gulati et al. 2020, section 2. The default positions are rotary; the paper's are relative.
    """

    def __init__(self, config: ConformerEncoder.Config) -> None:
        super().__init__()
        self.first_feed_forward = feed_forward(config)
        self.attention = self_attention(config)
        self.convolution = Convolution(config.d_model, config.conv_kernel)
        self.second_feed_forward = feed_forward(config)
        self.first_feed_forward_residual = Residual(config)
        self.attention_residual = Residual(config)
        self.convolution_residual = Residual(config)
        self.second_feed_forward_residual = Residual(config)
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, mask: Tensor, relation: Relation | None) -> Tensor:
        """x (B, S, d_model), mask (B, S) true where a state is valid -> (B, S, d_model)."""
        x = self.first_feed_forward_residual(x, lambda y: 0.5 * self.first_feed_forward(y))
        x = self.attention_residual(x, lambda y: self.attention(y, mask[:, None, None, :], relation=relation))
        x = self.convolution_residual(x, lambda y: self.convolution(y, mask))
        x = self.second_feed_forward_residual(x, lambda y: 0.5 * self.second_feed_forward(y))
        return self.norm(x)


class HalfRate(nn.Module):
    """`layers` blocks at half the rate of states, between a projection of pairs and its inverse.

    The states before the pairs were formed are added at the end, as in a U-Net (Kim et al. 2022,
    Squeezeformer; Yao et al. 2023, Zipformer). A block takes half the time there.

    With `has_phoneme_head`, a CTC head for phonemes reads the states in the middle. There can be more
    phonemes in a second than states, so the head gives two outputs for each state. Its probabilities are
    added to the states (self-conditioning, Nozaki and Komatsu 2021).

    With `inner_layers`, as many blocks at half of this rate are in the middle of these, in the same way.
    """

    def __init__(
        self, config: ConformerEncoder.Config, layers: int, inner_layers: int, has_phoneme_head: bool
    ) -> None:
        super().__init__()
        d_model = config.d_model
        self.to_pairs = Linear(2 * d_model, d_model)
        self.pairs_norm = nn.LayerNorm(d_model)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(layers))
        self.inner_after = layers - layers // 3  # as around these blocks
        self.inner = HalfRate(config, inner_layers, 0, has_phoneme_head=False) if inner_layers else None
        self.from_pairs = Linear(d_model, 2 * d_model)
        self.phonemes_after = config.phonemes_after if has_phoneme_head else None
        if has_phoneme_head:
            self.phoneme_head = Linear(d_model, 2 * config.phonemes)
            self.phoneme_condition = Linear(2 * config.phonemes, d_model)
        reads = has_phoneme_head and config.reads_phonemes
        self.phoneme_reader = PhonemeReader(d_model, 2 * config.phonemes) if reads else None

    def forward(
        self, x: Tensor, lengths: Tensor, positions: Positions
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """x (B, S, d_model), zero after each row's length, lengths (B,) -> the same shape.

        The second result has the phoneme logits, for `Memory.intermediate`.
        """
        size, pair_lengths = x.size(1), (lengths + 1) // 2
        y = self.pairs_norm(self.to_pairs(_pairs(x)))
        before = self.phonemes_after or len(self.blocks)
        y = self._through(y, range(before), pair_lengths, positions)
        intermediate = {}
        if self.phonemes_after:
            frames = self.phoneme_head(y).unflatten(2, (2, -1))  # (B, ceil(S / 2), 2, phonemes)
            intermediate[PHONEMES] = frames.flatten(1, 2)[:, :size], lengths
            probabilities = frames.softmax(-1).flatten(2)
            y = y + self.phoneme_condition(probabilities)
            if self.phoneme_reader is not None and self.training:
                errors = self.phoneme_reader.errors(probabilities, y, _pairs(x))
                intermediate[PHONEME_STATES] = errors, pair_lengths
            y = self._through(y, range(before, len(self.blocks)), pair_lengths, positions)
        return x + _singles(self.from_pairs(y), size), intermediate

    def from_phonemes(self, probabilities: Tensor, lengths: Tensor, positions: Positions) -> Tensor:
        """probabilities (B, S, phonemes), lengths (B,) -> states (B, S, d_model), as `forward` gives."""
        assert self.phoneme_reader is not None and self.phonemes_after is not None
        y, earlier = self.phoneme_reader(_pairs(probabilities))
        y = self._through(y, range(self.phonemes_after, len(self.blocks)), (lengths + 1) // 2, positions)
        return _singles(earlier + self.from_pairs(y), probabilities.size(1))

    def _through(self, y: Tensor, numbers: range, lengths: Tensor, positions: Positions) -> Tensor:
        """y (B, S, d_model) after the blocks of these numbers, counted from 0."""
        mask = length_mask(lengths, y.size(1))
        relation = positions.relation_of(y)
        for number in numbers:
            y = self.blocks[number](y, mask, relation)
            if self.inner is not None and number + 1 == self.inner_after:
                y = self.inner(y * mask.unsqueeze(2), lengths, positions)[0]
        return y


def _pairs(x: Tensor) -> Tensor:
    """(B, S, d) -> (B, ceil(S / 2), 2 * d): two states become one."""
    return pad(x, (0, 0, 0, x.size(1) % 2)).unflatten(1, (-1, 2)).flatten(2)


def _singles(pairs: Tensor, size: int) -> Tensor:
    """The inverse of `_pairs` for `size` states."""
    return pairs.unflatten(2, (2, -1)).flatten(1, 2)[:, :size]


class ConformerEncoder(nn.Module):
    """The states of a front end to encoder states, at the same rate."""

    stride = 1

    class Config(EncoderSection):
        """Settings of a Conformer encoder. `n_layers` blocks work at the full rate."""

        kind: Literal["conformer"] = "conformer"
        norm: Literal["pre"] = Field("pre", description="place of the layer norm")
        activation: Literal["relu", "gelu", "silu", "swiglu"] = Field(
            "silu", description="activation of the feed-forward parts"
        )
        positions: PositionsField = Field(
            {"kind": "rotary"}, validate_default=True, description="how positions are encoded"
        )
        n_layers: int = Field(3, ge=1, description="blocks at the full rate of states")
        half_rate_layers: int = Field(0, ge=0, description="blocks at half the rate, in the middle")
        quarter_rate_layers: int = Field(
            0, ge=0, description="blocks at a quarter of the rate, in the middle of those at half the rate"
        )
        conv_kernel: int = Field(
            15, ge=1, description="kernel size of the convolution in each block, an odd number of states"
        )
        phonemes: int = Field(
            0, ge=0, description="outputs of a CTC head for phonemes in the middle, with blank; 0: no head"
        )
        phonemes_after: int = Field(4, ge=1, description="half-rate blocks before the phoneme head")
        reads_phonemes: bool = Field(
            False, description="phonemes can take the place of audio, for train.text_injection"
        )

        @field_validator("conv_kernel")
        @classmethod
        def _is_odd(cls, kernel: int) -> int:
            if kernel % 2 == 0:
                raise ValueError(f"{kernel} is even; the kernel needs a middle, so use {kernel + 1}")
            return kernel

        @model_validator(mode="after")
        def _inner_parts_have_a_place(self) -> ConformerEncoder.Config:
            if self.quarter_rate_layers and not self.half_rate_layers:
                raise ValueError(
                    "quarter_rate_layers needs half_rate_layers, whose blocks are around them; set "
                    "half_rate_layers too"
                )
            if self.phonemes and self.phonemes_after > self.half_rate_layers:
                raise ValueError(
                    f"phonemes_after {self.phonemes_after} is more than half_rate_layers "
                    f"{self.half_rate_layers}; lower phonemes_after"
                )
            if self.reads_phonemes and not self.phonemes:
                raise ValueError("reads_phonemes needs the phoneme head; set phonemes, or leave it out")
            return self

    def __init__(self, config: ConformerEncoder.Config) -> None:
        super().__init__()
        self.positions = build_positions(config)
        after = config.n_layers // 3 if config.half_rate_layers else 0  # most see the states before halving
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.n_layers - after))
        self.half_rate = None
        if config.half_rate_layers:
            layers = (config.half_rate_layers, config.quarter_rate_layers)
            self.half_rate = HalfRate(config, *layers, has_phoneme_head=config.phonemes > 0)
        self.last_blocks = nn.ModuleList(ConformerBlock(config) for _ in range(after))

    def forward(self, x: Tensor, lengths: Tensor, after_block: AfterBlock | None = None) -> Memory:
        """x (B, S, d_model), lengths (B,) in states -> memory of the same shape."""
        mask = length_mask(lengths, x.size(1))
        x = self.positions(x)
        relation = self.positions.relation_of(x)
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, mask, relation)
            x = x if after_block is None else after_block(x, number)
        intermediate: dict[str, tuple[Tensor, Tensor]] = {}
        if self.half_rate is not None:
            x, intermediate = self.half_rate(x * mask.unsqueeze(2), lengths, self.positions)
        for number, block in enumerate(self.last_blocks, start=len(self.blocks) + 1):
            x = block(x, mask, relation)
            x = x if after_block is None else after_block(x, number)
        return Memory(x, lengths, intermediate)

    def encode_phonemes(self, probabilities: Tensor, lengths: Tensor) -> Memory:
        """probabilities (B, S, phonemes), the blank first, lengths (B,) -> memory of S states.

        Only the blocks after the phoneme head work. Their input is that of `PhonemeReader`.
        """
        assert self.half_rate is not None, "the configuration refuses phonemes without half-rate blocks"
        x = self.half_rate.from_phonemes(probabilities, lengths, self.positions)
        mask, relation = length_mask(lengths, x.size(1)), self.positions.relation_of(x)
        for block in self.last_blocks:
            x = block(x, mask, relation)
        return Memory(x, lengths)
