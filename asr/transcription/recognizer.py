"""Files in, transcripts out: segmentation, batching, decoding, stitching."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from asr import audio
from asr.decoding import DecodingOptions, Hypothesis, build_decoder
from asr.errors import AsrError
from asr.model_folder import Bundle, load_model
from asr.segments import segments
from asr.transcription.inputs import Input
from asr.transcription.transcript import Alternative, Segment, Transcript

LONG = 300.0  # seconds: a longer file is read block by block, in its turn; shorter ones are read ahead
WINDOW = 8  # batches' worth of audio gathered and sorted by length, so that little is padded


@dataclass
class _Job:
    """An input on its way: its segments arrive in any order, its transcript leaves in the order given."""

    input: Input
    duration: float = 0.0
    segments: list[Segment] = field(default_factory=list)
    error: AsrError | None = None


@dataclass(frozen=True)
class _Piece:
    """One segment's audio and the job it belongs to."""

    job: _Job
    start: float
    samples: np.ndarray


class Recognizer:
    """Transcribes files and arrays with one model.

    `model` is a folder, a loaded `Bundle`, or None for the model that ships; `device` is "auto", "cpu",
    "cuda" ...; `batch_seconds` is how much padded audio goes through the model at once.
    """

    def __init__(
        self,
        model: Bundle | str | os.PathLike[str] | None = None,
        device: str = "auto",
        batch_seconds: float = 120.0,
        options: DecodingOptions | None = None,
    ) -> None:
        if not (math.isfinite(batch_seconds) and batch_seconds >= 1):
            raise AsrError(f"batch_seconds {batch_seconds}: impossible; give 1 second of audio or more")
        self.bundle = model if isinstance(model, Bundle) else load_model(model, device)
        self.sample_rate = self.bundle.config.features.sample_rate
        self.batch_seconds = batch_seconds
        self.decoder = build_decoder(self.bundle, options or DecodingOptions())
        # Positions much beyond those seen in training are decoded badly: cut before.
        longest = float(self.bundle.metadata.get("longest_seconds", self.bundle.config.data.max_seconds))
        self.longest = min(longest, batch_seconds)

    def transcribe(
        self, source: str | os.PathLike[str] | np.ndarray, sample_rate: int | None = None
    ) -> Transcript:
        """The transcript of a file, or of an array (samples,) or (samples, channels) with its sample rate.

        Raises AsrError naming the file when it cannot be read.
        """
        if isinstance(source, np.ndarray):
            if sample_rate is None:
                raise AsrError(
                    "an array needs its sample_rate, in Hz: transcribe(samples, sample_rate=16000)"
                )
            job = _Job(Input("", Path(), Path()))
            samples = audio.from_array(source, sample_rate, self.sample_rate)
            self._recognize(list(self._pieces(job, [samples])))
            return self._transcript(job, "")
        path = os.fspath(source)
        (result,) = self.transcribe_all([Input(path, Path(path), Path(path))])
        if isinstance(result, AsrError):
            raise result
        return result

    def transcribe_all(self, inputs: Iterable[Input]) -> Iterator[Transcript | AsrError]:
        """A transcript for each input, in the order given; where an input cannot be read, its AsrError.

        Memory holds a window of audio, however many files there are and however long they are.
        """
        waiting: deque[_Job] = deque()  # read to their end
        window: list[_Piece] = []
        room = full = round(WINDOW * self.batch_seconds * self.sample_rate)  # samples
        for job, pieces in self._read_ahead(inputs):
            try:
                for piece in pieces:
                    window.append(piece)
                    room -= len(piece.samples)
                    if room <= 0:
                        self._recognize(window)
                        window, room = [], full
                        yield from map(self._result, waiting)
                        waiting.clear()
            except AsrError as error:
                job.error = error
                window = [piece for piece in window if piece.job is not job]
                room = full - sum(len(piece.samples) for piece in window)
            waiting.append(job)
            if not window:
                yield from map(self._result, waiting)
                waiting.clear()
        self._recognize(window)
        yield from map(self._result, waiting)

    def _read_ahead(self, inputs: Iterable[Input]) -> Iterator[tuple[_Job, Iterable[_Piece]]]:
        """Each input with its pieces; short files are decoded by threads before their turn."""
        with ThreadPoolExecutor(2, thread_name_prefix="audio") as pool:
            ahead: deque[tuple[_Job, Future[list[_Piece] | None]]] = deque()
            for input in inputs:
                job = _Job(input)
                ahead.append((job, pool.submit(self._read_short, job)))
                if len(ahead) > 16:
                    yield self._arrived(*ahead.popleft())
            while ahead:
                yield self._arrived(*ahead.popleft())

    def _arrived(self, job: _Job, future: Future[list[_Piece] | None]) -> tuple[_Job, Iterable[_Piece]]:
        try:
            pieces = future.result()
        except AsrError as error:
            job.error, pieces = error, []
        return job, self._read_long(job) if pieces is None else pieces

    def _read_short(self, job: _Job) -> list[_Piece] | None:
        """All pieces of a file, or None when it is too long to be held."""
        source = job.input
        length = audio.duration(source.audio) if source.duration is None else source.duration
        if length > LONG:
            return None
        samples = audio.read(source.audio, self.sample_rate, source.start, source.duration)
        return list(self._pieces(job, [samples]))

    def _read_long(self, job: _Job) -> Iterator[_Piece]:
        source, blocks = job.input, audio.blocks(job.input.audio, self.sample_rate)
        if source.start or source.duration is not None:
            blocks = iter([audio.read(source.audio, self.sample_rate, source.start, source.duration)])
        yield from self._pieces(job, blocks)

    def _pieces(self, job: _Job, blocks: Iterable[np.ndarray]) -> Iterator[_Piece]:
        def measured() -> Iterator[np.ndarray]:
            for block in blocks:
                job.duration += len(block) / self.sample_rate
                yield block

        for start, samples in segments(measured(), self.sample_rate, self.longest):
            yield _Piece(job, start, samples)

    def _recognize(self, pieces: list[_Piece]) -> None:
        """Decode pieces in batches of similar length; their segments go to their jobs."""
        pieces = sorted(pieces, key=lambda piece: -len(piece.samples))
        while pieces:
            fit = max(1, int(self.batch_seconds * self.sample_rate / len(pieces[0].samples)))
            batch, pieces = pieces[:fit], pieces[fit:]
            for piece, segment in zip(batch, self._decode(batch), strict=True):
                piece.job.segments.append(segment)

    @torch.inference_mode()
    def _decode(self, batch: list[_Piece]) -> list[Segment]:
        device, network = self.bundle.device, self.bundle.network
        waveforms = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(p.samples) for p in batch], batch_first=True
        )
        lengths = torch.tensor([len(piece.samples) for piece in batch])
        memory = network.encode(*self.bundle.features(waveforms.to(device), lengths.to(device)))
        return [
            Segment(
                start=round(piece.start, 3),
                end=round(piece.start + len(piece.samples) / self.sample_rate, 3),
                text=self._text(best),
                confidence=best.confidence,
                finish_reason=best.finish_reason.value,
                score=best.score,
                alternatives=tuple(Alternative(self._text(h), h.score, h.confidence) for h in others),
            )
            for piece, (best, *others) in zip(batch, self.decoder(memory), strict=True)
        ]

    def _text(self, hypothesis: Hypothesis) -> str:
        return self.bundle.tokenizer.decode(hypothesis.tokens).strip()

    def _result(self, job: _Job) -> Transcript | AsrError:
        return job.error or self._transcript(job, str(job.input.audio))

    def _transcript(self, job: _Job, path: str) -> Transcript:
        """Stitch the segments; a script written without spaces gets none between them either."""
        found = sorted((s for s in job.segments if s.text), key=lambda segment: segment.start)
        separator = " " if self.bundle.tokenizer.words_are_spaced else ""
        text = separator.join(segment.text for segment in found)
        return Transcript(job.input.id, path, text, round(job.duration, 3), tuple(found))
