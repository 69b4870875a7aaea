"""What `asr info` says: versions, devices, and a model at a glance."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import torch

from asr import __version__
from asr.bundle import PRETRAINED, load_model


def describe(model: Path | None) -> str:
    """Lines about this installation and a model folder (None: the model that ships)."""
    bundle = load_model(model, "cpu")
    config, card = bundle.config, (model or PRETRAINED) / "README.md"
    m, f = config.model, config.features
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
        "encoder": f"{m.encoder_layers} blocks, d_model {m.d_model}, {m.n_heads} heads, d_ffn {m.d_ffn}",
        "decoder": f"{m.decoder_layers} blocks, {'pre' if m.norm == 'pre' else 'post'}-norm, "
        f"CTC head: {'yes' if m.ctc else 'no'}",
        "features": f"{f.n_mels} log-mel bins, {f.window_ms:g} ms every {f.hop_ms:g} ms, {f.sample_rate} Hz",
        "characters": f"{len(characters)}: {shown!r}",
        **{f"trained: {key}": value for key, value in sorted(bundle.metadata.items())},
    }
    if card.is_file():
        rows["model card"] = str(card)
    width = max(map(len, rows))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())
