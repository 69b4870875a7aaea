"""A tokenizer whose tokens are single characters, of any script."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from asr.errors import AsrError
from asr.files import atomic_write
from asr.section import TokenizerSection
from asr.tokenizers.interface import TrainingText
from asr.tokenizers.special import SpecialTokens

# PAD is also CTC's blank. Neither is ever decoded, so the decoder and the CTC head share one vocabulary.
_PAD, _BOS, _EOS, _UNK = range(4)
_SPECIAL = ("<pad>", "<begin>", "<end>", "<unk>")
_FIRST = len(_SPECIAL)  # the id of the first character


@dataclass(frozen=True)
class CharacterTokenizer:
    """A character tokenizer. `characters[i]` has the id `i + 4`.

    Text is brought to Unicode form NFC first, so that an accented letter is one character in either spelling.
    Runs of white space become one space.
    """

    characters: tuple[str, ...]

    class Config(TokenizerSection):
        """Settings of a character tokenizer."""

        kind: Literal["characters"] = "characters"
        characters: str | None = Field(
            None, description="the vocabulary; null: all characters of the training texts"
        )

    @property
    def kind(self) -> str:
        """The name under which `asr.kinds` lists it."""
        return "characters"

    @classmethod
    def from_characters(cls, characters: Iterable[str]) -> CharacterTokenizer:
        """The characters of a text, or of several texts, each once, in code point order.

        White space counts as the space. Each text is brought to form NFC by itself: a letter and an accent
        from two texts must not become one character.
        """
        texts = [characters] if isinstance(characters, str) else characters
        found = {c for text in texts for c in unicodedata.normalize("NFC", text)}
        return cls(tuple(sorted({" " if c.isspace() else c for c in found})))

    @classmethod
    def learn(cls, config: CharacterTokenizer.Config, text: TrainingText) -> CharacterTokenizer:
        """The tokenizer of a configuration: its own characters, or else those of the training texts."""
        return cls.from_characters(text.characters() if config.characters is None else config.characters)

    def __len__(self) -> int:
        """Size of the vocabulary V, the four special tokens included."""
        return len(self.characters) + _FIRST

    @cached_property
    def special(self) -> SpecialTokens:
        """PAD, BOS and EOS. PAD and BOS are never decoded; `<unk>` can be, where texts in training had it."""
        return SpecialTokens(
            prompt=(_BOS,),
            eos=_EOS,
            pad=_PAD,
            blank=_PAD,
            suppressed=(_PAD, _BOS),
            vocabulary_size=len(self),
        )

    @property
    def symbols(self) -> tuple[str, ...]:
        """The text of each id, in the order of the ids."""
        return (*_SPECIAL, *self.characters)

    @property
    def words_are_spaced(self) -> bool:
        """Whether there is a space among the characters."""
        return " " in self.characters

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {c: i for i, c in enumerate(self.characters, _FIRST)}

    def encode(self, text: str) -> list[int]:
        """Ids of the characters, without BOS and EOS. A character outside the vocabulary becomes `<unk>`."""
        return [self._ids.get(c, _UNK) for c in normalize_text(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids. Special tokens give no text, but `<unk>` gives U+FFFD."""
        return "".join(
            self.characters[i - _FIRST] if i >= _FIRST else "\ufffd" for i in ids if i >= _FIRST or i == _UNK
        )

    def prompt(
        self,
        language: str | None = None,
        task: str | None = None,
        timestamps: bool = False,
        previous: Sequence[int] = (),
    ) -> tuple[int, ...]:
        """BOS. Raises AsrError when a language or a task is asked for."""
        if language is not None or task is not None:
            raise AsrError("this model has no choice of language or task; leave the option out")
        return (_BOS,)

    def unknown(self, text: str) -> list[str]:
        """The characters of the text outside the vocabulary, each once, in order."""
        return list(dict.fromkeys(c for c in normalize_text(text) if c not in self._ids))

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        with atomic_write(path) as out:
            json.dump({"type": self.kind, "tokens": self.symbols}, out, ensure_ascii=False)

    @classmethod
    def from_json(cls, values: dict[str, object], path: Path) -> CharacterTokenizer:
        """The tokenizer of the values that `save` wrote to `path`. Raises AsrError for any other values."""
        tokens = values.get("tokens")
        if isinstance(tokens, list) and tuple(tokens[:_FIRST]) == _SPECIAL:
            characters = tokens[_FIRST:]
            single = all(isinstance(c, str) and len(c) == 1 for c in characters)
            if single and len(set(characters)) == len(characters):
                return cls(tuple(characters))
        raise AsrError(f"{path}: not a character tokenizer; copy the file that was written with the model")


def normalize_text(text: str) -> str:
    """The text in Unicode form NFC, with one space for any white space."""
    return " ".join(unicodedata.normalize("NFC", text).split())
