"""SentencePiece with a separate vocabulary, the tokenizer of Speech2Text (library `sentencepiece`)."""

from __future__ import annotations

import base64
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
from asr.tokenizers.interface import TrainingText
from asr.tokenizers.special import PromptTokens, SpecialTokens


class SentencePieceTokenizer:
    """A SentencePiece model whose pieces have the ids of a separate vocabulary.

    `model` are the bytes of the SentencePiece model, `vocabulary` the piece of every id, `unk` the id of
    pieces outside it. Text is brought to lower case before encoding, or to upper case after decoding, if
    asked for.
    """

    class Config(ImportedSection):
        """Settings of a SentencePiece tokenizer."""

        kind: Literal["sentencepiece"] = "sentencepiece"

    def __init__(
        self,
        model: bytes,
        vocabulary: Sequence[str],
        special: SpecialTokens,
        prompts: PromptTokens,
        unk: int,
        case: tuple[bool, bool] = (False, False),
        language: str | None = None,
    ) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise missing_library("sentencepiece") from None
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, OSError):
            raise AsrError("not a SentencePiece model; copy the file again") from None
        self.model, self.vocabulary, self._special, self.prompts = model, tuple(vocabulary), special, prompts
        self.unk, self.lower, self.upper = unk, *case
        self.language = language
        self._ids = {piece: i for i, piece in enumerate(self.vocabulary)}
        self._hidden = {special.eos, special.pad, special.blank, *prompts.languages.values()}
        self._hidden |= {self._ids[name] for name in ("<s>", "</s>", "<pad>") if name in self._ids}

    @property
    def kind(self) -> str:
        """The name under which `asr.kinds` lists it."""
        return "sentencepiece"

    def __len__(self) -> int:
        """Size of the vocabulary V, special tokens included."""
        return len(self.vocabulary)

    @classmethod
    def learn(cls, config: SentencePieceTokenizer.Config, text: TrainingText) -> SentencePieceTokenizer:
        """The tokenizer of the folder that the configuration names, with its language."""
        return learn_imported(config, cls).with_choice(config.language, config.task)

    def with_choice(self, language: str | None, task: str | None) -> SentencePieceTokenizer:
        """This tokenizer with another language in its prompt; None keeps its own.

        Raises AsrError for a language that the vocabulary lacks, and for every task.
        """
        language = language or self.language
        self.prompt(language, task)
        case = (self.lower, self.upper)
        return SentencePieceTokenizer(
            self.model, self.vocabulary, self._special, self.prompts, self.unk, case, language
        )

    @cached_property
    def special(self) -> SpecialTokens:
        """The special tokens, with the prompt of the tokenizer's own language."""
        values = asdict(self._special) | {"prompt": self.prompt(), "vocabulary_size": len(self)}
        return SpecialTokens.from_json(values)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The piece of each id, in the order of the ids."""
        return self.vocabulary

    @property
    def words_are_spaced(self) -> bool:
        """Whether pieces mark the beginning of words."""
        return any(piece.startswith("\u2581") for piece in self.vocabulary)

    def words_are_spaced_after(self, prompt: Sequence[int]) -> bool:
        """The same for every language."""
        return self.words_are_spaced

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces, without the prompt and EOS. A piece outside the vocabulary becomes `<unk>`."""
        pieces = self._processor.encode(text.lower() if self.lower else text, out_type=str)
        return [self._ids.get(piece, self.unk) for piece in pieces]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids. Special tokens give no text, but `<unk>` gives U+FFFD."""
        pieces = ["\ufffd" if i == self.unk else self.vocabulary[i] for i in ids if i not in self._hidden]
        text: str = self._processor.decode(pieces)
        return (text.upper() if self.upper else text).strip()

    def prompt(
        self,
        language: str | None = None,
        task: str | None = None,
        timestamps: bool = False,
        previous: Sequence[int] = (),
    ) -> tuple[int, ...]:
        """The first id of a text, then its language if the model has several.

        Raises AsrError for a language that the model lacks, and for every task.
        """
        if task is not None:
            check_task(self.prompts, task)
        if self.prompts.languages:
            language = language or self.language or next(iter(self.prompts.languages))
        if language is None:
            return (self.prompts.start,)
        return (self.prompts.start, language_token(self.prompts, language))

    def unknown(self, text: str) -> list[str]:
        """The characters of a text that no piece of the vocabulary can write, each once, in order."""
        return [c for c in dict.fromkeys(text) if not c.isspace() and self.unk in self.encode(c)]

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        with atomic_write(path) as out:
            json.dump(self._values(), out, ensure_ascii=False)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._values() == self._values()

    def __hash__(self) -> int:
        return hash(self.model)

    def _values(self) -> dict[str, Any]:
        return {
            "type": self.kind,
            "model": base64.b64encode(self.model).decode(),
            "vocabulary": self.vocabulary,
            "special": asdict(self._special),
            "prompts": asdict(self.prompts),
            "unk": self.unk,
            "lower_case": self.lower,
            "upper_case": self.upper,
            "language": self.language,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], path: Path) -> SentencePieceTokenizer:
        """The tokenizer of the values that `save` wrote to `path`. Raises AsrError for any other values."""
        try:
            return cls(
                base64.b64decode(values["model"]),
                values["vocabulary"],
                SpecialTokens.from_json(values["special"]),
                PromptTokens.from_json(values["prompts"]),
                values["unk"],
                (values["lower_case"], values["upper_case"]),
                values["language"],
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            raise AsrError(
                f"{path}: not a SentencePiece tokenizer; copy the file that was written with the model"
            ) from None
