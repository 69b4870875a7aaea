"""A language model's folder: the same three files as a recognizer's (`asr.model_folder`)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asr.config import load_config
from asr.config_lm import LanguageConfig
from asr.model.decoders.language_model import LanguageModel
from asr.model_folder import (
    CONFIG,
    LANGUAGE_MODEL,
    TOKENIZER,
    WEIGHTS,
    load_weights,
    model_folder,
    pick_device,
    save_tensors,
)
from asr.tokenizers import Tokenizer


@dataclass
class LanguageBundle:
    """Everything a language model is made of."""

    config: LanguageConfig
    tokenizer: Tokenizer
    network: LanguageModel
    metadata: dict[str, str]  # stored with the weights: step, perplexity

    @classmethod
    def build(cls, config: LanguageConfig, tokenizer: Tokenizer) -> LanguageBundle:
        """A model with fresh weights, drawn from torch's global generator."""
        return cls(config, tokenizer, LanguageModel(config.model, len(tokenizer)), {})

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.embed.weight.device

    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(p.numel() for p in self.network.parameters())

    def save(self, folder: Path, **metadata: Any) -> None:
        """Write the model folder, each file atomically; the weights come last, and complete it."""
        self.config.save(folder / CONFIG)
        self.tokenizer.save(folder / TOKENIZER)
        said = self.metadata | {key: json.dumps(value) for key, value in metadata.items()}
        save_tensors(folder / WEIGHTS, self.network.state_dict(), said)


def load_language_model(path: str | os.PathLike[str], device: str = "auto") -> LanguageBundle:
    """Load a language model's folder, ready to score on the device ("auto": CUDA where there is one).

    Raises AsrError when the folder, or a file in it, is missing, does not fit the others, or holds a
    recognizer.
    """
    folder = model_folder(path, LANGUAGE_MODEL)
    target = pick_device(device)
    config = load_config(folder / CONFIG, (), LanguageConfig)
    bundle = LanguageBundle.build(config, Tokenizer.load(folder / TOKENIZER))
    bundle.metadata = load_weights(bundle.network, folder)
    bundle.network.to(target).eval()
    return bundle
