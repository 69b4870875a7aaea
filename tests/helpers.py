"""Helpers that several test files use."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

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


def import_speechbrain(name: str) -> ModuleType:
    """A module of SpeechBrain; the test is skipped where it is not installed.

    SpeechBrain leaves modules in `sys.modules` that fail when anyone looks at them, as hypothesis does.
    """
    module: ModuleType = pytest.importorskip(name)
    for key, each in list(sys.modules.items()):
        if type(each).__name__ in ("LazyModule", "DeprecatedModuleRedirect"):
            del sys.modules[key]
    return module
