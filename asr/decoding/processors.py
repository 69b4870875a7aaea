"""Logit processors change the decoder's log-probabilities before a token is chosen.

They forbid tokens or follow a grammar, such as that of timestamps. The suppression of special tokens is a
logit processor too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from asr.tokenizers.special import SpecialTokens


class LogitProcessor(Protocol):
    """A function of the tokens so far and of the log-probabilities of the next token."""

    def __call__(self, tokens: Tensor, log_probs: Tensor) -> Tensor:
        """tokens (R, U) with the prompt, log_probs (R, V) of the next token -> log-probabilities (R, V).

        A forbidden token gets minus infinity. The result must not exceed 0, which beam search relies on.
        `log_probs` may be changed in place, `tokens` must not be.
        Rows must be processed independently: decoders choose which rows they process together.
        """
        ...


class LogitProcessors:
    """Suppression of special tokens, followed by other processors in their order."""

    def __init__(
        self, special: SpecialTokens, others: Sequence[LogitProcessor], device: torch.device
    ) -> None:
        self._suppressed = torch.tensor(special.suppressed, dtype=torch.long, device=device)
        self._others = tuple(others)

    def __call__(self, tokens: Tensor, log_probs: Tensor) -> Tensor:
        """One position: tokens (R, U) with the prompt, log_probs (R, V) -> (R, V)."""
        log_probs = log_probs.index_fill_(-1, self._suppressed, -torch.inf)
        for processor in self._others:
            log_probs = processor(tokens, log_probs)
        return log_probs

    def at_positions(self, tokens: Tensor, sizes: Tensor, log_probs: Tensor) -> Tensor:
        """Many positions of each row, each with its own prefix: log_probs (R, U, V) -> the same shape.

        `log_probs[r, u]` predicts the token that follows the first sizes[r] + u of tokens (R, L); sizes (R,).
        """
        log_probs = log_probs.index_fill_(-1, self._suppressed, -torch.inf)
        if not self._others:
            return log_probs
        prefix_sizes = sizes.unsqueeze(1) + torch.arange(log_probs.size(1), device=sizes.device)  # (R, U)
        for size in prefix_sizes.unique().tolist():  # a processor takes rows of equal length only
            rows, positions = (prefix_sizes == size).nonzero(as_tuple=True)
            selected = log_probs[rows, positions]
            for processor in self._others:
                selected = processor(tokens[rows, :size], selected)
            log_probs[rows, positions] = selected
        return log_probs


class SuppressAtBegin:
    """Forbids tokens as the first one of a text, as Whisper does with EOS and a space."""

    def __init__(self, tokens: Sequence[int], prompt_size: int, device: torch.device) -> None:
        self._tokens = torch.tensor(tokens, dtype=torch.long, device=device)
        self._prompt_size = prompt_size

    def __call__(self, tokens: Tensor, log_probs: Tensor) -> Tensor:
        """As in `LogitProcessor`."""
        if tokens.size(1) == self._prompt_size:
            return log_probs.index_fill_(-1, self._tokens, -torch.inf)
        return log_probs
