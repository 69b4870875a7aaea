"""Byte-level unigram units (Kudo 2018), trained from texts by the library `tokenizers`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from asr.section import TokenizerSection
from asr.tokenizers.byte_level_bpe import ByteLevelBPE
from asr.tokenizers.interface import TrainingText
from asr.tokenizers.training import SMALLEST, train_units, trained_special


class Unigram(ByteLevelBPE):
    """Units of bytes that a unigram model chooses.

    Except for their training, they work like the units of BPE.
    """

    class Config(TokenizerSection):
        """Settings of a unigram tokenizer."""

        kind: Literal["unigram"] = "unigram"
        size: int = Field(
            500,
            ge=SMALLEST,
            description="tokens that are learned from the training texts, with 256 bytes and 3 special ones",
        )

    @property
    def kind(self) -> str:
        """The name under which `asr.kinds` lists it."""
        return "unigram"

    @classmethod
    def learn(cls, config: Unigram.Config, text: TrainingText) -> Unigram:  # type: ignore[override]
        """A tokenizer of the training texts."""
        return cls.train(text, config.size)

    @classmethod
    def train(cls, text: TrainingText, size: int) -> Unigram:
        """A tokenizer of at most `size` tokens. Texts with little variety give fewer."""
        definition, units = train_units(text, size, "unigram")
        return cls(definition, *trained_special(units))
