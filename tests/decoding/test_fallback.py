"""Which attempts are repeated at a higher temperature, and what silence gives."""

import math

import torch

from asr.decoding import DecodingOptions, Hypothesis
from asr.decoding.fallback import decode_with_fallback
from asr.model.interfaces import Memory


def test_silence_is_not_decoded_again():
    """The probability of silence is below the lowest mean log-probability, which is of texts."""
    attempts = []

    def attempt(memory, temperature):
        attempts.append((temperature, len(memory.lengths)))
        log_prob = -0.5 if temperature else -20.0
        return [[Hypothesis((5, 6, 7), log_prob, temperature=temperature)] for _ in memory.lengths]

    memory = Memory(torch.zeros(2, 4, 2), torch.tensor([4, 4]))
    options = DecodingOptions(fallback=True, no_speech_threshold=0.2)
    silence, text = decode_with_fallback(attempt, memory, lambda tokens: "abc", [0.3, 0.1], options)
    assert silence == [Hypothesis((), math.log(0.3), no_speech=0.3)]
    assert text == [Hypothesis((5, 6, 7), -0.5, no_speech=0.1, temperature=0.2)]
    assert attempts == [(0.0, 2), (0.2, 1)]
