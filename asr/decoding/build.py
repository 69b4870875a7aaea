"""From options to a decoder: what can be refused is refused here, before any work starts."""

from __future__ import annotations

from collections.abc import Callable

from asr.decoding.beam import beam_search
from asr.decoding.ctc import ctc_decode
from asr.decoding.greedy import greedy
from asr.decoding.hot_words import HotWords
from asr.decoding.language_model import LanguageModelFactory
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.decoding.rescoring import rescore
from asr.decoding.scorers import ScorerFactory
from asr.errors import AsrError
from asr.model.interfaces import HasCTC, Memory
from asr.model_folder import Bundle

Decoder = Callable[[Memory], list[list[Hypothesis]]]
"""Hypotheses of every row of a memory, best first: as many as `n_best` asks for, where there are as many."""


def build_decoder(bundle: Bundle, options: DecodingOptions) -> Decoder:
    """The decoder that the options describe, for one model.

    Raises AsrError for what the model cannot do: CTC without a CTC head, characters that it does not know.
    """
    network, has_ctc = bundle.network, isinstance(bundle.network, HasCTC)
    weight = options.weight_of_ctc(has_ctc)
    if options.decoder in ("ctc", "rescoring") and not has_ctc:
        raise AsrError(f"decoder {options.decoder}: this model has no CTC head; decode with greedy or beam")
    if options.draft and not has_ctc:
        raise AsrError("draft: this model has no CTC head that could write one; leave the option out")
    if options.candidates is not None and not (weight or options.hot_words or options.language_model):
        raise AsrError("candidates: there is only the decoder to score them; leave the option out")
    factories = _sources(bundle, options)

    if options.decoder == "greedy":
        return lambda memory: [[found] for found in greedy(network, memory, options)]
    if options.decoder == "beam":
        return lambda memory: beam_search(network, memory, options, factories)
    if options.decoder == "rescoring":
        return lambda memory: rescore(network, memory, options, factories)
    return lambda memory: ctc_decode(network, memory, options)


def _sources(bundle: Bundle, options: DecodingOptions) -> list[ScorerFactory]:
    """What scores texts beside decoder and CTC."""
    factories: list[ScorerFactory] = []
    if options.hot_words:
        factories.append(
            HotWords(options.hot_words, bundle.tokenizer, options.hot_word_weight, bundle.device)
        )
    if options.language_model:
        weight, device = options.weight_of_language_model, str(bundle.device)
        factories.append(LanguageModelFactory.load(options.language_model, bundle.tokenizer, weight, device))
    return factories
