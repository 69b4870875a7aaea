"""Tokenizers: text to ids and back. One file per kind; each kind owns its special tokens."""

from __future__ import annotations

import json
from pathlib import Path

from asr.errors import AsrError
from asr.kinds import TOKENIZERS
from asr.section import load_kind
from asr.tokenizers.characters import CharacterTokenizer, normalize_text
from asr.tokenizers.interface import Tokenizer
from asr.tokenizers.special import SpecialTokens

__all__ = [
    "CharacterTokenizer",
    "SpecialTokens",
    "Tokenizer",
    "load_tokenizer",
    "normalize_text",
]


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer file of any kind. Raises AsrError when it is missing or is something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind = load_kind(TOKENIZERS, values["type"])
    except OSError as error:
        raise AsrError(
            f"{path}: cannot read the tokenizer ({error.strerror}); a model folder needs it"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise AsrError(f"{path}: not a tokenizer; copy the file that was written with the model") from None
    tokenizer: Tokenizer = kind.from_json(values, path)
    return tokenizer
