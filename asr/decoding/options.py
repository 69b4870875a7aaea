"""The options of decoding, and the hypotheses that it returns."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from numbers import Integral, Real

from asr.errors import AsrError

JOINT_CTC_WEIGHT = 0.3  # as in training, and as ESPnet and SpeechBrain decode
HOT_WORD_BONUS = 0.7  # tuned on dev texts of speechocean762 (`benchmarks/hot_words.py`)
LANGUAGE_MODEL_WEIGHT = 0.3
PASSES = 10  # as in the papers of mask-predict and Mask-CTC

# Options of greedy decoding and of beam search, which go from token to token.
AUTOREGRESSIVE = (
    "language", "task", "timestamps", "initial_prompt", "previous_text", "fallback", "seed",
    "max_compression_ratio", "min_log_prob", "no_speech_threshold",
)  # fmt: skip
# Each decoder with the options that apply to it.
DECODERS: dict[str, tuple[str, ...]] = {
    "greedy": (
        "max_tokens", "ctc_weight", "candidates", "draft", "draft_model", "temperature", *AUTOREGRESSIVE,
    ),
    "beam": (
        "max_tokens", "ctc_weight", "candidates", "beam", "n_best", "length_normalization", "hot_words",
        "hot_word_bonus", "language_model", "language_model_weight", *AUTOREGRESSIVE,
    ),
    "ctc": (
        "beam", "n_best", "hot_words", "hot_word_bonus", "language_model", "language_model_weight",
    ),
    "mask-predict": ("iterations",),
    "rescoring": (
        "ctc_weight", "beam", "n_best", "length_normalization", "hot_words", "hot_word_bonus",
        "language_model", "language_model_weight",
    ),
}  # fmt: skip

# The lowest and the highest value of each option that is a number.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("max_tokens", "candidates", "iterations", "beam", "n_best"), (1, math.inf)),
    **dict.fromkeys(("length_normalization", "hot_word_bonus", "language_model_weight"), (0, math.inf)),
    **dict.fromkeys(("temperature", "max_compression_ratio"), (0, math.inf)),
    **dict.fromkeys(("ctc_weight", "no_speech_threshold"), (0, 1)),
    "min_log_prob": (-math.inf, 0),
    "seed": (-math.inf, math.inf),
}
_TYPES: dict[str, tuple[type, str]] = {  # of values other than lists, by annotation
    "bool": (bool, "true or false"),
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "str": (str, "a text"),
}


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode. An option that is None has the default that its comment states.

    Raises AsrError for an impossible value and for an option that the decoder does not have.
    """

    # greedy; beam: beam search; ctc: the CTC head alone; rescoring: CTC's hypotheses, ranked by the decoder;
    # mask-predict: CTC's hypothesis, whose unlikely tokens are predicted again in parallel
    decoder: str | None = None  # default: greedy; or ctc, mask-predict for models that cannot be greedy
    max_tokens: int | None = None  # most tokens of a hypothesis; default: a limit from the duration
    ctc_weight: float | None = None  # share of CTC in the joint score; default: 0.3, or 0 without a CTC head
    # how many of the decoder's best tokens get all scores; default: max(8, 1.5 x beam)
    candidates: int | None = None
    draft: bool | None = None  # check CTC's output with few decoder passes; default: if the model can do it
    draft_model: str | None = None  # folder of a smaller model of the same vocabulary, which writes drafts
    iterations: int | None = None  # decoder passes of mask-predict; default: 10
    beam: int | None = None  # hypotheses kept at each step; default: 10, or 1 with the decoder ctc
    n_best: int | None = None  # hypotheses returned, best first; default: 1
    # scores are divided by (tokens + 1) to this power; default: that of the model's metadata, or 0
    length_normalization: float | None = None
    hot_words: tuple[str, ...] | None = None  # words and phrases to favor; default: none
    hot_word_bonus: float | None = None  # added to the score for each character of a hot word; default: 0.7
    language_model: str | None = None  # a language model: a folder, or a file of word n-grams
    language: str | None = None  # of the prompt; auto: detected; default: the tokenizer's, else detected
    task: str | None = None  # of the prompt: transcribe or translate; default: that of the tokenizer
    language_model_weight: float | None = None  # factor of its scores; default: 0.3, or 0.5 for n-grams
    timestamps: bool | None = None  # decode the times of parts of the text; default: no
    initial_prompt: str | None = None  # a text that counts as the text before the recording
    previous_text: bool | None = None  # the prompt of a segment has the text before it; default: no
    temperature: float | None = None  # above 0: tokens are drawn, from flatter probabilities; default: 0
    seed: int | None = None  # of the draws; default: 0
    fallback: bool | None = None  # decode failed texts again, at rising temperatures; default: no
    max_compression_ratio: float | None = None  # a text that can be compressed more fails; default: 2.4
    min_log_prob: float | None = None  # a text with a lower mean log-probability fails; default: -1
    no_speech_threshold: float | None = None  # probability of silence that empties such a text; default: 0.6

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, os.PathLike):  # of a model; transcripts store options as JSON
                value = os.fspath(value)
                object.__setattr__(self, field.name, value)
            if value is not None:
                _check_type(field.name, value, str(field.type).removesuffix(" | None"))
                self._check_that_it_applies(field.name)
                if field.name in _RANGES:
                    _check_range(field.name, value)
        if self.n_best is not None and self.n_best > self.beam_size:
            raise AsrError(f"n_best {self.n_best}: more than the beam of {self.beam_size}; use a wider beam")
        if self.seed is not None and not (self.temperature or self.fallback):
            raise AsrError("seed: no token is drawn at random; give temperature or fallback too")
        if self.fallback and self.temperature:
            raise AsrError(
                "temperature: fallback always begins with temperature 0; omit one of the two options"
            )
        if self.draft and self.temperature:
            raise AsrError(
                "draft: it cannot be used when tokens are drawn at random; omit draft or temperature"
            )
        if self.draft_model and (self.draft or self.temperature):
            raise AsrError(
                "draft_model: it cannot be used with draft or temperature; omit one of the options"
            )
        if self.max_compression_ratio is not None and not self.fallback:
            raise AsrError("max_compression_ratio: has no effect without fallback; give fallback too")
        if self.min_log_prob is not None and not self.fallback and self.no_speech_threshold is None:
            raise AsrError(
                "min_log_prob: has no effect without fallback or no_speech_threshold; give one of them too"
            )
        if self.timestamps and (self.n_best or 1) > 1:
            raise AsrError(
                "n_best: with timestamps, each part has only one text; omit one of the two options"
            )
        for weight, owner in (("hot_word_bonus", "hot_words"), ("language_model_weight", "language_model")):
            if getattr(self, weight) is not None and not getattr(self, owner):
                raise AsrError(f"{weight}: has no effect without {owner}; give {owner} too")

    def _check_that_it_applies(self, name: str) -> None:
        if self.decoder is not None and self.decoder not in DECODERS:
            raise AsrError(f"decoder {self.decoder!r}: unknown decoder; choose one of {', '.join(DECODERS)}")
        if self.decoder is not None and name not in ("decoder", *DECODERS[self.decoder]):
            able = [decoder for decoder, options in DECODERS.items() if name in options]
            raise AsrError(
                f"{name}: the decoder {self.decoder!r} has no such option; "
                f"omit it, or use the decoder {' or '.join(able)}"
            )

    def with_decoder(self, default: str) -> DecodingOptions:
        """These options with a named decoder: `default` if they name none.

        Raises AsrError for an option that the decoder does not have.
        """
        return self if self.decoder is not None else replace(self, decoder=default)

    def as_greedy(self) -> DecodingOptions:
        """Greedy decoding with the same options, without those that it does not have."""
        kept = {name: getattr(self, name) for name in DECODERS["greedy"]}
        return DecodingOptions(decoder="greedy", **kept)

    @property
    def beam_size(self) -> int:
        """Number of hypotheses kept at each step."""
        return self.beam or (10 if self.decoder in ("beam", "rescoring") else 1)

    @property
    def pass_count(self) -> int:
        """Number of decoder passes of mask-predict."""
        return self.iterations or PASSES

    @property
    def candidate_count(self) -> int:
        """How many of the decoder's best tokens the other scorers score, besides EOS."""
        return self.candidates or max(8, math.ceil(1.5 * self.beam_size))

    @property
    def hot_word_weight(self) -> float:
        """The bonus for each character of a hot word."""
        return HOT_WORD_BONUS if self.hot_word_bonus is None else self.hot_word_bonus

    @property
    def compression_limit(self) -> float:
        """The highest compression ratio of a text that passes."""
        return 2.4 if self.max_compression_ratio is None else self.max_compression_ratio

    @property
    def lowest_log_prob(self) -> float:
        """The lowest mean log-probability of a text that passes."""
        return -1.0 if self.min_log_prob is None else self.min_log_prob

    @property
    def no_speech_limit(self) -> float:
        """The probability of silence above which an improbable text is left out."""
        return 0.6 if self.no_speech_threshold is None else self.no_speech_threshold

    @property
    def weight_of_neural_language_model(self) -> float:
        """The factor of the scores of a language model that is a network."""
        return LANGUAGE_MODEL_WEIGHT if self.language_model_weight is None else self.language_model_weight

    def weight_of_ctc(self, has_ctc: bool) -> float:
        """The share of CTC for a model. Raises AsrError if the model has no CTC head for it."""
        if self.ctc_weight and not has_ctc:
            raise AsrError(f"ctc_weight {self.ctc_weight}: this model has no CTC head; omit the option")
        if self.ctc_weight is None:
            return JOINT_CTC_WEIGHT if has_ctc else 0.0
        return self.ctc_weight


def _check_type(name: str, value: object, annotation: str) -> None:
    """Raises AsrError for a value of another type than the annotation of its option."""
    if annotation == "tuple[str, ...]":
        matches = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
        expected = "a tuple of words and phrases"
    else:
        kind, expected = _TYPES[annotation]
        matches = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    if not matches:
        raise AsrError(f"{name} {value!r}: the value has the wrong type; give {expected}")


def _check_range(name: str, value: float) -> None:
    """Raises AsrError for a number outside the range of its option."""
    lowest, highest = _RANGES[name]
    if not math.isfinite(value):
        raise AsrError(f"{name} {value}: not a finite number; choose a finite one")
    if value < lowest:
        raise AsrError(f"{name} {value}: below {lowest}; choose {lowest} or more")
    if value > highest:
        raise AsrError(f"{name} {value}: above {highest}; choose {highest} or less")


class FinishReason(StrEnum):
    """Why a hypothesis is finished."""

    end = "end"  # EOS was decoded
    length = "length"  # it reached the maximum length
    repetition = "repetition"  # it repeated itself, and was cut after the first copy


@dataclass(frozen=True)
class Hypothesis:
    """One decoded token sequence, without the prompt and EOS."""

    tokens: tuple[int, ...]
    log_prob: float  # natural log of the probability of the tokens and, if `finished`, of EOS
    finish_reason: FinishReason = FinishReason.end
    score: float | None = None  # the score that ranked it; None for greedy decoding, which ranks nothing
    no_speech: float | None = None  # probability that nobody speaks, if it was asked for
    temperature: float = 0.0  # of the draws; 0: nothing was drawn
    prompt: tuple[int, ...] | None = None  # the one before the tokens; None: that of the tokenizer

    @property
    def finished(self) -> bool:
        """Whether EOS was decoded."""
        return self.finish_reason is FinishReason.end

    @property
    def confidence(self) -> float:
        """Geometric mean of the token probabilities, EOS included: 0 to 1."""
        return math.exp(self.log_prob / (len(self.tokens) + self.finished or 1))
