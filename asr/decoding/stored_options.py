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
    """The options in the file `default_decoding.json` of a model folder, or greedy decoding without the file.

    `given` are further options, which replace those of the file; None counts as not given. A given `decoder`
    replaces all of them. In the file, the path of a language model is relative to the folder. Raises AsrError
    for options that do not exist, and for those that contradict each other.
    """
    given = {name: value for name, value in given.items() if value is not None}
    folder = check_model_folder(model)
    if "decoder" in given or not (folder / DEFAULT_DECODING).is_file():
        return DecodingOptions(**given)
    stored = _read(folder, DEFAULT_DECODING)
    try:
        return _replace(stored, given)
    except AsrError as error:
        raise AsrError(f"{error} (the default of this model is --decoder {stored['decoder']})") from None


def best_options(model: str | os.PathLike[str], **given: Any) -> DecodingOptions:
    """The options in the file `best_decoding.json` of a model folder, which are the most accurate ones.

    `given` and errors are those of `default_options`, but a folder without the file also raises AsrError.
    """
    return _replace(
        _read(check_model_folder(model), BEST_DECODING),
        {name: value for name, value in given.items() if value is not None},
    )


def _replace(stored: dict[str, Any], given: dict[str, Any]) -> DecodingOptions:
    """The stored options, with those that are given in their place."""
    if "language_model" in given:
        stored.pop("language_model_weight", None)  # it is the weight of the stored model
    return DecodingOptions(**stored | given)


def _read(folder: Path, name: str) -> dict[str, Any]:
    """The options in a file of a model folder. Raises AsrError where they cannot be used."""
    path = folder / name
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AsrError(
            f"{folder}: the model has no {name}; choose the decoder and its options yourself"
        ) from None
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
        stored["language_model"] = str(folder / stored["language_model"])
    return stored
