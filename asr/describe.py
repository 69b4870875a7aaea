"""What `asr info` says: versions, devices, and a model at a glance."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import torch

from asr import __version__
from asr.config import Config
from asr.config_lm import LanguageModelConfig
from asr.model_folder import LANGUAGE_MODEL, PRETRAINED, Bundle, kind_of, load_model
from asr.model_folder_lm import LanguageBundle, load_language_model


def describe(model: Path | None) -> str:
    """Lines about this installation and a model folder (None: the model that ships)."""
    bundle: Bundle | LanguageBundle
    if model is not None and kind_of(model) == LANGUAGE_MODEL:
        bundle = load_language_model(model, "cpu")
        sizes = _language_sizes(bundle.config.model)
    else:
        bundle = load_model(model, "cpu")
        sizes = _sizes(bundle.config)
    card = (model or PRETRAINED) / "README.md"
    characters = "".join(bundle.tokenizer.characters)
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
        "model": str(model or f"{PRETRAINED} (ships with asr)"),
        "parameters": f"{bundle.parameters():,}",
        **sizes,
        "characters": f"{len(characters)}: {shown!r}",
        **{f"trained: {key}": value for key, value in sorted(bundle.metadata.items())},
    }
    if card.is_file():
        rows["model card"] = str(card)
    width = max(map(len, rows))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())


def _sizes(config: Config) -> dict[str, str]:
    m, f = config.model, config.features
    return {
        "encoder": f"{m.encoder_layers} blocks, d_model {m.d_model}, {m.n_heads} heads, d_ffn {m.d_ffn}",
        "decoder": f"{m.decoder_layers} blocks, {m.norm}-norm, CTC head: {'yes' if m.ctc else 'no'}",
        "features": f"{f.n_mels} log-mel bins, {f.window_ms:g} ms every {f.hop_ms:g} ms, {f.sample_rate} Hz",
    }


def _language_sizes(m: LanguageModelConfig) -> dict[str, str]:
    heads = f"d_model {m.d_model}, {m.n_heads} heads, d_ffn {m.d_ffn}"
    return {"language model": f"{m.n_layers} blocks, {heads}, {m.norm}-norm"}
