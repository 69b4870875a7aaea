"""Files in, transcripts out: segmentation, batching, decoding, and joining of segments."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, overload

import torch

from asr.decoding import DecodingOptions, Hypothesis, build_decoder
from asr.decoding.alignment import TokenSpan, ctc_align
from asr.decoding.build import Decoder
from asr.errors import AsrError
from asr.model.interfaces import HasCTC, Memory
from asr.model_folder import PRETRAINED, Bundle, check_model_folder, load_model
from asr.transcription.calibration import load_calibration
from asr.transcription.inputs import Input
from asr.transcription.merging import merge_overlaps
from asr.transcription.pieces import Job, Piece, PieceReader
from asr.transcription.transcript import Alternative, Segment, Transcript, Word
from asr.transcription.words import words_of

# Seconds of padded audio. On a CPU, large batches leave the caches in the encoder, but save decoder steps:
# docs/transcription.md has the measurements.
BATCH_SECONDS_ON_CPU = 60.0
BATCH_SECONDS_ON_GPU = 120.0
FIRST_WINDOW = 20.0  # seconds of audio before the first results
WINDOW = 8  # batches whose audio is gathered and sorted by length, so that there is little padding


class Recognizer:
    """Transcribes files, arrays and data in memory with one model. Several threads can use it at once.

    `model` is a folder, a loaded `Bundle`, or None for the model that ships. `device` is "auto", "cpu",
    "cuda" ... `batch_seconds` is the amount of padded audio that goes through the model at once; it changes
    speed and memory, never the text. `precision` is "float32", "bf16", or "auto": bf16 on a GPU that computes
    it natively. `voice_activity` decides whether only speech is decoded; None: yes, unless the metadata of
    the model has `voice_activity` "false", as for a model of other sounds.
    """

    def __init__(
        self,
        model: Bundle[Any] | str | os.PathLike[str] | None = None,
        device: str = "auto",
        batch_seconds: float | None = None,
        options: DecodingOptions | None = None,
        precision: str = "auto",
        voice_activity: bool | None = None,
    ) -> None:
        self.bundle = model if isinstance(model, Bundle) else load_model(model, device)
        self.name = "" if isinstance(model, Bundle) else os.fspath(model or PRETRAINED.name)
        kind = self.bundle.device.type
        if batch_seconds is None:
            batch_seconds = BATCH_SECONDS_ON_CPU if kind == "cpu" else BATCH_SECONDS_ON_GPU
        if not (math.isfinite(batch_seconds) and batch_seconds >= 1):
            raise AsrError(f"batch_seconds {batch_seconds}: impossible; give 1 second of audio or more")
        self.batch_seconds = batch_seconds
        folder = (
            None if isinstance(model, Bundle) else check_model_folder(PRETRAINED if model is None else model)
        )
        self.calibration = load_calibration(folder) if folder else None
        self.sample_rate = self.bundle.config.features.sample_rate
        self.bf16 = _use_bf16(precision, self.bundle.device)
        self.options = options or DecodingOptions()
        self.decoder = build_decoder(self.bundle, self.options)
        if voice_activity is None:
            voice_activity = self.bundle.metadata.get("voice_activity") != "false"
        self._reader = PieceReader(
            self.sample_rate,
            longest_seconds(self.bundle),
            self.bundle.config.features.level_matters,
            voice_activity,
            overlap=self.has_word_times,
        )
        self._lock = threading.Lock()  # one batch at a time goes through the model

    @overload
    def transcribe(
        self, source: list[Any], sample_rate: int | None = None, options: DecodingOptions | None = None
    ) -> list[Transcript]: ...
    @overload
    def transcribe(
        self, source: Any, sample_rate: int | None = None, options: DecodingOptions | None = None
    ) -> Transcript: ...
    def transcribe(
        self, source: Any, sample_rate: int | None = None, options: DecodingOptions | None = None
    ) -> Transcript | list[Transcript]:
        """The transcript of one recording, or of each recording in a list.

        `source` is a path, the bytes of an audio file, an open binary file (BytesIO too), an `Input`, or a
        numpy array or torch tensor (samples,) or (samples, channels), which needs its `sample_rate` in Hz.
        `options` replace those of the recognizer for this call. Raises AsrError naming the first recording
        that cannot be read.
        """
        several = isinstance(source, list | tuple)
        results = self.transcribe_all(
            (
                each if isinstance(each, Input) else Input.of(each, sample_rate=sample_rate)
                for each in (source if several else [source])
            ),
            options,
        )
        transcripts = []
        for result in results:
            if isinstance(result, AsrError):
                raise result
            transcripts.append(result)
        return transcripts if several else transcripts[0]

    def transcribe_all(
        self, inputs: Iterable[Input | str | os.PathLike[str]], options: DecodingOptions | None = None
    ) -> Iterator[Transcript | AsrError]:
        """A transcript for each input, in the order given, or its AsrError when it cannot be read.

        Results come as soon as they and those before them are ready. Memory holds a window of audio, for any
        number of files of any length. Raises AsrError when the output of the model is not finite.
        """
        decoder = self.decoder if options is None else build_decoder(self.bundle, options)
        options = options or self.options
        waiting: list[Job] = []  # read to their end, in the order given
        window: list[Piece] = []
        size = min(FIRST_WINDOW, self.batch_seconds)  # the first windows are small: first results come soon
        room = round(size * self.sample_rate)
        for job, pieces in self._reader.read_ahead(
            input if isinstance(input, Input) else Input.of(input) for input in inputs
        ):
            for piece in _until_error(job, pieces):
                window.append(piece)
                room -= len(piece.samples)
                if room <= 0:
                    self._recognize(window, decoder)
                    size = min(2 * size, WINDOW * self.batch_seconds)
                    window, room = [], round(size * self.sample_rate)
                    yield from self._results(waiting, options)
            waiting.append(job)
            if not window:
                yield from self._results(waiting, options)
        self._recognize(window, decoder)
        yield from self._results(waiting, options)

    def _recognize(self, pieces: list[Piece], decoder: Decoder) -> None:
        """Decode pieces in batches of similar length. Their segments are added to their jobs."""
        pieces = sorted(pieces, key=lambda piece: -len(piece.samples))
        while pieces:
            fit = max(1, int(self.batch_seconds / self._padded_seconds(len(pieces[0].samples))))
            batch, pieces = pieces[:fit], pieces[fit:]
            for piece, segment in zip(batch, self._decode(batch, decoder), strict=True):
                piece.job.segments.append(segment)

    def _padded_seconds(self, samples: int) -> float:
        """The seconds of audio that a piece occupies in a batch. Some features pad each one to a window."""
        features = self.bundle.features
        frames = int(features.frames(torch.tensor([samples])))
        return max(samples / self.sample_rate, (frames - 1) * features.frame_seconds)

    @torch.inference_mode()
    def _decode(self, batch: Sequence[Piece], decoder: Decoder) -> list[Segment]:
        """The segments of one batch: features, encoder, decoder."""
        device, network = self.bundle.device, self.bundle.network
        waveforms = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(piece.samples) for piece in batch], batch_first=True
        )
        lengths = torch.tensor([len(piece.samples) for piece in batch])
        with self._lock, torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            features, frames = self.bundle.features(waveforms.to(device), lengths.to(device))
            memory = network.encode(features, frames)
            if not memory.states.isfinite().all():
                raise AsrError("the model's output is not finite; use another checkpoint or float32")
            found = decoder(memory)
            spans = self._align(memory, [best.tokens for best, *_ in found])
        frames_per_state = round(int(frames.max()) / max(1, int(memory.lengths.max())))
        state = frames_per_state * self.bundle.features.frame_seconds
        return [
            self._segment(piece, span, state, *hypotheses)
            for piece, hypotheses, span in zip(batch, found, spans, strict=True)
        ]

    def _align(self, memory: Memory, texts: list[tuple[int, ...]]) -> list[list[TokenSpan]]:
        """The states of each token, if the model has a CTC head."""
        if not self.has_word_times:
            return [[] for _ in texts]
        log_probs = self.bundle.network.ctc(memory)
        return ctc_align(log_probs, memory.lengths, texts, self.bundle.special)

    def _segment(
        self, piece: Piece, spans: list[TokenSpan], state: float, best: Hypothesis, *others: Hypothesis
    ) -> Segment:
        start, end = piece.start, piece.start + len(piece.samples) / self.sample_rate
        return Segment(
            start=round(start, 3),
            end=round(end, 3),
            text=self._text(best),
            confidence=best.confidence,
            finish_reason=best.finish_reason.value,
            score=best.score,
            alternatives=tuple(Alternative(self._text(h), h.score, h.confidence) for h in others),
            words=self._words(best, spans, state, start, end),
        )

    def _words(
        self, best: Hypothesis, spans: list[TokenSpan], state: float, start: float, end: float
    ) -> tuple[Word, ...]:
        """Words with calibrated confidence, if the model folder has a calibration."""
        words = words_of(best.tokens, spans, self.bundle.tokenizer, state, start, end)
        if self.calibration is None:
            return words
        return tuple(replace(word, confidence=self.calibration(word.confidence)) for word in words)

    @property
    def has_word_times(self) -> bool:
        """Whether segments have words with times. Only models with a CTC head give them."""
        return isinstance(self.bundle.network, HasCTC)

    def _text(self, hypothesis: Hypothesis) -> str:
        return self.bundle.tokenizer.decode(hypothesis.tokens).strip()

    def _results(self, waiting: list[Job], options: DecodingOptions) -> Iterator[Transcript | AsrError]:
        """The results of the jobs, which then leave the list."""
        done, waiting[:] = list(waiting), []
        for job in done:
            yield job.error or self._transcript(job, options)

    def _transcript(self, job: Job, options: DecodingOptions) -> Transcript:
        """Join the segments, with spaces if the script is written with spaces between words."""
        separator = " " if self.bundle.tokenizer.words_are_spaced else ""
        found = merge_overlaps((s for s in job.segments if s.text), separator)
        text = separator.join(segment.text for segment in found)
        return Transcript(
            job.input.id,
            job.input.path,
            text,
            round(job.duration, 3),
            tuple(found),
            self.name,
            {name: value for name, value in asdict(options).items() if value is not None},
        )


def _until_error(job: Job, pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces of a recording up to its end, or up to an error, which becomes its result."""
    try:
        yield from pieces
    except AsrError as error:
        job.error = error


def longest_seconds(bundle: Bundle[Any]) -> float:
    """Seconds above which a recording is cut: longer ones than in training are decoded badly.

    It depends on the model alone, so that a setting of memory never changes the text.
    """
    stored = bundle.metadata.get("longest_seconds", bundle.config.data.max_seconds)
    try:
        longest = float(stored)
    except ValueError:
        longest = math.nan
    if not (math.isfinite(longest) and longest > 0):
        raise AsrError(
            f"the metadata of the model has longest_seconds {stored!r}; it must be a number above 0"
        )
    return longest


def _use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16. Emulated bfloat16 is slower than float32."""
    if precision not in ("auto", "float32", "bf16"):
        raise AsrError(f"precision {precision!r}: unknown; choose auto, float32 or bf16")
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"
