"""Recordings to pieces: threads read files ahead, and long recordings are cut in pauses."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asr import audio
from asr.audio.voice_activity import with_speech
from asr.errors import AsrError
from asr.transcription.inputs import Input
from asr.transcription.transcript import Segment

LONG = 300.0  # seconds; a longer file is read block by block in its turn, shorter ones are read ahead
AHEAD = 16  # files that are read ahead


@dataclass
class Job:
    """An input in progress. Its segments arrive in any order."""

    input: Input
    duration: float = 0.0  # seconds read so far
    segments: list[Segment] = field(default_factory=list)
    error: AsrError | None = None


@dataclass(frozen=True)
class Piece:
    """The audio of one segment, and the job it belongs to."""

    job: Job
    start: float  # seconds from the start of the file
    samples: np.ndarray


class PieceReader:
    """Reads recordings at a sample rate and cuts them into pieces of at most `longest` seconds.

    With `normalize_level`, every recording is brought to one level. With `voice_activity`, only speech is
    read. With `overlap`, pieces overlap where a cut is not in a pause.
    """

    def __init__(
        self,
        sample_rate: int,
        longest: float,
        normalize_level: bool,
        voice_activity: bool = False,
        overlap: bool = False,
    ) -> None:
        self.sample_rate, self.longest, self.normalize_level = sample_rate, longest, normalize_level
        self.voice_activity = with_speech if voice_activity else None
        self.overlap = overlap and voice_activity

    def read_ahead(self, inputs: Iterable[Input]) -> Iterator[tuple[Job, Iterable[Piece]]]:
        """Each input with its pieces, in order. Threads decode short files before their turn."""
        with ThreadPoolExecutor(2, thread_name_prefix="audio") as pool:
            ahead: deque[tuple[Job, Future[list[Piece] | None]]] = deque()
            try:
                for input in inputs:
                    job = Job(input)
                    ahead.append((job, pool.submit(self._read_short, job)))
                    if len(ahead) > AHEAD:
                        yield self._arrived(*ahead.popleft())
                while ahead:
                    yield self._arrived(*ahead.popleft())
            finally:  # the caller may stop early
                for _, future in ahead:
                    future.cancel()

    def _arrived(self, job: Job, future: Future[list[Piece] | None]) -> tuple[Job, Iterable[Piece]]:
        try:
            pieces = future.result()
        except AsrError as error:
            job.error, pieces = error, []
        return job, self._read_long(job) if pieces is None else pieces

    def _read_short(self, job: Job) -> list[Piece] | None:
        """All pieces of a recording, or None when it is too long to be read ahead."""
        input = job.input
        length = input.duration or 0.0
        # The length of a pipe is not known before it is read. Data in memory needs no second place there.
        if input.duration is None and isinstance(input.audio, Path) and os.path.isfile(input.audio):  # noqa: PTH113
            length = audio.duration(input.audio)
        return None if length > LONG else list(self._pieces(job, [self._whole(input)]))

    def _read_long(self, job: Job) -> Iterator[Piece]:
        input = job.input
        assert not isinstance(input.audio, np.ndarray)
        yield from self._pieces(
            job,
            audio.blocks(
                input.audio, self.sample_rate, start=input.start, duration=input.duration, name=input.label
            ),
        )

    def _whole(self, input: Input) -> np.ndarray:
        """The samples of a recording."""
        if isinstance(input.audio, np.ndarray):
            assert input.sample_rate is not None
            return audio.from_array(input.audio, input.sample_rate, self.sample_rate)
        return audio.read(input.audio, self.sample_rate, input.start, input.duration, name=input.label)

    def _pieces(self, job: Job, blocks: Iterable[np.ndarray]) -> Iterator[Piece]:
        """The pieces of blocks of samples. The job's duration counts the samples that were read."""

        def counted() -> Iterator[np.ndarray]:
            for block in blocks:
                job.duration += len(block) / self.sample_rate
                yield block

        for start, samples in audio.segments(
            counted(), self.sample_rate, self.longest, self.voice_activity, self.overlap
        ):
            leveled = audio.normalize_level(samples, self.sample_rate) if self.normalize_level else samples
            yield Piece(job, job.input.start + start, leveled)
