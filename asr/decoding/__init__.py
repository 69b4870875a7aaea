"""Decoders: from the encoder's output to hypotheses (`build_decoder`). They know nothing about audio."""

from asr.decoding.beam import beam_search
from asr.decoding.build import Decoder, build_decoder
from asr.decoding.greedy import greedy
from asr.decoding.options import DecodingOptions, FinishReason, Hypothesis
from asr.decoding.processors import LogitProcessor

__all__ = [
    "Decoder",
    "DecodingOptions",
    "FinishReason",
    "Hypothesis",
    "LogitProcessor",
    "beam_search",
    "build_decoder",
    "greedy",
]
