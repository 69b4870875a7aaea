"""Weights: where they start, which ones are not trained, and their moving average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asr.errors import AsrError
from asr.model.adapters import add_adapters, is_adapter
from asr.model_folder import Bundle, load_bundle
from asr.training.settings import LoopConfig


class MovingAverage:
    """Exponential moving average of weights (Polyak and Juditsky 1992).

    The decay grows at first, so that the average forgets the initial weights. Validation and checkpoints use
    the average in place of the weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live: list[Tensor] = list(network.parameters())
        self.restart()

    def restart(self) -> None:
        """Set the average to the weights that the network has now."""
        self.average = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after a step, counted from 1."""
        decay = min(self.decay, step / (step + 9))
        torch._foreach_lerp_(self.average, self._live, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block, the weights of the network are the average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for weights, average in zip(self._live, self.average, strict=True):
            before = weights.clone()
            weights.copy_(average)
            average.copy_(before)


def start_from(folder: Path, bundle: Bundle[Any]) -> list[str]:
    """Copy the weights of a trained model where they fit. Returns lines that say which were copied.

    A row that belongs to a token (of the embedding, the output and the CTC output) goes to the same token of
    the new vocabulary. If the features are the same, they keep the statistics of the old model, because its
    weights are adapted to them. Raises AsrError when the folder has no model, or no weight fits.
    """
    old = load_bundle(folder, "cpu")
    source, target = old.network.state_dict(), bundle.network.state_dict()
    id_of = {symbol: i for i, symbol in enumerate(old.tokenizer.symbols)}
    rows = [i for i, symbol in enumerate(bundle.tokenizer.symbols) if symbol in id_of]
    old_rows = [id_of[bundle.tokenizer.symbols[i]] for i in rows]
    fresh = []
    for name, tensor in target.items():
        stored = source.get(name)
        if name in bundle.network.BY_TOKEN and stored is not None and stored.shape[1:] == tensor.shape[1:]:
            tensor[rows] = stored[old_rows].to(tensor)
        elif stored is not None and stored.shape == tensor.shape:
            tensor.copy_(stored)
        else:
            fresh.append(name)
    if all(name in fresh for name, tensor in target.items() if tensor.dim() > 1):
        raise AsrError(
            f"{folder}: none of its weights fits this model; train.init needs a model of the same sizes"
        )
    lines = [f"started from {folder}: {len(target) - len(fresh)} of {len(target)} tensors copied"]
    if fresh:
        lines.append(f"start at random: {', '.join(fresh)}")
    if unseen := [c for c in bundle.tokenizer.symbols if c not in id_of]:
        lines.append(f"new tokens: {' '.join(map(repr, unseen))}")
    if "length_normalization" in old.metadata:  # a decoder trained from it needs the same normalization
        bundle.metadata["length_normalization"] = old.metadata["length_normalization"]
    if bundle.features is not None and old.features is not None:
        if old.config.features == bundle.config.features:
            bundle.features.load_state_dict(old.features.state_dict())
        else:
            lines.append(
                "the features differ from that model's, so their statistics are those of the new data"
            )
    return lines


def choose_trained(network: nn.Module, config: LoopConfig) -> list[str]:
    """Exclude weights from training as the configuration says. Returns lines that say which are trained.

    With `lora`, linear layers get adapters here. A CTC head is trained in any case, unless `freeze` names it.
    Raises AsrError for a pattern that matches nothing, and when nothing is left to train.
    """
    lines = []
    lora = config.lora
    if config.trainable == "lora":
        try:
            layers = add_adapters(network, lora.layers, lora.rank, lora.alpha)
        except LookupError as error:
            raise AsrError(
                f"train.lora.layers: no linear layer has a name like {error.args[0]!r}; "
                f"`asr inspect` lists the modules"
            ) from None
        lines.append(f"adapters of rank {lora.rank}: {len(layers)} linear layers")
    matrices = [name for name, p in network.named_parameters() if p.dim() > 1]
    for name, parameter in network.named_parameters():
        chosen = {
            "all": True,
            "norms_and_biases": name not in matrices,
            "lora": is_adapter(name),
        }[config.trainable]
        parameter.requires_grad_(chosen or name.startswith("ctc_head."))
    frozen = freeze(network, config.freeze)
    if frozen:
        lines.append(f"not trained: {', '.join(frozen)}")
    if config.trainable != "all":
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        lines.append(f"trainable {config.trainable}: {trained:,} weights are trained")
    return lines


def freeze(network: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Exclude the weights whose names match a pattern from training. Returns their names.

    Raises AsrError for a pattern that matches nothing, and when nothing is left to train.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise AsrError(
                f"train.freeze: no weight has a name like {pattern!r}; examples of names are {names[0]} "
                f"and {names[-1]}"
            )
    frozen = []
    for name, parameter in network.named_parameters():
        if any(fnmatch(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
            frozen.append(name)
    if not any(p.requires_grad for p in network.parameters()):
        raise AsrError(
            "train.freeze: the patterns match all weights, so nothing is left to train; "
            "use patterns that match fewer weights"
        )
    return frozen
