"""A language model: a Transformer decoder without an encoder, which gives text its probability."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from asr.model.decoders.transformer import DecoderSection, DecoderState, TransformerDecoder
from asr.model.interfaces import LimitsPositions
from asr.section import ModelSection, Positive


class LanguageModel(nn.Module):
    """A decoder-only Transformer over the tokens of one sentence at a time (Al-Rfou et al. 2019).

    Padding needs no mask, because it follows a sentence's end and no position sees the positions after it.
    """

    class Config(DecoderSection, ModelSection):
        """Sizes of the language model."""

        kind: Literal["language_model"] = "language_model"
        n_layers: Positive = Field(4, description="number of blocks")

        @property
        def width(self) -> int:
            """The size of the states."""
            return self.d_model

    # Weights with one row for each token: with another vocabulary, a row moves with its token.
    BY_TOKEN = ("decoder.embed.weight", "decoder.out.weight", "decoder.out.bias")

    def __init__(self, config: LanguageModel.Config, vocabulary_size: int) -> None:
        super().__init__()
        self.decoder = TransformerDecoder(config, vocabulary_size, cross_attention=False)
        if isinstance(self.decoder, LimitsPositions):  # then the language model is one, too
            self.max_positions: int = self.decoder.max_positions

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, U), each row from the prompt on -> logits (B, U, V) of the token that follows each."""
        return self.decoder(tokens, None)

    def start(self, rows: int, capacity: int) -> DecoderState:
        """An empty state of `rows` texts with caches for `capacity` positions."""
        return self.decoder.start_rows(rows, capacity)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """One position for every row: tokens (B,) -> log-probabilities (B, V). The state is updated."""
        return self.decoder.step(tokens, state).float().log_softmax(-1)
