"""A model folder: configuration, tokenizer, features and network that belong together.

    config.json  tokenizer.json  model.safetensors  [README.md, the model card]

A run folder and every checkpoint folder in it are model folders. Nothing that is loaded can run code.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from asr.config import Config, load_config
from asr.errors import AsrError
from asr.features.log_mel import LogMel
from asr.files import atomic_write
from asr.model import Transformer
from asr.tokenizers import Tokenizer

CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
RECOGNIZER, LANGUAGE_MODEL = "recognizer", "language model"  # what a model folder can hold
PRETRAINED = Path(__file__).parent / "pretrained" / "digits"


@dataclass
class Bundle:
    """Everything a model is made of."""

    config: Config
    tokenizer: Tokenizer
    features: LogMel
    network: Transformer
    metadata: dict[str, str]  # stored with the weights: step, scores, `longest_seconds` of audio trained on

    @classmethod
    def build(cls, config: Config, tokenizer: Tokenizer) -> Bundle:
        """A model with fresh weights, drawn from torch's global generator."""
        features = LogMel(config.features)
        network = Transformer(config.model, config.features.n_mels, len(tokenizer))
        return cls(config, tokenizer, features, network, {})

    @property
    def module(self) -> nn.ModuleDict:
        """Features and network as one module: what is stored, moved and counted together."""
        return nn.ModuleDict({"features": self.features, "network": self.network})

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.features.mean.device

    def to(self, device: torch.device | str) -> Bundle:
        """Move to a device, in place."""
        self.module.to(device)
        return self

    def eval(self) -> Bundle:
        """Switch dropout off, in place."""
        self.module.eval()
        return self

    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(p.numel() for p in self.network.parameters())

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None, **metadata: Any) -> None:
        """Write the model folder, each file atomically; the weights come last, and complete it."""
        self.config.save(folder / CONFIG)
        self.tokenizer.save(folder / TOKENIZER)
        state = self.module.state_dict() if weights is None else weights
        said = {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()
        }
        save_tensors(folder / WEIGHTS, state, self.metadata | said)


def load_model(path: str | os.PathLike[str] | None = None, device: str = "auto") -> Bundle:
    """Load a model folder (None: the model that ships), ready to decode on the device.

    `device` is "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1" or "mps". Raises AsrError when the
    folder, or a file in it, is missing or does not fit the others.
    """
    folder = model_folder(path if path is not None else PRETRAINED, RECOGNIZER)
    target = pick_device(device)
    bundle = Bundle.build(load_config(folder / CONFIG), Tokenizer.load(folder / TOKENIZER))
    bundle.metadata = load_weights(bundle.module, folder)
    return bundle.to(target).eval()


def model_folder(path: str | os.PathLike[str], wanted: str) -> Path:
    """The path of a folder that holds a model of the wanted kind. Raises AsrError for any other."""
    folder = Path(path)
    if not os.path.isdir(folder):  # noqa: PTH112  Path's fails where one may not look
        raise AsrError(f"{folder}: no such model folder; give the folder that training wrote")
    for name in (CONFIG, TOKENIZER, WEIGHTS):
        if not os.path.isfile(folder / name):  # noqa: PTH113
            raise AsrError(
                f"{folder}: no {name} in this model folder; a model needs {CONFIG}, {TOKENIZER}, {WEIGHTS} "
                "(a run folder has them after its first validation)"
            )
    kind = kind_of(folder)
    if kind != wanted:
        raise AsrError(f"{folder}: holds a {kind}; a {wanted} is wanted here")
    return folder


def kind_of(folder: Path) -> str:
    """What a model folder holds, by its configuration: a recognizer, unless another kind is named."""
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whoever loads it says what is wrong
        return RECOGNIZER
    return str(values.get("kind", RECOGNIZER)) if isinstance(values, dict) else RECOGNIZER


def load_weights(module: nn.Module, folder: Path) -> dict[str, str]:
    """Put a model folder's weights into a module; their metadata. Raises AsrError where they do not fit."""
    state, metadata = load_tensors(folder / WEIGHTS)
    state = {_current_name(name): tensor for name, tensor in state.items()}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise AsrError(
            f"{folder}: {WEIGHTS} does not fit {CONFIG} and {TOKENIZER} ({reason[:200]})"
        ) from None
    return metadata


def _current_name(name: str) -> str:
    """The present name of a weight; folders written before version 0.2 have older names."""
    return re.sub(r"\baround_(\w+?)\.", r"\1_residual.", name)


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is one. Raises AsrError for one that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise AsrError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try cpu"
        ) from None
    return device


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically."""
    with atomic_write(path, "wb") as out:
        out.write(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, dict(metadata)))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a safetensors file. Raises AsrError for a broken one."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AsrError(f"{path}: cannot be read as safetensors ({error}); copy the file anew") from None
