"""The encoder of "Listen, Attend and Spell": bidirectional LSTM layers that halve time on the way up."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import pad

from asr.masks import length_mask
from asr.model.blocks import Dropout
from asr.model.interfaces import Memory
from asr.section import Fraction, PartSection, Positive


class PyramidalLSTMEncoder(nn.Module):
    """The states of a front end to encoder states (Chan et al. 2016, section 3.1).

    Each layer is a bidirectional LSTM with d_model / 2 cells in each direction. Before the layers in
    `halve_before`, each two neighboring states are joined into one, so the layer has half as many states.
    The listener of the paper has no front end and halves time before its second, third and fourth layer.
    Here the usual front end divides time by four first, so one halving gives the same rate.
    """

    class Config(PartSection):
        """Settings of a pyramidal LSTM encoder."""

        kind: Literal["pyramidal_lstm"] = "pyramidal_lstm"
        n_layers: Positive = Field(3, description="bidirectional layers")
        halve_before: tuple[Positive, ...] = Field(
            (2,), description="layers, counted from 1, before which two neighboring states become one"
        )
        dropout: Fraction = Field(0.1, description="share of each layer's input that is set to 0 in training")

        @model_validator(mode="after")
        def _layers_exist(self) -> PyramidalLSTMEncoder.Config:
            if self.d_model % 2:
                raise ValueError(f"d_model {self.d_model} is odd; each direction has half of it")
            for layer in self.halve_before:
                if layer > self.n_layers:
                    raise ValueError(
                        f"halve_before has layer {layer}, but n_layers is "
                        f"{self.n_layers}; name a layer that exists"
                    )
            if len(set(self.halve_before)) < len(self.halve_before):
                raise ValueError(
                    f"halve_before {self.halve_before} names a layer twice; name each layer once"
                )
            return self

    def __init__(self, config: PyramidalLSTMEncoder.Config) -> None:
        super().__init__()
        d_model = config.d_model
        self.halves = [layer in config.halve_before for layer in range(1, config.n_layers + 1)]
        self.stride = 2 ** sum(self.halves)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            BidirectionalLSTM(d_model * (1 + halves), d_model // 2) for halves in self.halves
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Memory:
        """x (B, S, d_model), lengths (B,) in states -> memory with S / 2^halvings states, rounded up.

        States after a row's end are zero.
        """
        for layer, halves in zip(self.layers, self.halves, strict=True):
            if halves:
                x, lengths = join_pairs(x, lengths)
            x = layer(self.dropout(x), lengths)
        return Memory(x, lengths)


class BidirectionalLSTM(nn.Module):
    """One LSTM for each direction, for rows of different lengths.

    The backward LSTM reads each row in reverse order from the row's own end, so no padding comes before its
    first state. On a CPU this takes a fifth of the training time of torch's packed sequences, for which
    torch has no fused kernel.
    """

    def __init__(self, d_in: int, cells: int) -> None:
        super().__init__()
        self.from_start = nn.LSTM(d_in, cells, batch_first=True)
        self.from_end = nn.LSTM(d_in, cells, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, S, d_in), lengths (B,) -> (B, S, 2 * cells), zero after a row's end."""
        size = x.size(1)
        places = torch.arange(size, device=x.device).expand(len(x), -1)  # (B, S)
        ends = lengths.unsqueeze(1)
        # Its own inverse: valid states are reversed, and the padding stays where it is.
        order = torch.where(places < ends, ends - 1 - places, places)
        backward, _ = self.from_end(_in_order(x, order))
        both = torch.cat((self.from_start(x)[0], _in_order(backward, order)), dim=2)
        return both * length_mask(lengths, size).unsqueeze(2)


def _in_order(x: Tensor, order: Tensor) -> Tensor:
    """The states of x (B, S, d) in the order (B, S)."""
    return x.gather(1, order.unsqueeze(2).expand(-1, -1, x.size(2)))


def join_pairs(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Neighboring states side by side: x (B, S, d), lengths (B,) -> (B, ceil(S / 2), 2 * d), lengths.

    The last state of an odd row is joined with zeros.
    """
    x = x * length_mask(lengths, x.size(1)).unsqueeze(2)
    x = pad(x, (0, 0, 0, x.size(1) % 2)).unflatten(1, (-1, 2)).flatten(2)
    return x, (lengths + 1) // 2
