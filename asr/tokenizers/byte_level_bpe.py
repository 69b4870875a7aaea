"""Byte-level BPE by the library `tokenizers`: either Whisper's, or trained on texts.

Every text can be written, because every byte is a token (Wang et al. 2020, "Neural machine translation with
byte-level subwords").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from asr.errors import AsrError
from asr.files import atomic_write
from asr.tokenizers.imported import (
    ImportedSection,
    check_task,
    language_token,
    learn_imported,
    missing_library,
)
from asr.tokenizers.interface import TrainingText
from asr.tokenizers.special import PromptTokens, SpecialTokens
from asr.tokenizers.training import SMALLEST, train_units, trained_special

# Scripts that are written without spaces between words, by language.
UNSPACED = frozenset(("zh", "ja", "th", "lo", "my", "yue", "bo", "km"))


class ByteLevelBPE:
    """A byte-level BPE tokenizer with the special tokens of Whisper.

    `definition` is the JSON of the library's tokenizer without added tokens, so that no text can become a
    special token. `vocabulary` has the text of every id, special tokens and timestamps included. The prompt
    uses `language` and `task` unless others are given.
    """

    class Config(ImportedSection):
        """Settings of a byte-level BPE tokenizer."""

        kind: Literal["byte_level_bpe"] = "byte_level_bpe"
        size: int | None = Field(
            None,
            ge=SMALLEST,
            description="tokens that are learned from the training texts, with 256 bytes and 3 special ones; "
            "null: taken from folder",
        )

        @model_validator(mode="after")
        def _learned_or_taken(self) -> ByteLevelBPE.Config:
            if self.size is not None and self.folder is not None:
                raise ValueError(
                    "size trains a new tokenizer, but folder takes an existing one; "
                    "keep one of the two settings"
                )
            return self

    # Special tokens have a name inside. So a learned merge of punctuation is never taken for one.
    _SPECIAL = re.compile(r"<\|[a-z0-9].*\|>")

    def __init__(
        self,
        definition: dict[str, Any],
        vocabulary: Sequence[str],
        special: SpecialTokens,
        prompts: PromptTokens,
        language: str | None = None,
        task: str | None = None,
    ) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise missing_library("tokenizers") from None
        try:
            self._backend = Tokenizer.from_str(json.dumps(definition))
        except Exception as error:  # the library raises nothing more exact
            raise AsrError(f"not a byte-level BPE tokenizer ({' '.join(str(error).split())})") from None
        self.definition, self.vocabulary, self.prompts = definition, tuple(vocabulary), prompts
        self.language, self.task = language, task
        self._special = special
        # Whatever is not in the library's vocabulary has no text.
        self._textual = self._backend.get_vocab_size()
        self._hidden = frozenset(i for i, s in enumerate(self.vocabulary) if self._SPECIAL.fullmatch(s))

    @property
    def kind(self) -> str:
        """The name under which `asr.kinds` lists it."""
        return "byte_level_bpe"

    def __len__(self) -> int:
        """Size of the vocabulary V, special tokens and timestamps included."""
        return len(self.vocabulary)

    @classmethod
    def learn(cls, config: ByteLevelBPE.Config, text: TrainingText) -> ByteLevelBPE:
        """A tokenizer trained on the training texts, or loaded from the folder in the configuration."""
        taken = config.size is None
        tokenizer = learn_imported(config, cls) if taken else cls.train(text, config.size or 0)
        return tokenizer.with_choice(config.language, config.task)

    @classmethod
    def train(cls, text: TrainingText, size: int) -> ByteLevelBPE:
        """A tokenizer of at most `size` tokens. Texts with little variety give fewer."""
        definition, units = train_units(text, size, "bpe")
        return cls(definition, *trained_special(units))

    def with_choice(self, language: str | None, task: str | None) -> ByteLevelBPE:
        """This tokenizer with another language and task in its prompt; None keeps its own.

        Raises AsrError for a language or task that the vocabulary lacks.
        """
        language, task = language or self.language, task or self.task
        self.prompt(language, task)
        return type(self)(self.definition, self.vocabulary, self._special, self.prompts, language, task)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._values() == self._values()

    def __hash__(self) -> int:
        return hash(self.vocabulary)

    @cached_property
    def special(self) -> SpecialTokens:
        """The special tokens, with the prompt of the tokenizer's own language and task."""
        return SpecialTokens(
            prompt=self.prompt(),
            eos=self._special.eos,
            pad=self._special.pad,
            blank=self._special.blank,
            suppressed=self._special.suppressed,
            vocabulary_size=len(self),
        )

    @property
    def symbols(self) -> tuple[str, ...]:
        """The text of each id, in the order of the ids. Bytes are written as the library writes them."""
        return self.vocabulary

    @property
    def words_are_spaced(self) -> bool:
        """Whether the script of the tokenizer's language is written with spaces between words.

        Tokens that were learned from texts with spaces begin with one, which is written as Ġ.
        """
        return self._is_spaced(self.language)

    def words_are_spaced_after(self, prompt: Sequence[int]) -> bool:
        """Whether texts that follow a prompt are written with spaces between words.

        Translations are English.
        """
        if self.prompts.tasks.get("translate") in prompt:
            return self._is_spaced("en")
        named = (code for code, token in self.prompts.languages.items() if token in prompt)
        return self._is_spaced(next(named, self.language))

    def _is_spaced(self, language: str | None) -> bool:
        return language not in UNSPACED and self._marks_words

    @cached_property
    def _marks_words(self) -> bool:
        return any(s[0] == "Ġ" for s in self.vocabulary if len(s) > 1)

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The UTF-8 bytes that each id adds to a text; none for special tokens."""
        textual = [s if i < self._textual else "" for i, s in enumerate(self.vocabulary)]
        return tuple(b"" if i in self._hidden else to_bytes(s) for i, s in enumerate(textual))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the prompt and EOS. Every text can be written."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids. Special tokens and timestamps give no text; bytes that are not UTF-8 give U+FFFD."""
        text: str = self._backend.decode([i for i in ids if i < self._textual and i not in self._hidden])
        return text

    def prompt(
        self,
        language: str | None = None,
        task: str | None = None,
        timestamps: bool = False,
        previous: Sequence[int] = (),
    ) -> tuple[int, ...]:
        """The ids that a text begins with.

        `previous` are the ids of the text before it. If no language or task is given, the tokenizer's own is
        used, or else the first one of the vocabulary. Raises AsrError for a language or task that the
        vocabulary lacks.
        """
        tokens = self.prompts
        prompt = [tokens.start]
        if tokens.languages:
            language = language or self.language or next(iter(tokens.languages))
        if language is not None:
            prompt.append(language_token(tokens, language))
        task = task or self.task or ("transcribe" if tokens.tasks else None)
        if task is not None:
            prompt.append(check_task(tokens, task))
        if not timestamps and tokens.no_timestamps is not None:
            prompt.append(tokens.no_timestamps)
        if previous:
            if tokens.previous is None:
                raise AsrError("this model has no token for earlier text; leave the option out")
            prompt = [tokens.previous, *previous, *prompt]
        return tuple(prompt)

    def unknown(self, text: str) -> list[str]:
        """Always empty, because bytes can write every text."""
        return []

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        with atomic_write(path) as out:
            json.dump(self._values(), out, ensure_ascii=False)

    def _values(self) -> dict[str, Any]:
        return {
            "type": self.kind,
            "definition": self.definition,
            "vocabulary": self.vocabulary,
            "special": asdict(self._special),
            "prompts": asdict(self.prompts),
            "language": self.language,
            "task": self.task,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], path: Path) -> ByteLevelBPE:
        """The tokenizer of the values that `save` wrote to `path`. Raises AsrError for any other values."""
        try:
            return cls(
                values["definition"],
                values["vocabulary"],
                SpecialTokens.from_json(values["special"]),
                PromptTokens.from_json(values["prompts"]),
                values["language"],
                values["task"],
            )
        except (KeyError, TypeError, AttributeError):
            raise AsrError(
                f"{path}: not a byte-level BPE tokenizer; copy the file that was written with the model"
            ) from None


def to_bytes(symbol: str) -> bytes:
    """The bytes of a unit, which byte-level tokenizers write with one letter for each byte."""
    return bytes(_BYTES[letter] for letter in symbol)


def _byte_letters() -> dict[str, int]:
    """The byte of each letter, as GPT-2 chose them: visible bytes are themselves, others follow U+0100."""
    visible = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTES = _byte_letters()
