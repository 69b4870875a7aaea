"""Parameters and floating-point operations of every module of a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from asr.flops import flop_counter
from asr.model.attention import MultiHeadAttention
from asr.model.interfaces import FillsMasks, HasCTC, HasDecoder, LimitsPositions
from asr.model_folder import Bundle
from asr.tokenizers import SpecialTokens

SECONDS = 10.0  # of audio; the cost of self-attention per second grows with the length
TOKENS_PER_SECOND = 15.0  # characters in a second of read English


@dataclass(frozen=True)
class Part:
    """A module with all modules inside it.

    `flops` counts one second of audio, or one token of a language model.
    """

    name: str
    kind: str
    parameters: int
    flops: float
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Cost:
    """A model's modules, and what was counted."""

    network: Part
    seconds: float | None  # of audio; None for a language model
    tokens: int | None  # that the decoder received; None without a decoder

    def to_json(self) -> str:
        """As a JSON object, with all modules."""
        return json.dumps(asdict(self), indent=1)


@torch.inference_mode()
def model_cost(
    bundle: Bundle[Any], seconds: float = SECONDS, tokens_per_second: float = TOKENS_PER_SECOND
) -> Cost:
    """Count the operations of one recording, or of a text for a language model, without its search.

    The decoder is counted with teacher forcing, or with one pass that fills masks: each token once. The
    extraction of features is not counted.
    """
    network, special = bundle.eval().network, bundle.special
    tokens = max(1, round(seconds * tokens_per_second))
    if bundle.features is None:
        ids = _some_tokens(tokens, special)
        return Cost(_count(network, lambda: network(ids), tokens), None, tokens)
    waveform = torch.zeros(1, max(1, round(seconds * bundle.config.features.sample_rate)))
    features, lengths = bundle.features(waveform, torch.tensor([waveform.size(1)]))

    if isinstance(network, LimitsPositions):
        tokens = min(tokens, network.max_positions)

    def recognize() -> None:
        memory = network.encode(features, lengths)
        if isinstance(network, HasCTC):
            network.ctc(memory)
        if isinstance(network, HasDecoder):
            network.decode(_some_tokens(tokens, special), memory)
        elif isinstance(network, FillsMasks):
            ids = _some_tokens(tokens, special)
            network.fill(ids, torch.ones_like(ids, dtype=torch.bool), torch.tensor([tokens]), memory)

    has_decoder = isinstance(network, HasDecoder | FillsMasks)
    return Cost(_count(network, recognize, seconds), seconds, tokens if has_decoder else None)


def table(cost: Cost, depth: int) -> Iterator[str]:
    """A table to read: a tree of modules down to `depth`. Equal neighbors share a line.

    Modules without parameters and operations are left out.
    """
    whole = cost.network
    unit = "second of audio" if cost.seconds is not None else "token"
    rows = [("module", "kind", "parameters", "share", f"MFLOP per {unit}", "share")]
    for level, part in _walk(whole, depth):
        rows.append(
            (
                "  " * level + part.name, part.kind, f"{part.parameters:,}",
                f"{part.parameters / (whole.parameters or 1):.1%}", f"{part.flops / 1e6:,.2f}",
                f"{part.flops / (whole.flops or 1):.1%}",
            )
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join(left + right).rstrip()
    yield ""
    yield "Counted: matrix products, convolutions and attention; a multiplication and its addition are two."
    yield "The figures of a module include those of the modules in it."
    if cost.seconds is None:
        yield f"They are those of a text of {cost.tokens} tokens, divided by the tokens."
        return
    yield f"They are those of {cost.seconds:g} s of audio, divided by the seconds. Features are not counted."
    if cost.tokens is not None:
        yield (
            f"The decoder reads {cost.tokens} tokens in that time, each once (--tokens-per-second). Its "
            "search is not counted."
        )


def _walk(part: Part, depth: int, level: int = 0) -> Iterator[tuple[int, Part]]:
    """A part and those in it, with their levels. Lists of modules have no line of their own."""
    yield level, part
    if level < depth:
        for inner in _merged(part):
            yield from _walk(inner, depth, level + 1)


def _merged(part: Part) -> list[Part]:
    """The parts of a part. Lists are replaced by their members, and equal neighbors become one part."""
    merged: list[Part] = []
    for inner in part.parts:
        if inner.kind == "ModuleList":
            merged += _equal_as_one(inner)
        else:
            merged.append(inner)
    return [each for each in merged if each.parameters or each.flops]


def _equal_as_one(modules: Part) -> list[Part]:
    """The members of a list; equal neighbors 2, 3, 4 become one part `name.2-4` with the sum of them."""
    groups: list[list[Part]] = []
    for member in modules.parts:
        if groups and _times(groups[-1][0], 1, "") == _times(member, 1, ""):
            groups[-1].append(member)
        else:
            groups.append([member])
    found = []
    for group in groups:
        first, last = group[0].name, group[-1].name
        numbers = first if first == last else f"{first}-{last}"
        found.append(_times(group[0], len(group), f"{modules.name}.{numbers}"))
    return found


def _times(part: Part, count: int, name: str) -> Part:
    """The sum of `count` equal parts."""
    inner = tuple(_times(each, count, each.name) for each in part.parts)
    return replace(part, name=name, parameters=count * part.parameters, flops=count * part.flops, parts=inner)


def _some_tokens(count: int, special: SpecialTokens) -> torch.Tensor:
    """The prompt and EOS until there are `count` tokens; which ones they are does not matter: (1, U)."""
    rest = max(0, count - len(special.prompt))
    return torch.tensor([[*special.prompt, *[special.eos] * rest]])


class _Ledger:
    """Assigns each operation to the module that computes it: the module that was entered last.

    torch's own count by module gives them to every module that runs, also to one that only calls another,
    such as a residual connection.
    """

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter = counter
        self.flops: Counter[str] = Counter()
        self._running = [""]
        self._counted = 0

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """The operations in this context are those of a module."""
        self._settle()
        self._running.append(path)
        try:
            yield
        finally:
            self._settle()
            self._running.pop()

    def _settle(self) -> None:
        total = self.counter.get_total_flops()
        self.flops[self._running[-1]] += total - self._counted
        self._counted = total


def _count(network: nn.Module, work: Callable[[], object], divisor: float) -> Part:
    """The tree of the network's modules with the operations that `work` does in each."""
    with flop_counter() as counter, ExitStack() as stack:
        ledger = _Ledger(counter)
        for path, module in network.named_modules():
            # Attentions are also called by other methods than `forward`.
            methods = ("project", "attend") if isinstance(module, MultiHeadAttention) else ()
            for name in ("forward", *methods):
                method = ledger.inside(path)(getattr(module, name))
                stack.enter_context(patch.object(module, name, method))
        work()

    def part(name: str, path: str, module: nn.Module) -> Part:
        parts = tuple(part(n, f"{path}.{n}" if path else n, each) for n, each in module.named_children())
        flops = ledger.flops[path] / divisor + sum(each.flops for each in parts)
        return Part(name, type(module).__name__, sum(p.numel() for p in module.parameters()), flops, parts)

    return part("network", "", network)
