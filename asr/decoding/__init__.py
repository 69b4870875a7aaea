"""Decoders: from a memory to hypotheses (`build_decoder`). Nothing in here knows about audio."""

from asr.decoding.beam import beam_search
from asr.decoding.build import Decoder, build_decoder
from asr.decoding.greedy import greedy
from asr.decoding.options import DecodingOptions, FinishReason, Hypothesis

__all__ = [
    "Decoder",
    "DecodingOptions",
    "FinishReason",
    "Hypothesis",
    "beam_search",
    "build_decoder",
    "greedy",
]
