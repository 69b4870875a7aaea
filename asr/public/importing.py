"""Import of a public model: one of our model folders, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from asr.config import Config, apply_overrides, validate
from asr.errors import AsrError
from asr.files import claimed
from asr.kinds import PUBLIC_FAMILIES
from asr.model_folder import Bundle
from asr.public.hub import find_folder
from asr.public.names import public_names
from asr.public.source import Source, Weights


def import_model(
    name: str,
    target: Path,
    revision: str | None = None,
    overrides: tuple[str, ...] = (),
    on_found: Callable[[], object] = lambda: None,
) -> Bundle[Config]:
    """Write a model folder `target` with the model of a folder, or of the hub, in the hub's layout.

    `overrides` are settings that differ, `section.key=value`, such as `features.window_seconds=null`.
    `on_found` is called when the model is found, before any download. Raises AsrError when files are missing
    or broken, when the model is of another family, and when `target` has content.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AsrError(f"{target}: exists already; give the name of a new folder")
    bundle = read_model(Source(find_folder(name, revision, on_found)), overrides)
    with claimed(target):
        bundle.save(target, imported_from=name, longest_seconds=str(bundle.config.data.max_seconds))
    return bundle


def read_model(source: Source, overrides: tuple[str, ...] = ()) -> Bundle[Config]:
    """The model of a folder in the hub's layout. Raises AsrError as `import_model` does."""
    config = source.json("config.json")
    family = _family(source, config)
    try:
        values = {"train": {"ctc_weight": 0.0}, **family.read_config(source)}
        tokenizer = family.read_tokenizer(source)
        penalty = source.json("generation_config.json", optional=True).get("length_penalty")
        penalty = 1.0 if penalty is None else float(penalty)  # as transformers
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise AsrError(
            f"{source.folder}: config.json or the tokenizer lacks settings ({error}); download them again"
        ) from None
    weights = source.weights()  # opened before the work of building the network
    apply_overrides(values, overrides)
    settings = validate(values, source.folder / "config.json", overrides=overrides)
    assert isinstance(settings, Config)
    choice = settings.tokenizer.model_dump()
    tokenizer = tokenizer.with_choice(choice["language"], choice["task"])
    bundle = Bundle.build(settings, tokenizer)
    bundle.metadata = {"length_normalization": str(penalty)}
    _load(bundle.network, weights, family, source)
    return bundle


def _family(source: Source, config: dict[str, Any]) -> ModuleType:
    """The module of the family that the configuration names."""
    kind = config.get("model_type")
    if kind not in PUBLIC_FAMILIES:
        raise AsrError(
            f"{source.folder}: the model has the type {kind!r}; only {' and '.join(PUBLIC_FAMILIES)} can be "
            "imported"
        )
    family = import_module(PUBLIC_FAMILIES[kind])
    architectures = config.get("architectures") or [family.ARCHITECTURE]
    if family.ARCHITECTURE not in architectures:
        raise AsrError(
            f"{source.folder}: holds {architectures[0]}; only {family.ARCHITECTURE} can be imported"
        )
    if config.get("tie_word_embeddings") is False:
        raise AsrError(
            f"{source.folder}: its output layer is not the embedding; such models cannot be imported"
        )
    return family


@torch.no_grad()
def _load(network: Any, weights: Weights, family: ModuleType, source: Source) -> None:
    """Copy the weights. Raises AsrError for missing or unknown weights, and for wrong shapes."""
    used = {family.HEAD}
    # Older files lack the first part of the names, and store positions that are computed.
    prefix = "" if any(name.startswith("model.") for name in weights.names) else "model."
    for name, own in network.state_dict(keep_vars=True).items():
        theirs = [each.removeprefix(prefix) for each in public_names(name, family.FRONT_END)]
        used.update(theirs)
        try:
            tensor = torch.cat([weights.tensor(each) for each in theirs])
        except KeyError as error:
            raise AsrError(
                f"{source.folder}: the weights lack {error.args[0]}; download them again"
            ) from None
        except Exception as error:  # the library raises errors of its own for a file that is cut short
            reason = " ".join(str(error).split())[:100]
            raise AsrError(
                f"{source.folder}: {theirs[0]} cannot be read ({reason}); download it again"
            ) from None
        if tensor.shape != own.shape:
            raise AsrError(
                f"{source.folder}: {theirs[0]} has the shape {list(tensor.shape)}, but config.json needs "
                f"{list(own.shape)}; they do not belong together"
            )
        if not tensor.isfinite().all():
            raise AsrError(f"{source.folder}: {theirs[0]} is not finite; use another checkpoint")
        own.copy_(tensor)
    left = [n for n in weights.names if n not in used and not n.endswith("embed_positions.weights")]
    if left:
        raise AsrError(
            f"{source.folder}: the weight {left[0]} is not part of this family of models, so the model "
            "cannot be imported"
        )
