"""Another attempt for texts that repeat themselves or are improbable (Radford et al. 2022, section 4.5)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from asr.decoding.options import DecodingOptions, FinishReason, Hypothesis
from asr.model.interfaces import Memory

TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the further attempts
Attempt = Callable[[Memory, float], list[list[Hypothesis]]]
"""A decoder that is also given the temperature."""


def decode_with_fallback(
    attempt: Attempt,
    memory: Memory,
    text_of: Callable[[tuple[int, ...]], str],
    no_speech: list[float] | None,
    options: DecodingOptions,
) -> list[list[Hypothesis]]:
    """The hypotheses of every row of the memory, from the first attempt that passes, or else from the last.

    An attempt fails where the text repeats itself, where it can be compressed too well, or where its mean
    log-probability is too low. `no_speech` are the probabilities of silence: where they are above the
    threshold and the mean log-probability is too low, the result is an empty text. Only rows that failed are
    decoded again, at the next temperature. Without `fallback` there is one attempt.
    """
    found = attempt(memory, options.temperature or 0.0)
    rows = list(range(len(found)))
    for temperature in (None, *(TEMPERATURES if options.fallback else ())):
        if temperature is not None:
            part = memory.select(memory.lengths.new_tensor(rows))
            for row, hypotheses in zip(rows, attempt(part, temperature), strict=True):
                found[row] = hypotheses
        failed = []
        for row in rows:
            if no_speech is not None and _is_silence(found[row][0], no_speech[row], options):
                found[row] = [Hypothesis((), math.log(no_speech[row]))]
            elif _fails(found[row][0], text_of, options):
                failed.append(row)
        rows = failed
        if not rows:
            break
    if no_speech is None:
        return found
    return [
        [replace(each, no_speech=probability) for each in hypotheses]
        for hypotheses, probability in zip(found, no_speech, strict=True)
    ]


def _is_silence(hypothesis: Hypothesis, no_speech: float, options: DecodingOptions) -> bool:
    return no_speech > options.no_speech_limit and mean_log_prob(hypothesis) < options.lowest_log_prob


def _fails(
    hypothesis: Hypothesis, text_of: Callable[[tuple[int, ...]], str], options: DecodingOptions
) -> bool:
    return (
        hypothesis.finish_reason is FinishReason.repetition
        or compression_ratio(text_of(hypothesis.tokens)) > options.compression_limit
        or mean_log_prob(hypothesis) < options.lowest_log_prob
    )


def compression_ratio(text: str) -> float:
    """The length of the text divided by its compressed length. It is large for a text with repetitions."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def mean_log_prob(hypothesis: Hypothesis) -> float:
    """The mean log-probability of the tokens and EOS. As in Whisper, EOS counts as a token even if the text
    has none."""
    return hypothesis.log_prob / (len(hypothesis.tokens) + 1)


def renormalize(tokens: Tensor, log_probs: Tensor) -> Tensor:
    """A logit processor: log-probabilities (R, V) among the tokens that the rules allow.

    Thresholds are compared with these, as Whisper does.
    """
    return log_probs.log_softmax(1)
