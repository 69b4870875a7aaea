"""Byte-level BPE, the tokenizer of Whisper, by the library `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from asr.errors import AsrError
from asr.files import atomic_write
from asr.tokenizers.imported import (
    ImportedSection,
    check_task,
    language_token,
    learn_imported,
    missing_library,
)
from asr.tokenizers.special import PromptTokens, SpecialTokens

# Scripts that are written without spaces between words, by language.
UNSPACED = frozenset(("zh", "ja", "th", "lo", "my", "yue", "bo", "km"))


class ByteLevelBPE:
    """A byte-level BPE tokenizer with the special tokens of Whisper.

    `definition` is the JSON of the library's tokenizer without added tokens, so that no text can become a
    special token. `vocabulary` has the text of every id, special tokens and timestamps included. `language`
    and `task` are those of the prompt when nothing else is asked for.
    """

    class Config(ImportedSection):
        """Settings of a byte-level BPE tokenizer."""

        kind: Literal["byte_level_bpe"] = "byte_level_bpe"

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
        self._hidden = frozenset(
            i for i, s in enumerate(self.vocabulary) if s.startswith("<|") and s.endswith("|>")
        )

    @property
    def kind(self) -> str:
        """The name under which `asr.kinds` lists it."""
        return "byte_level_bpe"

    def __len__(self) -> int:
        """Size of the vocabulary V, special tokens and timestamps included."""
        return len(self.vocabulary)

    @classmethod
    def learn(cls, config: ByteLevelBPE.Config, characters: Iterable[str]) -> ByteLevelBPE:
        """The tokenizer of the folder that the configuration names, with its language and task."""
        return learn_imported(config, cls).with_choice(config.language, config.task)

    def with_choice(self, language: str | None, task: str | None) -> ByteLevelBPE:
        """This tokenizer with another language and task in its prompt; None keeps its own.

        Raises AsrError for a language or task that the vocabulary lacks.
        """
        language, task = language or self.language, task or self.task
        self.prompt(language, task)
        return ByteLevelBPE(self.definition, self.vocabulary, self._special, self.prompts, language, task)

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
        """Whether the script of the tokenizer's language is written with spaces between words."""
        return self.language not in UNSPACED

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
        """The ids that a text begins with. `previous` are those of the text before it.

        Without a language or a task they are those of the tokenizer, then the first of the vocabulary.
        Raises AsrError for a language or task that the vocabulary lacks.
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
        """Nothing: bytes can write every text."""
        return []

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        values = {
            "type": self.kind,
            "definition": self.definition,
            "vocabulary": self.vocabulary,
            "special": asdict(self._special),
            "prompts": asdict(self.prompts),
            "language": self.language,
            "task": self.task,
        }
        with atomic_write(path) as out:
            json.dump(values, out, ensure_ascii=False)

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
