"""What every kind of positions offers. A stack of blocks has one kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, SerializeAsAny
from torch import Tensor, nn

from asr.kinds import POSITIONS
from asr.section import Section, load_kind, of_kind

if TYPE_CHECKING:
    from asr.model.attention import MultiHeadAttention
    from asr.model.blocks import BlockSection

Relation = tuple[Tensor, ...]
"""What positions give to the attention of every block. Its form depends on the kind."""


class PositionsSection(Section):
    """Settings that every kind of positions has."""

    kind: str


def _named(value: Any) -> Any:
    """A name alone is a section: `positions: rotary` is `positions: {kind: rotary}`."""
    return {"kind": value} if isinstance(value, str) else value


PositionsField = Annotated[
    SerializeAsAny[PositionsSection], of_kind(POSITIONS, "sinusoidal"), BeforeValidator(_named)
]


class Positions(nn.Module):
    """The base of all kinds, and the kind `none`: states have no information about their order.

    Kinds that are added to the states replace `forward` and `at`. Kinds that act inside the attention replace
    `relation` or `attention`.
    """

    class Config(PositionsSection):
        """No positions. Self-attention alone then gives the same states for any order of its input."""

        kind: Literal["none"] = "none"

    max_length: int | None = None  # the most positions, where there is a limit
    # The self-attention that the kind needs in place of the plain one. Only encoders can have such kinds.
    attention: type[MultiHeadAttention] | None = None

    def __init__(self, settings: Any, stack: BlockSection) -> None:
        super().__init__()

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x (B, T, d_model), whose first position is `start` -> the same shape, with positions."""
        return x

    def at(self, x: Tensor, positions: Tensor, end: int) -> Tensor:
        """The same for states at given positions (B or 1, T), all below `end`. Without dropout."""
        return x

    def relation(self, positions: Tensor) -> Relation | None:
        """The values that the attention needs for states at positions (T,), or at each row's own positions
        (B, T)."""
        return None

    def relation_of(self, x: Tensor) -> Relation | None:
        """`relation` for all states of x (B, T, d_model), from position 0 on."""
        return self.relation(torch.arange(x.size(1), device=x.device))


def build_positions(stack: BlockSection) -> Positions:
    """The positions of a stack of blocks."""
    kind = load_kind(POSITIONS, stack.positions.kind)
    positions: Positions = kind(stack.positions, stack)
    return positions
