"""What a decoder is told, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum

from asr.errors import AsrError

JOINT_CTC_WEIGHT = 0.3  # as in training, and as ESPnet and SpeechBrain decode
HOT_WORD_BONUS = 0.7  # found on dev texts of speechocean762 (`benchmarks/hot_words.py`)
LANGUAGE_MODEL_WEIGHT = 0.3

# Decoder -> the options that it has besides `decoder`.
DECODERS: dict[str, tuple[str, ...]] = {
    "greedy": ("max_tokens", "ctc_weight", "candidates", "draft"),
    "beam": (
        "max_tokens", "ctc_weight", "candidates", "beam", "n_best", "length_normalization", "hot_words",
        "hot_word_bonus", "language_model", "language_model_weight",
    ),
    "ctc": ("beam", "n_best"),
    "rescoring": (
        "ctc_weight", "beam", "n_best", "length_normalization", "hot_words", "hot_word_bonus",
        "language_model", "language_model_weight",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode. None: not given; what then holds is written behind each option.

    Raises AsrError for a value that is impossible and for an option that the decoder does not have.
    """

    decoder: str = "greedy"  # or beam; ctc: the CTC head alone; rescoring: its texts, ranked by the decoder
    max_tokens: int | None = None  # characters per utterance at most; a bound from its length
    ctc_weight: float | None = None  # share of CTC in the joint score; 0.3, or 0 without a CTC head
    candidates: int | None = None  # how many of the decoder's best characters others score; 8 or 1.5 x beam
    draft: bool | None = None  # check CTC's text instead of decoding step by step; where there is CTC
    beam: int | None = None  # texts kept at each step; 10, for ctc 1
    n_best: int | None = None  # texts given, best first; 1
    length_normalization: float | None = None  # scores are divided by (characters + 1) to this power; 0
    hot_words: tuple[str, ...] | None = None  # phrases that are likelier than the model thinks; none
    hot_word_bonus: float | None = None  # what each of their letters adds to the score; 0.7
    language_model: str | None = None  # folder of a language model whose scores are added; none
    language_model_weight: float | None = None  # what its scores are multiplied by; 0.3

    def __post_init__(self) -> None:
        known = DECODERS.get(self.decoder)
        if known is None:
            raise AsrError(f"decoder {self.decoder!r}: unknown; give one of {', '.join(DECODERS)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or field.name == "decoder":
                continue
            if field.name not in known:
                able = [decoder for decoder, options in DECODERS.items() if field.name in options]
                raise AsrError(
                    f"{field.name}: the decoder {self.decoder!r} has no such option; "
                    f"leave it out, or decode with {' or '.join(able)}"
                )
            if field.name in ("max_tokens", "candidates", "beam", "n_best") and value < 1:
                raise AsrError(f"{field.name} {value}: nothing can be decoded; give 1 or more")
            if isinstance(value, float) and not math.isfinite(value):
                raise AsrError(f"{field.name} {value}: not a number; give one")
        if self.ctc_weight is not None and not 0 <= self.ctc_weight <= 1:
            raise AsrError(f"ctc_weight {self.ctc_weight}: not a share; give 0 (attention alone) to 1")
        if self.n_best is not None and self.n_best > self.beam_size:
            raise AsrError(
                f"n_best {self.n_best}: more than the beam of {self.beam_size} holds; widen the beam"
            )
        if self.length_normalization is not None and self.length_normalization < 0:
            raise AsrError(
                f"length_normalization {self.length_normalization}: below 0; give 0 (none) or more"
            )
        for weight, of in (("hot_word_bonus", "hot_words"), ("language_model_weight", "language_model")):
            value = getattr(self, weight)
            if value is not None and not getattr(self, of):
                raise AsrError(f"{weight}: there is nothing that it could weigh; give {of} too")
            if value is not None and value < 0:
                raise AsrError(f"{weight} {value}: below 0; give 0 or more")

    @property
    def beam_size(self) -> int:
        """The beam that holds."""
        return self.beam or (10 if self.decoder in ("beam", "rescoring") else 1)

    @property
    def candidate_count(self) -> int:
        """How many of the decoder's best characters the other scorers score, besides EOS."""
        return self.candidates or max(8, math.ceil(1.5 * self.beam_size))

    @property
    def hot_word_weight(self) -> float:
        """The bonus of a letter that holds."""
        return HOT_WORD_BONUS if self.hot_word_bonus is None else self.hot_word_bonus

    @property
    def weight_of_language_model(self) -> float:
        """The weight that holds."""
        return LANGUAGE_MODEL_WEIGHT if self.language_model_weight is None else self.language_model_weight

    def weight_of_ctc(self, has_head: bool) -> float:
        """The weight that holds for a model. Raises AsrError for one that it cannot have."""
        if self.ctc_weight and not has_head:
            raise AsrError(f"ctc_weight {self.ctc_weight}: this model has no CTC head; leave the option out")
        if self.ctc_weight is None:
            return JOINT_CTC_WEIGHT if has_head else 0.0
        return self.ctc_weight


class FinishReason(StrEnum):
    """Why a text is no longer than it is."""

    end = "end"  # EOS was decoded
    length = "length"  # a bound on the length cut it off
    repetition = "repetition"  # it went round in circles, and is cut off after the first


@dataclass(frozen=True)
class Hypothesis:
    """One decoded token sequence, without BOS and EOS."""

    tokens: tuple[int, ...]
    log_prob: float  # natural log of the probability of the tokens and, when finished, of EOS
    finish_reason: FinishReason = FinishReason.end
    score: float | None = None  # by which it was ranked among others; None where there were none

    @property
    def finished(self) -> bool:
        """Whether it came to its end by itself."""
        return self.finish_reason is FinishReason.end

    @property
    def confidence(self) -> float:
        """Geometric mean of the token probabilities, EOS included: 0 to 1."""
        return math.exp(self.log_prob / (len(self.tokens) + self.finished or 1))
