"""What every model offers, whatever it is made of. Trainer, decoders and aligner use nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """What the encoder makes of a batch: states (B, S, d_model) and lengths (B,), in states."""

    states: Tensor
    lengths: Tensor

    def select(self, rows: Tensor) -> Memory:
        """The memory of the given rows (indices)."""
        return Memory(self.states.index_select(0, rows), self.lengths.index_select(0, rows))


class State(Protocol):
    """Where a decoder stands after a number of steps: the caches of every row.

    There are as many rows as the memory had utterances, or, after `reorder`, W hypotheses for each of them.
    """

    def select(self, rows: Tensor) -> Self:
        """The state of the given utterances (indices): reordered, repeated or dropped."""
        ...

    def reorder(self, parents: Tensor) -> Self:
        """Each utterance's hypotheses continue the given ones: parents (B, W) -> a state of B * W rows.

        `parents` are places among the utterance's present hypotheses. The present state is used up.
        """
        ...


class Network(Protocol):
    """The operations of a model."""

    def encode(self, features: Tensor, lengths: Tensor) -> Memory:
        """features (B, T, n_mels), lengths (B,) in frames -> memory."""
        ...

    def decode(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Teacher forcing: tokens (B, U) from BOS on -> logits (B, U, V), all positions at once."""
        ...

    def start(self, memory: Memory, capacity: int) -> State:
        """A state with caches for `capacity` positions; what depends on the memory alone is computed once."""
        ...

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """One position for every row: tokens (B,) -> log-probabilities (B, V).

        `state` is one that this network's `start` made; it is updated.
        """
        ...

    def forward_cached(self, tokens: Tensor, state: Any, starts: Tensor) -> Tensor:
        """Many positions for every row: tokens (B, U), whose first is at position starts (B,) of its row,
        -> log-probabilities (B, U, V) of the token that follows each.

        The state must hold the positions before; what it held from there on is overwritten. So each row goes
        at its own pace, and takes back what it said. A state is either stepped or extended.
        """
        ...

    def ctc(self, memory: Memory) -> Tensor | None:
        """Log-probabilities (B, S, V) with the blank at PAD's place, or None without a CTC head."""
        ...


@runtime_checkable
class ShowsAttention(Protocol):
    """What a model may offer besides: to show where it listens. Asked for with `isinstance`."""

    def cross_attention(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Teacher forcing: tokens (B, U) from BOS on -> weights (B, n_layers, n_heads, U, S).

        Rows sum to one over the valid states; those beyond an utterance's end get zero.
        """
        ...
