"""What tokenizers that were learned elsewhere share: their settings, and the choice of language and task."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import Field

from asr.errors import AsrError
from asr.run_folder import TOKENIZER
from asr.section import TokenizerSection
from asr.tokenizers.special import PromptTokens

T = TypeVar("T")


class ImportedSection(TokenizerSection):
    """Settings of a tokenizer that was learned elsewhere."""

    folder: str | None = Field(
        None,
        description="training: the model folder that the tokenizer is taken from; `asr import` writes one",
    )
    language: str | None = Field(
        None,
        description="language of all texts, such as de; null: that of the folder, or the vocabulary's first",
    )
    task: str | None = Field(
        None, description="transcribe or translate; null: that of the folder, or transcribe"
    )


def learn_imported(config: ImportedSection, kind: type[T]) -> T:
    """The tokenizer of the folder that the configuration names. Raises AsrError when there is none."""
    from asr.tokenizers import load_tokenizer

    if config.folder is None:
        raise AsrError(
            f"tokenizer.folder is not set: a tokenizer of the kind {config.kind} is not learned here; give "
            "the folder of an imported model"
        )
    tokenizer = load_tokenizer(Path(config.folder) / TOKENIZER)
    if not isinstance(tokenizer, kind):
        raise AsrError(f"{config.folder}: its tokenizer is not of the kind {config.kind}; set tokenizer.kind")
    return tokenizer


def language_token(tokens: PromptTokens, language: str) -> int:
    """The token of a language. Raises AsrError when the vocabulary has none."""
    if not tokens.languages:
        raise AsrError("this model has no choice of language; leave the option out")
    if language not in tokens.languages:
        raise AsrError(
            f"language {language!r}: this model does not have it; choose one of {', '.join(tokens.languages)}"
        )
    return tokens.languages[language]


def check_task(tokens: PromptTokens, task: str) -> int:
    """The token of a task. Raises AsrError when the vocabulary has none."""
    if not tokens.tasks:
        raise AsrError("this model has no choice of task; leave the option out")
    if task not in tokens.tasks:
        raise AsrError(f"task {task!r}: this model does not have it; choose {' or '.join(tokens.tasks)}")
    return tokens.tasks[task]


def missing_library(name: str) -> AsrError:
    """The error for a library that is not installed."""
    return AsrError(f"this tokenizer needs the library {name}, which is not installed; pip install {name}")
