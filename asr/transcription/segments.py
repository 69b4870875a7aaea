"""From decoded hypotheses to segments of text with times and confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from asr.decoding import Hypothesis
from asr.decoding.alignment import TokenSpan
from asr.decoding.timestamps import TimedPart, timed_parts
from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.tokenizers.interface import HasPromptTokens
from asr.transcription.calibration import Calibration
from asr.transcription.onsets import begin_with_sound
from asr.transcription.pieces import Piece
from asr.transcription.transcript import Alternative, Segment, Word
from asr.transcription.words import words_of

MIN_CONFIDENCE = 0.2  # of calibrated models; docs/measurements.md has the measurements


class SegmentBuilder:
    """Makes the segments of a piece of audio from its hypotheses.

    With a `calibration`, the confidence of a word is the probability that it is right. A segment whose words
    have a mean confidence below `min_confidence` gets an empty text. `min_confidence` None is 0.2 with a
    calibration and 0 without one.
    """

    def __init__(
        self, bundle: Bundle[Any], calibration: Calibration | None, min_confidence: float | None
    ) -> None:
        if min_confidence is None:
            min_confidence = MIN_CONFIDENCE if calibration else 0.0
        if not 0 <= min_confidence <= 1:
            raise AsrError(f"min_confidence {min_confidence}: impossible; give 0 (keep all text) to 1")
        self._calibration, self._min_confidence = calibration, min_confidence
        self._tokenizer, self._special = bundle.tokenizer, bundle.special
        self._sample_rate = bundle.config.features.sample_rate

    def __call__(
        self,
        piece: Piece,
        spans: list[TokenSpan],
        seconds_per_state: float,
        best: Hypothesis,
        *others: Hypothesis,
    ) -> list[Segment]:
        """One segment, or one for each part between timestamps.

        `spans` belong to the tokens of the best.
        """
        end = piece.start + len(piece.samples) / self._sample_rate
        tokenizer = self._tokenizer
        prompts = tokenizer.prompts if isinstance(tokenizer, HasPromptTokens) else None
        spaced = tokenizer.words_are_spaced
        if isinstance(tokenizer, HasPromptTokens):
            spaced = tokenizer.words_are_spaced_after(best.prompt or self._special.prompt)
        whole = [TimedPart(0, len(best.tokens), 0.0, None)]
        segments = []
        for part in (timed_parts(best.tokens, prompts) if prompts else None) or whole:
            tokens, its_spans = best.tokens[part.first : part.last], spans[part.first : part.last]
            text, words = self._text(tokens), self._words(tokens, its_spans, seconds_per_state, piece, spaced)
            if words and fmean(word.confidence for word in words) < self._min_confidence:
                text, words = "", ()
            segment = Segment(
                start=round(min(piece.start + part.start, end), 3),
                end=round(end if part.end is None else min(piece.start + part.end, end), 3),
                text=text,
                confidence=best.confidence,
                finish_reason=best.finish_reason.value,
                score=best.score,
                alternatives=tuple(Alternative(self._text(h.tokens), h.score, h.confidence) for h in others),
                words=words,
                channel=piece.channel,
                no_speech=best.no_speech,
            )
            segments.append(segment)
            piece.job.spaced |= bool(spaced and segment.text)
        return segments

    def _text(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens).strip()

    def _words(
        self,
        tokens: Sequence[int],
        spans: list[TokenSpan],
        seconds_per_state: float,
        piece: Piece,
        spaced: bool,
    ) -> tuple[Word, ...]:
        """Words with times, and with calibrated confidence if there is a calibration."""
        end = piece.start + len(piece.samples) / self._sample_rate
        words = words_of(tokens, spans, self._tokenizer, seconds_per_state, piece.start, end, spaced)
        words = begin_with_sound(words, piece.samples, self._sample_rate, piece.start)
        if self._calibration is None:
            return words
        return tuple(replace(word, confidence=self._calibration(word.confidence)) for word in words)
