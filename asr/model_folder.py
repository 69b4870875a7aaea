"""A model folder: configuration, tokenizer and weights that belong together.

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
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from asr.config import Config, Experiment, LanguageConfig, validate
from asr.errors import AsrError
from asr.files import atomic_write
from asr.kinds import FEATURES, MODELS
from asr.model.adapters import load_merged_state, merged_state
from asr.public.names import is_hub_name
from asr.run_folder import CONFIG, TOKENIZER, WEIGHTS
from asr.section import load_kind
from asr.tokenizers import SpecialTokens, Tokenizer, load_tokenizer

SHIPPED = Path(__file__).parent / "pretrained"  # the models that ship, each in a folder with its name
PRETRAINED = SHIPPED / "english"  # the default model
C = TypeVar("C", bound=Experiment)


@dataclass
class Bundle(Generic[C]):
    """Everything that a model needs. A language model has no features."""

    config: C
    tokenizer: Tokenizer
    features: Any  # Features, which are also an nn.Module; None for a language model
    network: Any  # isinstance tells its operations (asr.model.interfaces)
    metadata: dict[str, str]  # stored with the weights: step, scores, `longest_seconds` of audio, defaults

    @classmethod
    def build(cls, config: C, tokenizer: Tokenizer) -> Bundle[C]:
        """A model with new weights, drawn from torch's global generator.

        Raises AsrError when the model is too large for the memory.
        """
        kind = load_kind(MODELS, config.model.kind)
        try:
            if isinstance(config, Config):
                features = load_kind(FEATURES, config.features.kind)(config.features)
                network = kind(config.model, features.n_features, len(tokenizer))
            else:
                features, network = None, kind(config.model, len(tokenizer))
        except (RuntimeError, MemoryError) as error:
            reason = str(error).splitlines()[0] if str(error) else "out of memory"
            raise AsrError(f"the model cannot be built ({reason}); choose smaller sizes in model") from None
        return cls(config, tokenizer, features, network, {})

    @property
    def module(self) -> nn.ModuleDict:
        """Features and network as one module, to be stored, moved and counted together."""
        parts = {"features": self.features, "network": self.network}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.network.parameters())).device

    @property
    def special(self) -> SpecialTokens:
        """The special tokens of the vocabulary."""
        return self.tokenizer.special

    def to(self, device: torch.device | str) -> Bundle[C]:
        """Move to a device, in place. Raises AsrError when its memory does not suffice."""
        try:
            self.module.to(device)
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
            raise AsrError(f"the model does not fit on {device} ({reason}); use another device") from None
        return self

    def eval(self) -> Bundle[C]:
        """Switch dropout off, in place."""
        self.module.eval()
        return self

    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(p.numel() for p in self.network.parameters())

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None, **metadata: Any) -> None:
        """Write the model folder, each file atomically. The weights are last and make it complete.

        Adapters are merged into the weights.
        """
        self.config.save(folder / CONFIG)
        self.tokenizer.save(folder / TOKENIZER)
        state = merged_state(self.module) if weights is None else weights
        new = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        save_tensors(folder / WEIGHTS, state, self.metadata | new)


def load_bundle(path: str | os.PathLike[str], device: str = "auto") -> Bundle[Any]:
    """Load the recognizer or language model of a folder, ready to be used on the device.

    `device` is "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1" or "mps". Raises AsrError when the
    folder or a file in it is missing or does not fit the others, and for weights that are not finite.
    """
    folder = check_model_folder(path)
    target = pick_device(device)
    config = read_config(folder)
    bundle: Bundle[Any] = Bundle.build(config, load_tokenizer(folder / TOKENIZER))
    bundle.metadata = load_weights(bundle, folder)
    return bundle.to(target).eval()


def load_model(path: str | os.PathLike[str] | None = None, device: str = "auto") -> Bundle[Config]:
    """Load a recognizer (None: the English model that ships), as `load_bundle` does."""
    folder = PRETRAINED if path is None else path
    if isinstance(read_config(check_model_folder(folder)), LanguageConfig):
        raise AsrError(f"{folder}: this is a language model; name the folder of a recognizer")
    return load_bundle(folder, device)


def load_language_model(path: str | os.PathLike[str], device: str = "auto") -> Bundle[LanguageConfig]:
    """Load a language model, as `load_bundle` does."""
    if isinstance(read_config(check_model_folder(path)), Config):
        raise AsrError(f"{path}: this is a recognizer; name the folder of a language model")
    return load_bundle(path, device)


def check_model_folder(path: str | os.PathLike[str]) -> Path:
    """The path of a folder with all files of a model, or of a model that ships, given by its name.

    A name of Hugging Face's hub, `owner/name`, is imported once. A folder with the same name in the
    current folder has priority. Raises AsrError for any other path.
    """
    folder = Path(path)
    if len(folder.parts) == 1 and not os.path.exists(folder) and os.path.isdir(SHIPPED / folder):  # noqa: PTH110, PTH112
        folder = SHIPPED / folder
    if not os.path.exists(folder) and is_hub_name(path):  # noqa: PTH110
        from asr.public.cache import cached_model  # it uses this module

        folder = cached_model(os.fspath(path))
    if not os.path.isdir(folder):  # noqa: PTH112  Path's method fails without permission to look
        raise AsrError(
            f"{folder}: no such model folder; give the folder that training wrote, or a name of the hub such "
            "as openai/whisper-tiny"
        )
    for name in (CONFIG, TOKENIZER, WEIGHTS):
        if not os.path.isfile(folder / name):  # noqa: PTH113
            raise AsrError(
                f"{folder}: no {name} in this model folder; a model needs {CONFIG}, {TOKENIZER}, {WEIGHTS} "
                "(a run folder has them after its first validation)"
            )
    return folder


def read_config(folder: Path) -> Experiment:
    """The configuration of a model folder, of any version. Raises AsrError when it cannot be read."""
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AsrError(f"{path}: cannot read the configuration ({error.strerror}); check the path") from None
    except ValueError as error:
        raise AsrError(f"{path}: not JSON ({error}); copy the file again") from None
    if not isinstance(values, dict):
        raise AsrError(f"{path}: not a configuration; copy the file that was written with the model")
    return validate(_upgrade_config(values), path)


def load_weights(bundle: Bundle[Any], folder: Path) -> dict[str, str]:
    """Put a model folder's weights into a model and return their metadata.

    Raises AsrError where they do not fit, and for weights that are NaN or infinite.
    """
    state, metadata = load_tensors(folder / WEIGHTS)
    state = {_upgrade_name(name): tensor for name, tensor in state.items()}
    # Earlier versions stored parts that were not trained. The model is built without them.
    for part in ("ctc_head", "decoder"):
        if not hasattr(bundle.network, part):
            state = {name: t for name, t in state.items() if not name.startswith(f"network.{part}.")}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise AsrError(
                f"{folder / WEIGHTS}: the weight {name} is NaN or infinite; use another checkpoint of the run"
            )
    try:
        load_merged_state(bundle.module, state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise AsrError(
            f"{folder}: {WEIGHTS} does not fit {CONFIG} and {TOKENIZER} ({reason[:200]})"
        ) from None
    return metadata


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA if there is one. Raises AsrError for one that cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # the meta device has no data
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
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
        raise AsrError(f"{path}: cannot be read as safetensors ({error}); copy the file again") from None


def _upgrade_config(values: dict[str, Any]) -> dict[str, Any]:
    """The configuration in its present form. Until version 0.2 `model` had the settings of all parts."""
    if not all(isinstance(values.get(name, {}), dict) for name in ("model", "data")):
        return values  # refused where the configuration is read
    model, data = dict(values.get("model", {})), dict(values.get("data", {}))
    places = {
        "encoder_layers": ("encoder", "n_layers"),
        "conv_kernel": ("encoder", "conv_kernel"),
        "decoder_layers": ("decoder", "n_layers"),
        "conv_channels": ("front_end", "channels"),
    }
    for old, (part, name) in places.items():
        if old in model:
            value, section = model.pop(old), model.get(part, {})
            if isinstance(section, dict):  # others are refused where the configuration is read
                model[part] = {**section, name: value}
    for section in (model, model.get("decoder")):
        # Version 0.2.0 stored an empty list of alignment heads for every decoder and language model.
        if isinstance(section, dict) and section.get("alignment_heads") == []:
            del section["alignment_heads"]
    upgraded = {**values, "model": model}
    if "characters" in data and "tokenizer" not in values:
        upgraded["tokenizer"] = {"characters": data.pop("characters")}
        upgraded["data"] = data
    return upgraded


def _upgrade_name(name: str) -> str:
    """The present name of a weight. Until version 0.2 some weights had other names."""
    name = re.sub(r"\baround_(\w+?)\.", r"\1_residual.", name)
    name = name.replace("network.encoder.front_end.", "network.front_end.")
    if re.match(r"(embed|blocks|norm|out)\.", name):  # a language model
        name = re.sub(r"\battention(\.|_residual)", r"self_attention\1", name)
        name = f"network.decoder.{name}"
    return name
