"""How tokens are spelled: with one character each, or with several bytes.

Hot words and word language models follow a text letter by letter. Where tokens are characters, a letter is a
token. Where tokens are strings of bytes, such as those of byte-level BPE, a letter is a byte, so it makes no
difference into which units a decoder cuts a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.tokenizers.interface import HasTokenBytes, Tokenizer

NO_LETTER = -1  # fills up the letters of shorter tokens


@dataclass(frozen=True)
class Spelling:
    """The letters of every token. Letters are numbers; `eos` is one of them, and is no part of a text."""

    letters: Tensor  # (V, L) of each token, filled up with NO_LETTER; special tokens but EOS may have none
    symbols: tuple[str, ...]  # one for each letter; those of bytes are the characters of Latin-1
    space: int | None  # the letter of the space
    eos: int
    counts: Tensor  # (n_letters,) bool: the letter begins a visible character
    used: frozenset[int]  # letters that texts of this tokenizer consist of, as far as it is known
    in_bytes: bool  # then the tokens of a text can begin with a space, which its text does not have

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Spelling:
        """The spelling of the tokens of a tokenizer."""
        special = tokenizer.special
        if not isinstance(tokenizer, HasTokenBytes):
            symbols = tokenizer.symbols
            space = symbols.index(" ") if " " in symbols else None
            hidden = {*special.suppressed, special.eos, special.pad, special.blank}
            counts = torch.tensor([i != space for i in range(len(symbols))])
            used = frozenset(i for i, s in enumerate(symbols) if len(s) == 1 and i not in hidden)
            letters = torch.arange(len(symbols)).unsqueeze(1)
            return cls(letters, symbols, space, special.eos, counts, used, False)
        spelled = [list(piece) for piece in tokenizer.token_bytes]
        spelled[special.eos] = [256]
        longest = max(map(len, spelled))
        letters = torch.tensor([[*each, *[NO_LETTER] * (longest - len(each))] for each in spelled])
        counts = torch.tensor([byte != 32 and byte & 0xC0 != 0x80 for byte in range(257)])
        used = frozenset(byte for each in spelled if len(each) > 1 for byte in each)
        symbols = (*map(chr, range(256)), "<eos>")
        return cls(letters, symbols, 32, 256, counts, used, True)

    def spell(self, text: str, tokenizer: Tokenizer) -> list[int]:
        """The letters of a text of which each character is known."""
        return list(text.encode()) if self.in_bytes else tokenizer.encode(text)

    def spell_words(self, words: Sequence[str]) -> list[str]:
        """Words as strings of the symbols of letters. Sorted words stay sorted."""
        return [word.encode().decode("latin-1") for word in words] if self.in_bytes else list(words)
