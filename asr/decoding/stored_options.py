"""The decoding options that a model folder stores: its default ones, and the most accurate ones."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from asr.decoding.options import DecodingOptions
from asr.errors import AsrError
from asr.model_folder import check_model_folder

# In the model folder. Either file can be missing.
DEFAULT_DECODING = "default_decoding.json"
BEST_DECODING = "best_decoding.json"


def default_options(model: str | os.PathLike[str], **given: Any) -> DecodingOptions:
    """The options in the file `default_decoding.json` of a model folder; without this file, no options.

    `given` are further options, which replace those of the file; None counts as not given. With a given
    `decoder` the file is not used. In the file, the path of a language model is relative to the folder.
    Raises AsrError for options that do not exist, and for those that contradict each other.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if "decoder" in given:
        return DecodingOptions(**given)
    path = check_model_folder(model) / DEFAULT_DECODING
    return _replace(path, given) if path.is_file() else DecodingOptions(**given)


def best_options(model: str | os.PathLike[str], **given: Any) -> DecodingOptions:
    """The options in the file `best_decoding.json` of a model folder, which are the most accurate ones.

    `given` are further options, as in `default_options`, except `decoder`: the file names it. Raises AsrError
    for a folder without the file, and as `default_options` does.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if "decoder" in given:
        raise AsrError(f"decoder: {BEST_DECODING} of the model already chooses it; omit the option")
    path = check_model_folder(model) / BEST_DECODING
    if not path.is_file():
        raise AsrError(
            f"{path.parent}: the model has no {path.name}; choose the decoder and its options yourself"
        )
    return _replace(path, given)


def _replace(path: Path, given: dict[str, Any]) -> DecodingOptions:
    """The options of a file, with those that are given in their place."""
    stored = _read(path)
    if "language_model" in given:
        stored.pop("language_model_weight", None)  # it is the weight of the stored model
    try:
        return DecodingOptions(**stored | given)
    except AsrError as error:
        others = ", ".join(f"{name} {value}" for name, value in stored.items() if name not in given)
        raise AsrError(f"{error} (the model has {others}, from its {path.name})") from None


def _read(path: Path) -> dict[str, Any]:
    """The options in a file of a model folder. Raises AsrError where they cannot be used."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AsrError(f"{path}: cannot be read ({error}); write a JSON object of options") from None
    names = {field.name for field in fields(DecodingOptions)}
    if not isinstance(stored, dict) or "decoder" not in stored or not stored.keys() <= names:
        raise AsrError(f"{path}: not an object of decoding options with a decoder; see docs/transcription.md")
    try:
        DecodingOptions(**stored)
    except AsrError as error:
        raise AsrError(f"{path}: {error}") from None
    if stored.get("language_model"):
        language_model = path.parent / stored["language_model"]
        if not language_model.exists():
            raise AsrError(
                f"{path}: the language model {stored['language_model']} is not in the model folder; "
                "copy it there"
            )
        stored["language_model"] = str(language_model)
    return stored
