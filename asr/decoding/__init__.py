"""Decoders: functions `(network, memory, options) -> list[Hypothesis]`. Nothing in here knows about audio."""

from asr.decoding.greedy import greedy
from asr.decoding.options import DecodingOptions, Hypothesis

__all__ = ["DecodingOptions", "Hypothesis", "greedy"]
