"""The special tokens of a vocabulary. Decoders and losses get them from here and have no constants."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpecialTokens:
    """Ids with a meaning of their own, and the size of the vocabulary that they belong to."""

    prompt: tuple[int, ...]  # every text begins with these: BOS alone, or Whisper's four
    eos: int  # ends a text
    pad: int  # fills up shorter texts of a batch
    blank: int  # CTC's output where no token begins
    suppressed: tuple[int, ...]  # never decoded, such as PAD and BOS
    vocabulary_size: int
