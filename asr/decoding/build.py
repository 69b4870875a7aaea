"""Makes a decoder from options. Options that do not apply to the model are refused before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from asr.decoding.beam import beam_search
from asr.decoding.ctc import ctc_decode
from asr.decoding.draft_model import load_draft_model
from asr.decoding.fallback import decode_with_fallback, renormalize
from asr.decoding.greedy import greedy
from asr.decoding.hot_words import HotWords
from asr.decoding.language_model import LanguageModelFactory
from asr.decoding.mask_predict import mask_predict
from asr.decoding.options import DECODERS, DecodingOptions, Hypothesis
from asr.decoding.processors import LogitProcessor, SuppressAtBegin
from asr.decoding.prompted import PromptedSearch, check_prompt_options, no_speech_probabilities
from asr.decoding.rescoring import rescore
from asr.decoding.scorers import ScorerFactory
from asr.decoding.timestamps import TimestampGrammar
from asr.decoding.words import WORD_MODEL_WEIGHT, WordModel
from asr.errors import AsrError
from asr.model.interfaces import CachedForward, FillsMasks, HasCTC, HasDecoder, Memory
from asr.model_folder import Bundle
from asr.tokenizers.interface import HasPromptTokens
from asr.tokenizers.special import SpecialTokens


class Decoder(Protocol):
    """From a memory to the hypotheses of every row, best first: `n_best` of them, or fewer if fewer are
    found."""

    def __call__(self, memory: Memory, previous: Sequence[int] = ()) -> list[list[Hypothesis]]:
        """`previous` are the tokens of the text before this audio, for decoders with a prompt."""
        ...


def build_decoder(
    bundle: Bundle[Any], options: DecodingOptions, processors: Sequence[LogitProcessor] = ()
) -> Decoder:
    """The decoder that the options describe, for one model.

    Without a named decoder it is `default_decoder`. `processors` change the decoder's log-probabilities in
    greedy decoding and beam search. Raises AsrError for options that do not apply to the model and for
    characters that it does not know.
    """
    network, special = bundle.network, bundle.special
    options = _with_length_normalization(bundle, options.with_decoder(default_decoder(network)))
    _check_model(network, options)
    factories = _scorer_factories(bundle, options)
    if processors and options.decoder not in ("greedy", "beam"):
        raise AsrError(f"decoder {options.decoder}: logit processors do not apply; use greedy or beam")
    if options.decoder in ("greedy", "beam"):
        check_prompt_options(bundle, options)
        draft_model = load_draft_model(bundle, options)
        search = _Search(bundle, options, factories, processors, draft_model)
        return PromptedSearch(bundle, options, search, draft_model)
    if options.decoder == "mask-predict":
        return lambda memory, previous=(): mask_predict(network, memory, special, options)
    if options.decoder == "rescoring":
        return lambda memory, previous=(): rescore(network, memory, special, options, factories)
    return lambda memory, previous=(): ctc_decode(network, memory, special, options, factories)


class _Search:
    """Greedy decoding or beam search by the rules of the tokenizer and the options, with further attempts."""

    def __init__(
        self,
        bundle: Bundle[Any],
        options: DecodingOptions,
        factories: Sequence[ScorerFactory],
        processors: Sequence[LogitProcessor],
        draft_model: Bundle[Any] | None,
    ) -> None:
        self._draft_network = None if draft_model is None else draft_model.network
        self._bundle, self._options = bundle, options
        self._factories, self._processors = factories, processors
        tokenizer = bundle.tokenizer
        self._prompts = tokenizer.prompts if isinstance(tokenizer, HasPromptTokens) else None
        self._attempts = bool(options.fallback or options.no_speech_threshold is not None)
        self._greedy = replace(
            DecodingOptions(decoder="greedy"),
            max_tokens=options.max_tokens,
            ctc_weight=options.ctc_weight,
            candidates=options.candidates,
            draft=options.draft,
            seed=None,
        )

    def __call__(self, special: SpecialTokens, memory: Memory) -> list[list[Hypothesis]]:
        """The hypotheses of every row of the memory after the prompt of `special`."""

        def attempt(memory: Memory, temperature: float) -> list[list[Hypothesis]]:
            return self._attempt(special, memory, temperature)

        if not self._attempts:
            return attempt(memory, self._options.temperature or 0.0)
        no_speech = None
        if self._prompts is not None and self._prompts.no_speech is not None:
            no_speech = no_speech_probabilities(self._bundle.network, memory, special.prompt, self._prompts)
        return decode_with_fallback(attempt, memory, self._bundle.tokenizer.decode, no_speech, self._options)

    def _attempt(self, special: SpecialTokens, memory: Memory, temperature: float) -> list[list[Hypothesis]]:
        """One attempt. At a temperature above 0, tokens are drawn for one hypothesis, without a beam."""
        network, rules = self._bundle.network, self._rules(special)
        if self._attempts:
            rules.append(renormalize)
        if self._options.decoder == "beam" and not temperature:
            return beam_search(network, memory, special, self._options, self._factories, rules)
        options = self._greedy
        if temperature:
            options = replace(options, temperature=temperature, seed=self._options.seed, draft=None)
        return greedy(network, memory, special, options, (), rules, self._draft_network)

    def _rules(self, special: SpecialTokens) -> list[LogitProcessor]:
        """The rules of the tokenizer, then those of the caller."""
        rules: list[LogitProcessor] = []
        if self._prompts is not None and self._prompts.suppressed_at_begin:
            begin, device = self._prompts.suppressed_at_begin, self._bundle.device
            rules.append(SuppressAtBegin(begin, len(special.prompt), device))
        if self._prompts is not None and self._options.timestamps:
            rules.append(TimestampGrammar(self._prompts, special.eos, len(special.prompt)))
        return [*rules, *self._processors]


def default_decoder(network: object) -> str:
    """The name of the decoder that fits the parts of a model."""
    if isinstance(network, FillsMasks):
        return "mask-predict"
    return "greedy" if isinstance(network, HasDecoder) else "ctc"


def _with_length_normalization(bundle: Bundle[Any], options: DecodingOptions) -> DecodingOptions:
    """These options. If they have no length normalization, that of the model's metadata is used."""
    stored = bundle.metadata.get("length_normalization")
    applies = "length_normalization" in DECODERS[options.decoder or ""]
    if stored is None or options.length_normalization is not None or not applies:
        return options
    try:
        return replace(options, length_normalization=float(stored))
    except ValueError:
        raise AsrError(
            f"the metadata of the model has length_normalization {stored!r}; it must be a number"
        ) from None


def _check_model(network: object, options: DecodingOptions) -> None:
    """Raises AsrError for options that the model's parts do not allow."""
    has_ctc = isinstance(network, HasCTC)
    if options.decoder == "mask-predict":
        if not isinstance(network, FillsMasks):
            raise AsrError(
                "decoder mask-predict: this model has no mask-predict decoder; use another decoder"
            )
        return
    if options.decoder != "ctc" and isinstance(network, FillsMasks):
        raise AsrError(
            f"decoder {options.decoder}: this model's decoder fills all positions in parallel; use the "
            f"decoder {default_decoder(network)}"
        )
    if options.decoder != "ctc" and not isinstance(network, HasDecoder):
        raise AsrError(f"decoder {options.decoder}: this model has no decoder; use the decoder ctc")
    scored = options.hot_words or options.language_model
    if options.decoder == "ctc" and scored and options.beam_size == 1:
        raise AsrError("beam 1: the decoder ctc then uses no other scores; give a beam of 2 or more")
    if options.decoder == "ctc" and options.language_model and Path(options.language_model).is_dir():
        raise AsrError(
            f"language_model {options.language_model}: the decoder ctc cannot use a network; use a word "
            "n-gram model, or the decoder beam or rescoring"
        )
    if options.decoder in ("ctc", "rescoring") and not has_ctc:
        fitting = default_decoder(network)
        raise AsrError(f"decoder {options.decoder}: this model has no CTC head; use the decoder {fitting}")
    if options.draft and not has_ctc:
        raise AsrError("draft: this model has no CTC head, which writes the draft; omit the option")
    if options.draft and not isinstance(network, CachedForward):
        raise AsrError("draft: the decoder of this model can only decode step by step; omit the option")
    weight = options.weight_of_ctc(has_ctc)
    if options.draft_model and weight:
        raise AsrError("draft_model: it cannot be used together with CTC scores; set ctc_weight to 0")
    if options.candidates is not None and not (weight or scored):
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
            weight = options.weight_of_neural_language_model
            factories.append(LanguageModelFactory.load(path, tokenizer, weight, device))
    return factories
