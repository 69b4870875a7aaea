"""The LSTM decoder: attention over the encoder's states at every step, or none at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from asr.masks import length_mask
from asr.model.blocks import Dropout
from asr.model.drawing import draw_tokens
from asr.model.interfaces import Memory
from asr.model.kernels import Linear
from asr.section import Fraction, PartSection, Positive


@dataclass
class LSTMState:
    """The state after a number of steps, of W hypotheses for each of B utterances (1 until `reorder`).

    `hidden`, `cell` (n_layers, B * W, d_model) are those of the LSTM layers, and `context` (B * W, d_model)
    is the last weighted sum of the attention. `keys`, `values` (B, S, d_model) and `mask` (B, S) belong to
    the utterance; without attention they have no states.
    """

    hidden: Tensor
    cell: Tensor
    context: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor

    def select(self, rows: Tensor) -> LSTMState:
        """The state of the given utterances (indices, in any order, repeated or left out)."""
        width = len(self.context) // len(self.mask)
        each = (rows.unsqueeze(1) * width + torch.arange(width, device=rows.device)).flatten()
        keys, values, mask = (part.index_select(0, rows) for part in (self.keys, self.values, self.mask))
        return replace(self._hypotheses(each), keys=keys, values=values, mask=mask)

    def reorder(self, parents: Tensor) -> LSTMState:
        """The state in which each utterance's hypotheses continue the given ones: parents (B, W)."""
        width = len(self.context) // len(self.mask)
        first = width * torch.arange(len(parents), device=parents.device).unsqueeze(1)
        return self._hypotheses((parents + first).flatten())

    def _hypotheses(self, rows: Tensor) -> LSTMState:
        """The state with these rows of the present hypotheses."""
        hidden, cell = self.hidden.index_select(1, rows), self.cell.index_select(1, rows)
        return replace(self, hidden=hidden, cell=cell, context=self.context.index_select(0, rows))


class AdditiveScore(nn.Module):
    """A small network scores each encoder state against the decoder's state: v . tanh(W q + U k).

    Bahdanau et al. 2015, section 3.1 and appendix A.1.2. The bias is that of U.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = Linear(d_model, d_model)
        self.vector = nn.Linear(d_model, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """query (B, W, d_model), keys (B, S, d_model), which `key` computed -> scores (B, W, S)."""
        hidden = (self.query(query).unsqueeze(2) + keys.unsqueeze(1)).tanh()  # (B, W, S, d_model)
        return self.vector(hidden).squeeze(3)


class DotProductScore(nn.Module):
    """Scaled dot product of the projected decoder state and encoder states: W q . U k / sqrt(d_model).

    Chan et al. 2016, equation 9, with the scale of Vaswani et al. 2017.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = Linear(d_model, d_model)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """query (B, W, d_model), keys (B, S, d_model), which `key` computed -> scores (B, W, S)."""
        return self.query(query) @ keys.transpose(1, 2) / math.sqrt(keys.size(2))


SCORES: dict[str, Callable[[int], AdditiveScore | DotProductScore]] = {
    "additive": AdditiveScore,
    "dot_product": DotProductScore,
}


class LSTMDecoder(nn.Module):
    """Tokens and encoder states to logits of the next token, by LSTM layers (Chan et al. 2016, section 3.2).

    At each step the layers read the last token and the last context. Their output queries the attention,
    whose weighted sum of encoder states is the new context. Output and context together predict the token.

    With `attention: none` it is the encoder-decoder of Sutskever et al. 2014. The context is one vector for
    the whole recording: the last forward state and the first backward state of the encoder. Attention was
    introduced to remove this bottleneck.
    """

    class Config(PartSection):
        """Settings of an LSTM decoder."""

        kind: Literal["lstm"] = "lstm"
        n_layers: Positive = Field(1, description="LSTM layers")
        attention: Literal["additive", "dot_product", "none"] = Field(
            "additive", description="how encoder states are scored; none: one context vector for all steps"
        )
        dropout: Fraction = Field(0.1, description="share of the values that are set to 0 in training")

    def __init__(self, config: LSTMDecoder.Config, vocabulary_size: int) -> None:
        super().__init__()
        d_model, self.n_layers = config.d_model, config.n_layers
        self.embed = nn.Embedding(vocabulary_size, d_model)
        self.cells = nn.ModuleList(
            nn.LSTMCell(d_model * (2 if layer == 0 else 1), d_model) for layer in range(config.n_layers)
        )
        self.score = None if config.attention == "none" else SCORES[config.attention](d_model)
        self.combine = Linear(2 * d_model, d_model)
        self.out = nn.Linear(d_model, vocabulary_size)
        self.dropout = Dropout(config.dropout)
        if self.score is not None:  # the interface ShowsAttention
            self.cross_attention = self._cross_attention

    def forward(self, tokens: Tensor, memory: Memory) -> Tensor:
        """tokens (B, U), each row from the prompt on -> logits (B, U, V) of the token that follows each."""
        return self.decode_sampled(tokens, memory, torch.zeros_like(tokens, dtype=torch.bool))

    def decode_sampled(self, tokens: Tensor, memory: Memory, sampled: Tensor) -> Tensor:
        """As `forward`. Where sampled (B, U) is true, a token drawn from the prediction is read instead."""
        state = self.start(memory, tokens.size(1))
        outputs: list[Tensor] = []
        for token, replaced in zip(tokens.unbind(1), sampled.unbind(1), strict=True):
            if replaced.any():
                own = draw_tokens(self._predict(outputs[-1].detach()))
                token = torch.where(replaced, own, token)
            outputs.append(self._advance(token, state)[0])
        return self._predict(torch.stack(outputs, dim=1))

    def start(self, memory: Memory, capacity: int) -> LSTMState:
        """The state before the first token. It has the same size for every capacity."""
        states, rows = memory.states, len(memory.lengths)
        zeros = states.new_zeros(self.n_layers, rows, states.size(2))
        mask = length_mask(memory.lengths, states.size(1))
        if self.score is None:
            nothing = states[:, :0]
            return LSTMState(zeros, zeros, _final_state(memory), nothing, nothing, mask[:, :0])
        return LSTMState(zeros, zeros, zeros[0], self.score.key(states), states, mask)

    def step(self, tokens: Tensor, state: LSTMState) -> Tensor:
        """tokens (B * W,) -> logits (B * W, V). The state moves on by one position."""
        return self._predict(self._advance(tokens, state)[0])

    def _cross_attention(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Weights of the attention under teacher forcing (B, 1, 1, U, S), float32: one layer, one head."""
        state = self.start(memory, tokens.size(1))
        weights = [self._advance(token, state)[1] for token in tokens.unbind(1)]
        return torch.stack(weights, dim=1)[:, None, None].float()

    def _advance(self, tokens: Tensor, state: LSTMState) -> tuple[Tensor, Tensor]:
        """One position of tokens (R,): output and context (R, 2 * d_model), attention weights (R, S).

        Updates the state.
        """
        x = torch.cat((self.dropout(self.embed(tokens)), state.context), dim=1)  # (R, 2 * d_model)
        hidden, cells = [], []
        for layer, cell in enumerate(self.cells):
            x, memory_cell = cell(x, (state.hidden[layer], state.cell[layer]))
            hidden.append(x)
            cells.append(memory_cell)
            x = self.dropout(x)
        state.hidden, state.cell = torch.stack(hidden), torch.stack(cells)
        weights = x.new_zeros(len(x), 0)
        if self.score is not None:
            query = x.unflatten(0, (len(state.mask), -1))  # (B, W, d_model)
            scores = self.score(query, state.keys).float().masked_fill(~state.mask.unsqueeze(1), -math.inf)
            attention = scores.softmax(-1)  # (B, W, S)
            state.context = (attention.to(state.values.dtype) @ state.values).flatten(0, 1)
            weights = attention.flatten(0, 1)
        return torch.cat((x, state.context), dim=1), weights

    def _predict(self, output: Tensor) -> Tensor:
        """The output and context (..., 2 * d_model) of positions -> logits (..., V)."""
        return self.out(self.combine(output).tanh())


def _final_state(memory: Memory) -> Tensor:
    """The encoder's final state (B, d_model): first half of the last state, second half of the first state.

    In a bidirectional encoder these are the states in which each direction has read the whole recording.
    """
    states, half = memory.states, memory.states.size(2) // 2
    last = states[torch.arange(len(states), device=states.device), memory.lengths - 1]
    return torch.cat((last[:, :half], states[:, 0, half:]), dim=1)
