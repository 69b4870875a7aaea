"""The operations that models offer. Trainer, decoders and aligner use nothing else.

Every model offers `encode`. The other operations exist only in models that can do them. Code that needs one
asks with `isinstance(network, HasCTC)` and refuses a model without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, runtime_checkable

from torch import Tensor

# Names of results in `Memory.intermediate`.
PHONEMES = "phonemes"  # logits of an encoder's phoneme head
PHONEME_STATES = "phoneme states"  # errors of the states that are predicted from phonemes


@dataclass(frozen=True)
class Memory:
    """The encoder's output for a batch: states (B, S, d_model) and lengths (B,), in states.

    `intermediate` has the outputs of auxiliary heads inside the encoder, by name: logits (B, S', V') and
    lengths (B,). Training and inspection use them. `draft` is the memory of another model for the
    same audio, which writes drafts.
    """

    states: Tensor
    lengths: Tensor
    intermediate: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    draft: Memory | None = None

    def select(self, rows: Tensor) -> Memory:
        """The memory of the given rows (indices), without intermediate outputs."""
        draft = None if self.draft is None else self.draft.select(rows)
        states, lengths = self.states.index_select(0, rows), self.lengths.index_select(0, rows)
        return Memory(states, lengths, draft=draft)

    def with_intermediate(self, outputs: dict[str, tuple[Tensor, Tensor]]) -> Memory:
        """The memory with more intermediate outputs."""
        return replace(self, intermediate=self.intermediate | outputs)


class State(Protocol):
    """The caches of a decoder after a number of steps.

    There are as many rows as the memory had utterances, or, after `reorder`, W hypotheses for each of them.
    """

    def select(self, rows: Tensor) -> Self:
        """The state of the given utterances (indices): reordered, repeated or dropped."""
        ...

    def reorder(self, parents: Tensor) -> Self:
        """The state in which each utterance's hypotheses continue others: parents (B, W) -> B * W rows.

        `parents` are indices among the utterance's present hypotheses. The present state must not be used
        after this call.
        """
        ...


class Network(Protocol):
    """What every model offers."""

    @property
    def frames_per_state(self) -> float:
        """The frames from one state of the memory to the next, a fraction if frequencies are cut too."""
        ...

    def encode(self, features: Tensor, lengths: Tensor) -> Memory:
        """features (B, T, F), lengths (B,) in frames -> memory."""
        ...


@runtime_checkable
class HasDecoder(Protocol):
    """A model with a decoder that predicts the next token. CTC models have none."""

    def encode(self, features: Tensor, lengths: Tensor) -> Memory:
        """As in `Network`."""
        ...

    def decode(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Teacher forcing: tokens (B, U), from the prompt on -> logits (B, U, V), all positions at once."""
        ...

    def start(self, memory: Memory, capacity: int) -> State:
        """A state with caches for `capacity` positions. What depends on the memory alone is computed once."""
        ...

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """One position for every row: tokens (B,) -> log-probabilities (B, V).

        `state` comes from this network's `start`. It is updated.
        """
        ...


@runtime_checkable
class ReadsPhonemes(Network, Protocol):
    """A model whose encoder can start from phonemes in place of audio, for training on text."""

    def encode_phonemes(self, probabilities: Tensor, lengths: Tensor) -> Memory:
        """probabilities (B, S, P) of phonemes, the blank first, lengths (B,) -> memory of S states."""
        ...


@runtime_checkable
class CachedForward(Protocol):
    """A decoder that scores many positions at once from its caches. Drafts and rescoring need it."""

    def forward_cached(self, tokens: Tensor, state: Any, starts: Tensor) -> Tensor:
        """tokens (B, U), the first of each row at position starts (B,) -> log-probabilities (B, U, V) of the
        token that follows each.

        The state must hold the earlier positions. Entries from there on are overwritten, so each row can
        advance by its own number of tokens and go back. Use either `step` or `forward_cached` on one state.
        """
        ...


@runtime_checkable
class ReadsOwnPredictions(Protocol):
    """A model whose decoder can read its own predictions in training, because it goes step by step."""

    def decode_sampled(self, tokens: Tensor, memory: Memory, sampled: Tensor) -> Tensor:
        """As `decode`. Where sampled (B, U) is true, a token drawn from the prediction for this position
        takes the place of the given one. The first position must not be sampled.
        """
        ...


@runtime_checkable
class FillsMasks(Protocol):
    """A model whose decoder fills all masked positions of a text in parallel. It has no `step`."""

    def fill(self, tokens: Tensor, masked: Tensor, lengths: Tensor, memory: Memory) -> Tensor:
        """tokens (B, U), masked (B, U) bool, lengths (B,) -> logits (B, U, V) of the token at each position.

        A masked position does not see its token. The tokens have neither prompt nor EOS.
        """
        ...


@runtime_checkable
class HasCTC(Protocol):
    """A model with a CTC head on its encoder (Graves et al. 2006)."""

    def ctc(self, memory: Memory) -> Tensor:
        """Log-probabilities (B, S, V), float32. The tokenizer says which id is the blank."""
        ...


@runtime_checkable
class ShowsAttention(Protocol):
    """A model that can return the weights of its cross-attention."""

    def cross_attention(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Teacher forcing: tokens (B, U), from the prompt on -> weights (B, n_layers, n_heads, U, S).

        Rows sum to one over the valid states. States after an utterance's end get zero.
        """
        ...


@runtime_checkable
class HasAlignmentHeads(Protocol):
    """A model with heads of the cross-attention that follow time. The times of tokens come from them."""

    def alignment(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Teacher forcing: tokens (B, U), from the prompt on -> logits (B, U, V), and the weights of N heads
        (B, N, U, S), float32.
        """
        ...


@runtime_checkable
class ShowsSelfAttention(Protocol):
    """A model that can return the weights of its encoder's self-attention."""

    def self_attention(self, features: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """features (B, T, F), lengths (B,) in frames -> weights (B, n_heads, S', S') of each layer, by name.

        Layers are in the order in which they work, and may have fewer states than the memory. They are the
        weights of the forward pass: rows sum to one over the valid states.
        """
        ...


@runtime_checkable
class PredictsLength(Protocol):
    """A model that predicts the number of tokens, for decoders that fill all positions in parallel."""

    def predict_lengths(self, memory: Memory) -> Tensor:
        """Log-probabilities (B, N) of 0 to N - 1 tokens."""
        ...


@runtime_checkable
class LimitsPositions(Protocol):
    """A decoder that has a fixed number of positions, such as one with learned positions."""

    @property
    def max_positions(self) -> int:
        """The most positions that a text can have, prompt included."""
        ...
