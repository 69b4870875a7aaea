"""The grammar of timestamps, and the parts of a text with their times (Radford et al. 2022, section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from asr.tokenizers.special import PromptTokens


class TimestampGrammar:
    """A logit processor that keeps timestamps in order.

    A text begins with a timestamp, not later than `last_initial_timestamp`. After a timestamp that ends a
    part comes the one that begins the next part, or EOS; after one that begins a part comes text. Times never
    decrease, and the end of a part is after its begin. Where all timestamps together are more probable than
    any other token, the next token is a timestamp.
    """

    def __init__(self, prompts: PromptTokens, eos: int, prompt_size: int) -> None:
        assert prompts.first_timestamp is not None, "a model without timestamps has no grammar of them"
        self._first, self._eos, self._prompt_size = prompts.first_timestamp, eos, prompt_size
        self._no_timestamps, self._last_initial = prompts.no_timestamps, prompts.last_initial_timestamp

    def __call__(self, tokens: Tensor, log_probs: Tensor) -> Tensor:
        """As in `LogitProcessor`."""
        first = self._first
        if self._no_timestamps is not None:
            log_probs[:, self._no_timestamps] = -torch.inf
        if tokens.size(1) == self._prompt_size:
            log_probs[:, :first] = -torch.inf
            if self._last_initial is not None:
                log_probs[:, first + self._last_initial + 1 :] = -torch.inf
            return log_probs
        text = tokens[:, self._prompt_size :]
        is_time = text >= first  # (R, U)
        last = is_time[:, -1:]  # (R, 1) whether the last token is a timestamp
        begins = last & (is_time[:, -2:-1] if is_time.size(1) > 1 else last)  # it begins a part
        ends = last & ~begins
        order = torch.arange(text.size(1), device=text.device)
        latest = text.gather(1, (order * is_time).argmax(1, keepdim=True))  # (R, 1) of all timestamps
        earliest = torch.where(is_time.any(1, keepdim=True), latest + ~ends, first)  # a part has a duration
        ids = torch.arange(log_probs.size(1), device=log_probs.device)
        forbidden = (ids >= first) & ((ids < earliest) | begins)
        forbidden |= (ids < self._eos) & ends
        log_probs = log_probs.masked_fill(forbidden, -torch.inf)
        times, others = log_probs[:, first:].logsumexp(1), log_probs[:, :first].amax(1)
        log_probs[:, :first] = log_probs[:, :first].masked_fill((times > others).unsqueeze(1), -torch.inf)
        return log_probs


@dataclass(frozen=True)
class TimedPart:
    """A part of a token sequence: the tokens from `first` up to, not including, `last`.

    Times are in seconds from the beginning of the audio. Without an end the part lasts until the audio ends.
    """

    first: int
    last: int
    start: float
    end: float | None


def timed_parts(tokens: Sequence[int], prompts: PromptTokens) -> list[TimedPart]:
    """The parts between the timestamps of a text. Without timestamps it is one part."""
    if prompts.first_timestamp is None:
        return [TimedPart(0, len(tokens), 0.0, None)] if tokens else []
    marks = [-1, *(i for i, token in enumerate(tokens) if token >= prompts.first_timestamp), len(tokens)]

    def seconds(mark: int) -> float | None:
        if not 0 <= mark < len(tokens):
            return None
        return round((tokens[mark] - prompts.first_timestamp) * prompts.timestamp_seconds, 3)  # type: ignore[operator]

    return [
        TimedPart(first + 1, last, seconds(first) or 0.0, seconds(last))
        for first, last in pairwise(marks)
        if last > first + 1
    ]
