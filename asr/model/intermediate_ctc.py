"""Intermediate CTC: the CTC head also reads the states between blocks of the encoder."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field, field_validator
from torch import Tensor, nn

from asr.model.kernels import Linear
from asr.section import Positive, Section

AfterBlock = Callable[[Tensor, int], Tensor]
"""Called by an encoder with the states (B, S, d_model) after a block and the block's number, counted from 1.
The states that it returns go on. Blocks at a lower rate of states are not counted."""


class IntermediateCTCSection(Section):
    """CTC losses on states inside the encoder (Lee and Watanabe 2021), self-conditioned by option."""

    layers: tuple[Positive, ...] = Field(
        min_length=1, description="encoder blocks after which the CTC head also predicts, counted from 1"
    )
    self_conditioned: bool = Field(
        True, description="the predictions are added to the states, so that later blocks can use them"
    )
    weight: float = Field(
        0.5, gt=0, description="factor of the mean of these losses, which is added to the others"
    )

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(layers)) < len(layers):
            raise ValueError(f"layers {list(layers)} names one twice")
        return layers


class IntermediateCTC(nn.Module):
    """The norm before the CTC head, and the way back from its probabilities to the states.

    The head itself is the model's, and all layers share these weights (Nozaki and Komatsu 2021).
    """

    def __init__(self, config: IntermediateCTCSection, d_model: int, vocabulary_size: int) -> None:
        super().__init__()
        self.layers = config.layers
        self.norm = nn.LayerNorm(d_model)
        self.condition = Linear(vocabulary_size, d_model) if config.self_conditioned else None

    def after_block(self, head: nn.Module, logits: dict[str, Tensor]) -> AfterBlock:
        """A function for the encoder that writes the logits (B, S, V) of each layer to `logits`, by name."""

        def after_block(x: Tensor, number: int) -> Tensor:
            if number not in self.layers:
                return x
            found = logits[f"ctc {number}"] = head(self.norm(x))  # (B, S, V)
            return x if self.condition is None else x + self.condition(found.softmax(-1))

        return after_block
