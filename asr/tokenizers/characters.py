"""Characters <-> ids.

Id 0 is PAD and, in the CTC head, the blank: neither is ever spoken, and one id less is one case less.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from asr.errors import AsrError
from asr.files import atomic_write

PAD, BOS, EOS, UNK = range(4)
_SPECIAL = ("<pad>", "<begin>", "<end>", "<unk>")


@dataclass(frozen=True)
class Tokenizer:
    """A character tokenizer of any script. `characters[i]` has the id `i + 4`.

    Text is brought to Unicode form NFC first, so that an accented letter is one character however it was
    typed, and runs of white space become one space.
    """

    characters: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ids", {c: i for i, c in enumerate(self.characters, len(_SPECIAL))})

    @classmethod
    def learn(cls, texts: Iterable[str]) -> Tokenizer:
        """All characters of the texts, in code point order."""
        characters: set[str] = set()
        for text in texts:
            characters.update(normalize_text(text))
        return cls(tuple(sorted(characters)))

    @classmethod
    def of(cls, characters: Iterable[str]) -> Tokenizer:
        """These characters, each once, in code point order; white space counts as the space."""
        return cls(tuple(sorted({" " if c.isspace() else c for c in characters})))

    def __len__(self) -> int:
        """Size of the vocabulary V, the four special tokens included."""
        return len(self.characters) + len(_SPECIAL)

    @property
    def symbols(self) -> tuple[str, ...]:
        """What each id stands for, in the order of the ids."""
        return (*_SPECIAL, *self.characters)

    def encode(self, text: str) -> list[int]:
        """Ids of the characters, without BOS and EOS; a character never learnt becomes UNK."""
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        return [ids.get(c, UNK) for c in normalize_text(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens say nothing, but UNK shows as U+FFFD."""
        n = len(_SPECIAL)
        return "".join(self.characters[i - n] if i >= n else "\ufffd" for i in ids if i >= n or i == UNK)

    def unknown(self, text: str) -> list[str]:
        """The characters of the text that were never learnt, each once, in order."""
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        return list(dict.fromkeys(c for c in normalize_text(text) if c not in ids))

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        with atomic_write(path) as out:
            json.dump({"type": "characters", "tokens": self.symbols}, out, ensure_ascii=False)

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read what `save` wrote. Raises AsrError when the file is missing or is something else."""
        try:
            tokens = json.loads(path.read_text(encoding="utf-8"))["tokens"]
            special, characters = tuple(tokens[: len(_SPECIAL)]), tuple(tokens[len(_SPECIAL) :])
        except OSError as error:
            raise AsrError(
                f"{path}: cannot read the tokenizer ({error.strerror}); a model folder needs it"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise AsrError(
                f"{path}: not a tokenizer; copy the file that was written with the model"
            ) from None
        one_each = all(isinstance(c, str) and len(c) == 1 for c in characters)
        if special != _SPECIAL or not one_each or len(set(characters)) != len(characters):
            raise AsrError(
                f"{path}: not a character tokenizer; copy the file that was written with the model"
            )
        return cls(characters)


def normalize_text(text: str) -> str:
    """The text as the tokenizer takes it: NFC, and one space for any white space."""
    return " ".join(unicodedata.normalize("NFC", text).split())
