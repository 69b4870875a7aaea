"""From options to a decoder. Options that do not apply to the model are refused here, before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asr.decoding.beam import beam_search
from asr.decoding.ctc import ctc_decode
from asr.decoding.greedy import greedy
from asr.decoding.hot_words import HotWords
from asr.decoding.language import with_prompt_of_options
from asr.decoding.language_model import LanguageModelFactory
from asr.decoding.mask_predict import mask_predict
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.decoding.processors import LogitProcessor, SuppressAtBegin
from asr.decoding.rescoring import rescore
from asr.decoding.scorers import ScorerFactory
from asr.decoding.words import WORD_MODEL_WEIGHT, WordModel
from asr.errors import AsrError
from asr.model.interfaces import CachedForward, FillsMasks, HasCTC, HasDecoder, Memory
from asr.model_folder import Bundle
from asr.tokenizers.interface import HasPromptTokens
from asr.tokenizers.special import SpecialTokens

Decoder = Callable[[Memory], list[list[Hypothesis]]]
"""From a memory to the hypotheses of every row, best first: `n_best` of them, or fewer if fewer are found."""


def build_decoder(
    bundle: Bundle[Any], options: DecodingOptions, processors: Sequence[LogitProcessor] = ()
) -> Decoder:
    """The decoder that the options describe, for one model.

    Without a named decoder it is `default_decoder`. `processors` change the decoder's log-probabilities in
    greedy decoding and beam search. Raises AsrError for options that do not apply to the model and for
    characters that it does not know.
    """
    network, special = bundle.network, bundle.special
    options = options.with_decoder(default_decoder(network))
    _check_model(network, options)
    factories = _scorer_factories(bundle, options)
    if processors and options.decoder not in ("greedy", "beam"):
        raise AsrError(f"decoder {options.decoder}: logit processors do not apply; use greedy or beam")
    if options.decoder in ("greedy", "beam"):
        function = greedy if options.decoder == "greedy" else beam_search

        def search(special: SpecialTokens, memory: Memory) -> list[list[Hypothesis]]:
            rules = (*_tokenizer_processors(bundle, len(special.prompt)), *processors)
            return function(network, memory, special, options, factories, rules)

        return with_prompt_of_options(bundle, options, search)
    if options.decoder == "mask-predict":
        return lambda memory: mask_predict(network, memory, special, options)
    if options.decoder == "rescoring":
        return lambda memory: rescore(network, memory, special, options, factories)
    return lambda memory: ctc_decode(network, memory, special, options, factories)


def default_decoder(network: object) -> str:
    """The name of the decoder that a model is made for."""
    if isinstance(network, FillsMasks):
        return "mask-predict"
    return "greedy" if isinstance(network, HasDecoder) else "ctc"


def _tokenizer_processors(bundle: Bundle[Any], prompt_size: int) -> list[LogitProcessor]:
    """The rules of the tokenizer for the first token of a text."""
    tokenizer = bundle.tokenizer
    if not isinstance(tokenizer, HasPromptTokens) or not tokenizer.prompts.suppressed_at_begin:
        return []
    return [SuppressAtBegin(tokenizer.prompts.suppressed_at_begin, prompt_size, bundle.device)]


def _check_model(network: object, options: DecodingOptions) -> None:
    """Raises AsrError for options that the model's parts do not allow."""
    has_ctc = isinstance(network, HasCTC)
    if options.decoder == "mask-predict":
        if not isinstance(network, FillsMasks):
            raise AsrError("decoder mask-predict: this model's decoder is not of that kind; use another one")
        return
    if options.decoder != "ctc" and isinstance(network, FillsMasks):
        raise AsrError(
            f"decoder {options.decoder}: this model's decoder fills all positions in parallel; use "
            "mask-predict or ctc"
        )
    if options.decoder != "ctc" and not isinstance(network, HasDecoder):
        raise AsrError(f"decoder {options.decoder}: this model has no decoder; use the decoder ctc")
    if options.decoder in ("ctc", "rescoring") and not has_ctc:
        raise AsrError(f"decoder {options.decoder}: this model has no CTC head; use greedy or beam")
    if options.draft and not has_ctc:
        raise AsrError("draft: this model has no CTC head to write one; omit the option")
    if options.draft and not isinstance(network, CachedForward):
        raise AsrError("draft: the decoder of this model can only decode step by step; omit the option")
    scored = options.weight_of_ctc(has_ctc) or options.hot_words or options.language_model
    if options.candidates is not None and not scored:
        raise AsrError("candidates: only the decoder scores tokens, so this has no effect; omit the option")


def _scorer_factories(bundle: Bundle[Any], options: DecodingOptions) -> list[ScorerFactory]:
    """The scorers besides the decoder and CTC."""
    factories: list[ScorerFactory] = []
    if options.hot_words:
        factories.append(
            HotWords(options.hot_words, bundle.tokenizer, options.hot_word_weight, bundle.device)
        )
    if options.language_model:
        weight, device = options.language_model_weight, str(bundle.device)
        path, tokenizer = options.language_model, bundle.tokenizer
        if Path(path).is_file():  # a word n-gram model; others are folders
            weight = WORD_MODEL_WEIGHT if weight is None else weight
            factories.append(WordModel.load(path, tokenizer, weight))
        else:
            weight = options.weight_of_language_model
            factories.append(LanguageModelFactory.load(path, tokenizer, weight, device))
    return factories
