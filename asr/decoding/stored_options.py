"""The most accurate decoding options of a model, from a file in its folder."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import Any

from asr.decoding.options import DecodingOptions
from asr.errors import AsrError
from asr.model_folder import check_model_folder

BEST_DECODING = "best_decoding.json"  # in the model folder


def best_options(model: str | os.PathLike[str], **given: Any) -> DecodingOptions:
    """The options in the file `best_decoding.json` of a model folder.

    `given` are further options, which replace those of the file; None counts as not given. In the file, the
    path of a language model is relative to the folder. Raises AsrError when the folder has no such file, for
    options that do not exist, and for those that contradict each other.
    """
    folder = check_model_folder(model)
    path = folder / BEST_DECODING
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AsrError(
            f"{folder}: the model has no {BEST_DECODING}; choose the decoder and its options yourself"
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
    return DecodingOptions(**stored | {name: value for name, value in given.items() if value is not None})
