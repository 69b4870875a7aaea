"""Cuts recordings into pieces: threads read files ahead, and long recordings are cut in pauses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import chain
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

import numpy as np

from asr import audio
from asr.audio.samples import check_shape
from asr.audio.voice_activity import with_speech
from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.transcription.inputs import Input, in_memory, is_portable
from asr.transcription.transcript import Segment

LONG = 120.0  # seconds of a file that are read before its turn; the rest is read piece by piece when it comes
BLOCK = 30.0  # seconds that are decoded at a time
AHEAD = 16  # files that are read ahead
PIECES_AHEAD = 32  # pieces of a long file that are read ahead
CHANNELS = ("mix", "first", "separate")
READERS = 4  # threads that read; a slow file holds one of them


@dataclass
class Job:
    """An input in progress. Its segments arrive in any order."""

    input: Input
    position: int = 0  # among all inputs
    source: Input = field(init=False)  # what is read: the input, or the bytes of its pipe or open file
    duration: float = 0.0  # seconds read so far
    segments: list[Segment] = field(default_factory=list)
    spaced: bool = False  # the words of a segment have spaces between them
    error: AsrError | None = None
    # The last tokens of each channel, when segments are decoded one after the other.
    previous: dict[int | None, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source = self.input


@dataclass(frozen=True)
class Piece:
    """The audio of one segment, and the job it belongs to."""

    job: Job
    start: float  # seconds from the start of the file
    samples: np.ndarray
    channel: int | None = None  # from 1, if channels are separate


class PieceReader:
    """Reads recordings at a sample rate and cuts them into pieces of at most `longest` seconds.

    `channels` is "mix" (their mean), "first", or "separate": pieces of each channel. With `normalize_level`,
    every piece is brought to one level. With `voice_activity`, only speech is read. With `overlap`,
    pieces overlap where a cut is not in a pause.
    """

    def __init__(
        self,
        sample_rate: int,
        longest: float,
        normalize_level: bool,
        voice_activity: bool = False,
        overlap: bool = False,
        channels: str = "mix",
    ) -> None:
        if channels not in CHANNELS:
            raise AsrError(f"channels {channels!r}: unknown; choose from {', '.join(CHANNELS)}")
        self.sample_rate, self.longest, self.normalize_level = sample_rate, longest, normalize_level
        self.voice_activity = with_speech if voice_activity else None
        self.overlap, self.channels = overlap and voice_activity, channels

    def read_ahead(self, inputs: Iterable[Input]) -> Iterator[tuple[Job, Iterable[Piece]]]:
        """Each input with its pieces, in order, except that a slow input does not delay the next ones.

        Threads read short files, and the beginning of long files, before they are needed. The other pieces of
        a long file follow while it is used. A pipe is read in a thread of its own, because its other end may
        never write. This thread does not prevent the process from ending.
        """
        pool = ThreadPoolExecutor(READERS, thread_name_prefix="audio")
        ahead: dict[Future[Iterable[Piece]], Job] = {}
        try:
            for position, input in enumerate(inputs):
                job = Job(input, position)
                read = _in_daemon if not is_portable(input) else pool.submit
                ahead[read(self._begin, job)] = job
                if len(ahead) > AHEAD:
                    yield self._next(ahead)
            while ahead:
                yield self._next(ahead)
        finally:  # the caller may stop early
            pool.shutdown(wait=False, cancel_futures=True)

    def _next(self, ahead: dict[Future[Iterable[Piece]], Job]) -> tuple[Job, Iterable[Piece]]:
        """The first of the inputs that have been read, with its pieces."""
        done = wait(ahead, return_when=FIRST_COMPLETED).done
        future = next(each for each in ahead if each in done)
        job = ahead.pop(future)
        try:
            return job, future.result()
        except AsrError as error:
            job.error = error
            return job, []

    def _begin(self, job: Job) -> Iterable[Piece]:
        """The pieces of a recording. Those of its first LONG seconds are read now, the rest when it is used.

        So a file is decoded only once. In many formats, finding the length first would need a second
        decoding.
        """
        if not is_portable(job.input):  # it can be read only once, and channels are read one after the other
            job.source = in_memory(job.input)
        begin: list[Piece] = []
        pieces = self._read(job)
        for piece in pieces:
            begin.append(piece)
            if job.duration > LONG:
                return _in_thread(chain(begin, pieces))
        return begin

    def _channels(self, source: Input) -> Iterable[int | None]:
        """The channels to read, from 0; None: the mean of all."""
        if self.channels == "mix":
            return (None,)
        if self.channels == "first":
            return (0,)
        if isinstance(source.audio, np.ndarray):
            return range(check_shape(source.audio, source.id))
        return range(audio.channels(source.audio, name=source.label))

    def _read(self, job: Job) -> Iterator[Piece]:
        """The pieces of one channel after the other.

        With separate channels, a file is decoded once for each channel. All pieces of a channel come before
        those of the next channel, so a single pass would have to keep the other channels in memory.
        """
        source, data = job.source, job.source.audio
        blocks: Iterable[np.ndarray]
        for channel in self._channels(source):
            part = (source.start, source.duration, source.label, channel)
            if isinstance(data, np.ndarray):
                assert source.sample_rate is not None
                blocks = [audio.from_array(data, source.sample_rate, self.sample_rate, *part)]
            else:
                blocks = audio.blocks(data, self.sample_rate, BLOCK, *part)
            yield from self._pieces(job, blocks, channel)

    def _pieces(self, job: Job, blocks: Iterable[np.ndarray], channel: int | None) -> Iterator[Piece]:
        """The pieces of blocks of samples. The job's duration counts the samples that were read."""
        job.duration = 0.0  # of each channel again

        def counted() -> Iterator[np.ndarray]:
            for block in blocks:
                job.duration += len(block) / self.sample_rate
                yield block

        number = channel + 1 if channel is not None and self.channels == "separate" else None
        for start, samples in audio.segments(
            counted(), self.sample_rate, self.longest, self.voice_activity, self.overlap
        ):
            yield self.piece(job, job.input.start + start, samples, number)

    def piece(self, job: Job, start: float, samples: np.ndarray, channel: int | None = None) -> Piece:
        """Samples as the model needs them."""
        leveled = audio.normalize_level(samples, self.sample_rate) if self.normalize_level else samples
        return Piece(job, start, leveled, channel)


def _in_daemon(read: Callable[[Job], Iterable[Piece]], job: Job) -> Future[Iterable[Piece]]:
    """The result of a call in a thread of its own, which ends with the process."""
    future: Future[Iterable[Piece]] = Future()

    def run() -> None:
        try:
            future.set_result(read(job))
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, name="audio", daemon=True).start()
    return future


def _in_thread(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same pieces, made by a thread up to PIECES_AHEAD before they are needed."""
    made: Queue[Piece | Exception | None] = Queue(PIECES_AHEAD)
    stopped = Event()

    def put(item: Piece | Exception | None) -> None:
        while not stopped.is_set():
            try:
                return made.put(item, timeout=0.1)
            except Full:
                continue

    def make() -> None:
        try:
            for piece in pieces:
                put(piece)
                if stopped.is_set():
                    return
            put(None)
        except Exception as error:
            put(error)

    Thread(target=make, name="audio", daemon=True).start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()


def longest_seconds(bundle: Bundle[Any]) -> float:
    """Seconds above which a recording is cut. Audio longer than in training is recognized badly.

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
