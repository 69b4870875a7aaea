"""Cuts live audio into pieces. A piece grows while somebody speaks, and ends with a pause."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import soxr

from asr.audio.samples import RESAMPLER, check_rate, to_mono
from asr.audio.segmentation import AROUND, FAINT_DB, FRAME, SEPARATE, SILENCE_DB, best_cut, mean_squares
from asr.audio.voice_activity import is_speech, speech_probabilities

CONTEXT = 2.0  # seconds that are kept before a piece, which the voice activity detector looks at


@dataclass(frozen=True)
class LivePiece:
    """The audio of a piece so far, or all of it."""

    start: float  # seconds from the start of the first block
    samples: np.ndarray  # float32 (samples,)
    final: bool  # whether the piece has ended


def live_pieces(
    blocks: Iterable[np.ndarray],
    source_rate: int,
    sample_rate: int,
    longest_seconds: float,
    voice_activity: bool = True,
    every: float = 0.5,
    channel: int | None = None,
) -> Iterator[LivePiece]:
    """Pieces of blocks (samples,) or (samples, channels) of floats in [-1, 1], int16, int32 or uint8.

    A piece ends after 1 s without speech and at the end of the blocks. A piece that would be longer than
    `longest_seconds` is cut at its quietest place. While it lasts, it is yielded again each time `every` more
    seconds of audio have arrived. If later audio shows that it is not speech, it is yielded a last time
    without samples. Without `voice_activity`, all sound counts as speech. `channel` chooses one channel,
    counted from 0; None takes the mean of all channels. Memory holds one piece. Raises AsrError for samples
    that are not finite and for impossible shapes and rates.
    """
    held = _Held(sample_rate, round(longest_seconds * sample_rate), voice_activity)
    waiting = 0  # samples that arrived after the last detection of speech
    for block in _resampled(blocks, source_rate, sample_rate, channel):
        held.samples = np.concatenate([held.samples, block])
        waiting += len(block)
        if waiting >= every * sample_rate:
            waiting = 0
            yield from held.pieces(last=False)
    yield from held.pieces(last=True)


def _resampled(
    blocks: Iterable[np.ndarray], source_rate: int, sample_rate: int, channel: int | None
) -> Iterator[np.ndarray]:
    check_rate(source_rate, "audio stream")
    resampler = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality=RESAMPLER)
    at = 0  # samples so far
    for block in blocks:
        mono = to_mono(block, source_rate, "audio stream", channel, at)
        at += len(mono)
        if len(mono) and len(found := resampler.resample_chunk(mono)):
            yield found
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


@dataclass
class _Held:
    """The audio that is not in a finished piece yet, with some context before it."""

    sample_rate: int
    longest: int  # samples
    voice_activity: bool
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    start: int = 0  # position of samples[0] in the stream
    done: int = 0  # samples that are context only
    shown: int | None = None  # where the unfinished piece begins that was yielded last

    def pieces(self, last: bool) -> Iterator[LivePiece]:
        """The pieces that are known now: the finished ones, then the unfinished one."""
        frame = max(1, int(FRAME * self.sample_rate))
        margin = round(AROUND / FRAME)
        pause = round(SEPARATE / FRAME)
        context = round(CONTEXT / FRAME) * frame
        while len(self.samples) > self.done:
            energy = mean_squares(self.samples, frame)
            speech = energy > 10 ** ((FAINT_DB if self.voice_activity else SILENCE_DB) / 10)
            if self.voice_activity:
                speech &= is_speech(speech_probabilities(self.samples, self.sample_rate))
            speech[: -(-self.done // frame)] = False
            voiced = np.flatnonzero(speech)
            if not len(voiced):
                if self.shown is not None:  # later samples showed that this piece is not speech
                    yield self._piece(self.shown, self.shown, True)
                # The last samples are kept: a word can begin there before the detector finds speech.
                return self._drop(max(self.done, len(self.samples) - context))
            first = max(self.done, (int(voiced[0]) - margin) * frame)
            gaps = np.flatnonzero(np.diff(voiced) > pause)
            end = int(voiced[gaps[0]] if len(gaps) else voiced[-1]) + 1
            # Only speech counts for this length. A margin or a pause that goes beyond the limit is shortened.
            limit = min(len(self.samples), first + self.longest)
            if end * frame > first + self.longest:
                mask = np.repeat(speech, frame)[: len(self.samples)]
                stop = first + best_cut((self.samples * mask)[first:limit], self.sample_rate)
                yield self._piece(first, stop, True)
            elif len(gaps) or last or len(speech) - end > pause:
                stop = min((end + margin) * frame, limit)
                yield self._piece(first, stop, True)
            else:
                yield self._piece(first, limit, False)
                return
            self._drop(stop)

    def _piece(self, first: int, stop: int, final: bool) -> LivePiece:
        self.shown = None if final else first
        return LivePiece((self.start + first) / self.sample_rate, self.samples[first:stop].copy(), final)

    def _drop(self, stop: int) -> None:
        """Samples before `stop` become context, and older ones are dropped."""
        frame = max(1, int(FRAME * self.sample_rate))
        context = round(CONTEXT / FRAME) * frame
        self.done = stop
        old = max(0, (self.done - context) // frame * frame)
        self.samples, self.start, self.done = self.samples[old:], self.start + old, self.done - old
