"""The output of `asr info`: versions, devices, and the properties of a model."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import torch

from asr import __version__
from asr.config import Config, Experiment, Section
from asr.model_folder import PRETRAINED, check_model_folder, load_bundle


def summary(model: Path | None) -> str:
    """Lines about this installation and a model folder (None: the English model that ships)."""
    bundle = load_bundle(model or PRETRAINED, "cpu")
    sizes = _sizes(bundle.config)
    card = check_model_folder(model or PRETRAINED) / "README.md"
    characters = "".join(s for s in bundle.tokenizer.symbols if len(s) == 1)
    shown = characters if len(characters) <= 60 else characters[:60] + "..."
    devices = ["cpu"] + [
        f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        devices.append("mps")
    rows = {
        "asr": __version__,
        "python": platform.python_version(),
        "torch": f"{version('torch')}, torchaudio {version('torchaudio')}",
        "devices": ", ".join(devices),
        "model folder": str(model or f"{PRETRAINED} (ships with asr)"),
        "parameters": f"{bundle.parameters():,}",
        **sizes,
        "tokenizer": f"{bundle.tokenizer.kind}, {len(bundle.tokenizer)} tokens",
        **({"characters": f"{len(characters)}: {shown!r}"} if bundle.tokenizer.kind == "characters" else {}),
        **{f"trained: {key}": value for key, value in sorted(bundle.metadata.items())},
    }
    if card.is_file():
        rows["model card"] = str(card)
    width = max(map(len, rows))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())


def _sizes(config: Experiment) -> dict[str, str]:
    """One line for each part of the model, with its settings."""
    sections: dict[str, Section] = {"model": config.model}
    if isinstance(config, Config):
        sections = {"features": config.features, **sections}
    lines: dict[str, str] = {}
    for name, section in sections.items():
        own = {}
        for key, value in section:
            if isinstance(value, Section):
                lines[key] = _shown(dict(value))
            elif value is not None:
                own[key] = value
        lines[name] = _shown(own)
    return lines


def _shown(settings: dict[str, object]) -> str:
    """Settings in one line. A section inside the section is shown in parentheses."""
    shown = {k: f"({_shown(dict(v))})" if isinstance(v, Section) else v for k, v in settings.items()}
    return ", ".join(str(v) if k == "kind" else f"{k} {v}" for k, v in shown.items())
