"""The interface of every tokenizer. Only tokenizers know which ids are special."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from asr.tokenizers.special import PromptTokens, SpecialTokens


class TrainingText(Protocol):
    """The texts that a tokenizer is learned from."""

    def characters(self) -> Iterable[str]:
        """The characters of all texts, each once."""
        ...

    def sentences(self) -> Iterator[str]:
        """The texts, one after the other."""
        ...


class Tokenizer(Protocol):
    """Text to ids and back."""

    @property
    def kind(self) -> str:
        """The name under which `asr.kinds` lists it."""
        ...

    @property
    def special(self) -> SpecialTokens:
        """The special tokens, as decoders and losses need them."""
        ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """The text of each id, in the order of the ids. Special tokens have names in angle brackets."""
        ...

    @property
    def words_are_spaced(self) -> bool:
        """Whether the script is written with spaces between words."""
        ...

    def __len__(self) -> int:
        """Size of the vocabulary V, special tokens included."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the prompt and EOS. What the vocabulary lacks becomes the unknown token."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids. Special tokens give no text, but the unknown token gives U+FFFD."""
        ...

    def prompt(
        self,
        language: str | None = None,
        task: str | None = None,
        timestamps: bool = False,
        previous: Sequence[int] = (),
    ) -> tuple[int, ...]:
        """The ids that a text begins with. Raises AsrError for a language or task that it does not have."""
        ...

    def unknown(self, text: str) -> list[str]:
        """The characters of a text that the vocabulary cannot write, each once, in order."""
        ...

    def save(self, path: Path) -> None:
        """Write as JSON, atomically. Its key `type` is the kind."""
        ...


@runtime_checkable
class HasPromptTokens(Protocol):
    """A tokenizer whose prompt chooses a language or a task, with rules for the first token of a text."""

    @property
    def prompts(self) -> PromptTokens:
        """The tokens of the prompt."""
        ...

    def words_are_spaced_after(self, prompt: Sequence[int]) -> bool:
        """Whether texts that follow a prompt are written with spaces between words."""
        ...


@runtime_checkable
class HasTokenBytes(Protocol):
    """A tokenizer whose tokens are strings of bytes, which need not be whole characters."""

    @property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The UTF-8 bytes that each id adds to a text; none for special tokens."""
        ...
