"""Helpers that several test files use."""

from __future__ import annotations

from typing import Any

PAD, BOS, EOS, UNK = range(4)  # the special tokens of a character tokenizer


def sections(
    *,
    encoder_layers: int = 1,
    decoder_layers: int = 1,
    conv_channels: int = 4,
    conv_kernel: int = 0,
    **settings: Any,
) -> dict[str, Any]:
    """The section `model` of a small configuration, from sizes in one flat list."""
    return {
        "front_end": {"channels": conv_channels},
        "encoder": {"n_layers": encoder_layers, "conv_kernel": conv_kernel},
        "decoder": {"n_layers": decoder_layers},
        **settings,
    }
