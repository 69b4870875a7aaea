"""Export of a model to the layout of the hub, which the library transformers loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from asr.config import Config
from asr.errors import AsrError
from asr.files import atomic_write, claimed
from asr.kinds import PUBLIC_FAMILIES
from asr.model_folder import Bundle, save_tensors
from asr.public.names import public_names

# Settings that a layout cannot store, but without which the exported model still works.
LEFT_OUT = {
    "model.ctc": "the CTC head",
    "features.window_seconds": "the window of the features (features.window_seconds)",
}


def export_model(bundle: Bundle[Any], target: Path) -> list[str]:
    """Write a model to a new folder in the hub's layout. Returns the parts that it cannot store.

    Raises AsrError for a model that the layout cannot describe, and when `target` has content.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AsrError(f"{target}: exists already; give the name of a new folder")
    family, config, left_out = _family_of(bundle)
    tensors: dict[str, Tensor] = {}
    for name, tensor in bundle.network.state_dict().items():
        if not name.startswith("ctc_head."):
            theirs = public_names(name, family.FRONT_END)
            tensors |= dict(zip(theirs, (t.clone() for t in tensor.chunk(len(theirs))), strict=True))
    with claimed(target):
        for file, content in ({"config.json": config} | family.write_files(bundle, config)).items():
            with atomic_write(target / file, "wb") as out:
                if isinstance(content, dict):
                    content = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
                out.write(content.encode() if isinstance(content, str) else content)
        save_tensors(target / "model.safetensors", tensors, {"format": "pt"})  # last: it completes the folder
    return left_out


def _family_of(bundle: Bundle[Any]) -> tuple[ModuleType, dict[str, Any], list[str]]:
    """The family that a model belongs to, its `config.json`, and what that leaves out.

    Raises AsrError when there is none.
    """
    for path in PUBLIC_FAMILIES.values():
        family = import_module(path)
        if isinstance(bundle.config, Config) and isinstance(bundle.tokenizer, family.TOKENIZER):
            try:
                config = family.write_config(bundle)
                expected = family.expected_model(config, bundle)
            except AttributeError as error:
                raise AsrError(f"this layout has no model of this kind ({error})") from None
            expected.pop("data", None)  # its limits come from this model and need no check
            try:
                settings = Config.model_validate({**expected, "train": {"ctc_weight": 0.0}})
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise AsrError(f"{family.ARCHITECTURE} cannot describe this model: {reason}") from None
            if bundle.config.features.kind != settings.features.kind:
                raise AsrError(
                    f"{family.ARCHITECTURE} has no features of the kind {bundle.config.features.kind}"
                )
            left_out = []
            for section in ("model", "features"):
                own, other = (getattr(each, section).model_dump() for each in (bundle.config, settings))
                for key, value, theirs in _differences(own, other, section):
                    if key not in LEFT_OUT:
                        reason = f"{key} is {value}, not {theirs}"
                        raise AsrError(f"{family.ARCHITECTURE} cannot describe this model: {reason}")
                    left_out.append(LEFT_OUT[key])
            return family, config, left_out
    raise AsrError(
        f"this layout cannot store a tokenizer of the kind {bundle.tokenizer.kind}; export a model of the "
        f"families {' and '.join(PUBLIC_FAMILIES)}"
    )


def _differences(own: dict[str, Any], other: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Each setting that differs, with both values.

    A preset only chooses other settings, so it is ignored.
    """
    for key, value in own.items():
        theirs, name = other.get(key), f"{prefix}.{key}"
        if isinstance(value, dict) and isinstance(theirs, dict):
            yield from _differences(value, theirs, name)
        elif value != theirs and name != "model.preset":
            yield name, value, theirs
