"""From options to a decoder: what can be refused is refused here, before any work starts."""

from __future__ import annotations

from collections.abc import Callable

from asr.decoding.greedy import greedy
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.decoding.scorers import Source
from asr.errors import AsrError
from asr.model.seams import Memory, Network
from asr.tokenizer import Tokenizer

Decoder = Callable[[Memory], list[list[Hypothesis]]]
"""Hypotheses of every row of a memory, best first: as many as `n_best` asks for, where there are as many."""


def build_decoder(network: Network, tokenizer: Tokenizer, options: DecodingOptions, has_ctc: bool) -> Decoder:
    """The decoder that the options describe, for one network.

    Raises AsrError for what the model cannot do: CTC without a CTC head, characters that it does not know.
    """
    options.weight_of_ctc(has_ctc)
    if options.decoder in ("ctc", "rescoring") and not has_ctc:
        raise AsrError(f"decoder {options.decoder}: this model has no CTC head; decode with greedy or beam")
    sources: list[Source] = []  # noqa: F841  hot words, language model
    if options.decoder == "greedy":
        return lambda memory: [[found] for found in greedy(network, memory, options)]
    raise AsrError(f"decoder {options.decoder}: not built yet")
