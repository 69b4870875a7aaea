"""Containers that libsndfile does not read (mp4, webm, ...), decoded by PyAV (the extra `containers`).

PyAV's wheels carry the decoders; nothing is installed on the system.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from asr.audio.stream import StreamReader
from asr.errors import AsrError

_SLACK = 0.08  # seconds that may be missing at the end: two frames of AAC
_GAP = 0.05  # seconds; shorter gaps are rounded times, and frames that an encoder puts before the sound
_LONGEST_GAP = 3600.0  # seconds; a larger jump means that a time is damaged
_ZEROS = 1 << 18  # samples that fill a gap, at a time
_WITH_TIMES = ("mov", "matroska")  # demuxers of formats that store the time of each packet
_FAR = 10.0  # seconds; a shorter way to a part is decoded
_WARM_UP = 1.0  # seconds that are decoded before a part, because decoders need the packets before it
_WITHOUT_LENGTH = ("aac", "amr", "amrnb", "amrwb", "shn", "voc")  # demuxers of formats that store no length


class ContainerSound:
    """The first audio track. It has the methods of soundfile's SoundFile that `reading` needs."""

    format, subtype = "CONTAINER", "CONTAINER"

    def __init__(self, reader: StreamReader, format: str, name: str) -> None:
        """Raises AsrError for data that cannot be decoded, and OSError if the reader has raised it."""
        try:
            import av
        except ImportError:
            raise AsrError(
                f"{name}: {format} needs PyAV; install it with: pip install av, or convert "
                "the file to wav or flac"
            ) from None
        self._failures = (av.FFmpegError, ValueError, OverflowError)
        try:
            container: Any = av.open(reader)
            self._container = container
            if not self._container.streams.audio:
                raise AsrError(f"{name}: the {format} has no audio track; leave this file out")
            self._track = self._container.streams.audio[0]
            self._promised = self._stored_length()
            self._reached = 0.0  # seconds, by the packets of all tracks
            # The padding of an encoder before the sound has times below 0. The stored length includes it.
            self._begin = max(0.0, (container.start_time or 0) / 1e6)
            self._first = 0  # the frame that the decoder began with
            self._resampler = av.AudioResampler
            self._blocks = self._decoded()
            self._rest = next(self._blocks, np.zeros((0, 1), np.float32))
        except self._failures as error:
            if reader.error:
                raise reader.error from None
            raise AsrError(
                f"{name}: the {format} cannot be read ({error}); convert it to wav or flac"
            ) from None
        self.channels = self._rest.shape[1]
        self.frames = 1 << 62  # unknown: the length in the header counts padding too
        self.name = reader  # as in a SoundFile, what it reads from

    def __enter__(self) -> ContainerSound:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next samples: float32 (frames, channels), fewer at the end.

        Raises SoundFileError for damaged data, and where the track ends earlier than its header says.
        """
        parts, missing = [], frames
        try:
            while missing:
                if not len(self._rest):
                    block = next(self._blocks, None)
                    if block is None:
                        break
                    self._rest = block
                parts.append(self._rest[:missing])
                missing -= len(parts[-1])
                self._rest = self._rest[len(parts[-1]) :]
        except self._failures as error:
            raise soundfile.SoundFileError(str(error)) from None
        if missing and self._reached < self._promised - _SLACK:
            raise soundfile.SoundFileError("shorter than its header says")
        return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)

    def jump(self, frames: int) -> int:
        """Go to a frame that is at most `frames`, near it, and before any other read. Returns this frame.

        It is 0 where the way is short, and in formats whose packets have no times. Times in Matroska and WebM
        are rounded to 1 ms, so the frame can be wrong by so much there.
        """
        seconds = frames / self.samplerate - _WARM_UP
        if seconds < _FAR or not any(name in self._container.format.name for name in _WITH_TIMES):
            return 0
        try:
            self._container.seek(int((seconds + self._begin) / self._track.time_base), stream=self._track)
            self._blocks = self._decoded(frames)
            self._rest = next(self._blocks, np.zeros((0, 1), np.float32))
        except self._failures as error:
            raise soundfile.SoundFileError(str(error)) from None
        return self._first

    def _stored_length(self) -> float:
        """Seconds of the longest track; 0 if no length is stored, because ffmpeg then guesses one."""
        format = self._container.format.name
        # Matroska stores one length for the file. A track has one only if it was guessed.
        guessed = format in _WITHOUT_LENGTH or ("matroska" in format and self._track.duration is not None)
        return 0.0 if guessed else (self._container.duration or 0) / 1e6

    def _decoded(self, target: int = 0) -> Iterator[np.ndarray]:
        """Samples (frames, channels) of one packet after the other, all at the rate of the first one.

        Zeros fill the gaps of the track: before a late beginning, and where its times jump. After a
        jump towards the frame `target`, the time of the first packet tells which frame it has. If it is a
        later one, zeros fill the gap from `target` on.
        """
        resampler = None
        done = 0  # samples so far
        first = (self._container.start_time or 0) / 1e6
        for packet in self._container.demux():
            if packet.pts is not None:
                first = min(first, float(packet.pts * packet.time_base))
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self._reached = max(self._reached, end - first)
            for frame in packet.decode() if packet.stream is self._track else ():
                if resampler is None:
                    self.samplerate: int = frame.sample_rate
                    resampler = self._resampler("fltp", frame.layout, frame.sample_rate)
                    if target and frame.time is not None:
                        found = round((frame.time - self._begin) * frame.sample_rate)
                        done = self._first = min(found, target)
                at = 0.0 if frame.time is None else frame.time - self._begin
                missing = at - done / self.samplerate
                if missing > _LONGEST_GAP:
                    raise ValueError(f"a gap of {missing:.0f} s")
                left = round(missing * self.samplerate) if missing > _GAP else 0
                done += left
                while left:
                    zeros = np.zeros((min(_ZEROS, left), len(frame.layout.channels)), np.float32)
                    left -= len(zeros)
                    yield zeros
                for part in resampler.resample(frame):
                    done += part.samples
                    yield part.to_ndarray().T
        if resampler is None:
            self.samplerate = self._track.rate or 1
