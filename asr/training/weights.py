"""The weights before and beside the optimizer: where they start, which stay, and their moving average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor, nn

from asr.errors import AsrError
from asr.model_folder import Bundle, load_model


class MovingAverage:
    """Exponential moving average of weights (Polyak and Juditsky 1992; the decay grows at first, so that the
    average forgets where it started). Validation and checkpoints use it in place of the weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live: list[Tensor] = list(network.parameters())
        self.restart()

    def restart(self) -> None:
        """Begin at the weights the network has now."""
        self.average = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after a step, counted from 1."""
        decay = min(self.decay, step / (step + 9))
        torch._foreach_lerp_(self.average, self._live, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the average while the block runs."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for weights, average in zip(self._live, self.average, strict=True):
            kept = weights.clone()
            weights.copy_(average)
            average.copy_(kept)


def start_from(folder: Path, bundle: Bundle) -> list[str]:
    """Copy a trained model's weights where they fit; lines that say what was kept and what begins anew.

    What belongs to a character goes with the character: its embedding, its output and its CTC output, so that
    a model can be trained on with another vocabulary. The features keep the old model's statistics when they
    are the same features, because the weights know no others.
    Raises AsrError when the folder is no model, or nothing fits.
    """
    old = load_model(folder, "cpu")
    source, target = old.network.state_dict(), bundle.network.state_dict()
    place = {symbol: i for i, symbol in enumerate(old.tokenizer.symbols)}
    rows = [i for i, symbol in enumerate(bundle.tokenizer.symbols) if symbol in place]
    olds = [place[bundle.tokenizer.symbols[i]] for i in rows]
    fresh = []
    for name, tensor in target.items():
        given = source.get(name)
        if name in bundle.network.BY_TOKEN and given is not None and given.shape[1:] == tensor.shape[1:]:
            tensor[rows] = given[olds].to(tensor)
        elif given is not None and given.shape == tensor.shape:
            tensor.copy_(given)
        else:
            fresh.append(name)
    if all(name in fresh for name, tensor in target.items() if tensor.dim() > 1):
        raise AsrError(
            f"{folder}: not one weight fits this model; train.init needs a model of the same sizes"
        )
    lines = [f"started from {folder}: {len(target) - len(fresh)} of {len(target)} tensors kept"]
    if fresh:
        lines.append(f"begin anew: {', '.join(fresh)}")
    if unseen := [c for c in bundle.tokenizer.symbols if c not in place]:
        lines.append(f"new characters: {' '.join(map(repr, unseen))}")
    if old.config.features == bundle.config.features:
        bundle.features.load_state_dict(old.features.state_dict())
    else:
        lines.append("the features are others than that model's: their statistics are those of the new data")
    return lines


def freeze(network: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Leave the weights whose names match as they are; their names. Raises AsrError for an idle pattern."""
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise AsrError(
                f"train.freeze: no weight is called {pattern!r}; there are such as {names[0]} and {names[-1]}"
            )
    frozen = []
    for name, parameter in network.named_parameters():
        if any(fnmatch(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
            frozen.append(name)
    if len(frozen) == len(names):
        raise AsrError("train.freeze: leaves nothing to train; name fewer weights")
    return frozen
