"""Containers that libsndfile does not read (mp4, webm, ...), decoded by PyAV (the extra `containers`).

PyAV's wheels carry the decoders; nothing is installed on the system.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import soundfile

from asr.errors import AsrError

_SLACK = 0.08  # seconds that may be missing at the end: two frames of AAC


class ContainerSound:
    """The first audio track, with the part of the interface of soundfile's SoundFile that reading needs."""

    format, subtype = "CONTAINER", "CONTAINER"
    error: OSError | None = None

    def __init__(self, raw: BinaryIO, format: str, name: str) -> None:
        try:
            import av
        except ImportError:
            raise AsrError(
                f"{name}: {format} needs PyAV; install it with: pip install 'asr[containers]', or convert "
                "the file to wav or flac"
            ) from None
        self._failures = (av.FFmpegError, ValueError, OverflowError)
        try:
            raw.seek(0)
            container: Any = av.open(raw)
            self._container = container
            if not self._container.streams.audio:
                raise AsrError(f"{name}: {format} without an audio track; leave it out")
            self._track = self._container.streams.audio[0]
            self._promised = (self._container.duration or 0) / 1e6  # of the longest track; 0 if unknown
            self._reached = 0.0  # seconds, by the packets of all tracks
            self._blocks = self._decoded(av)
            self._rest = next(self._blocks, np.zeros((0, 1), np.float32))
        except self._failures as error:
            raise AsrError(
                f"{name}: {format} that cannot be read ({error}); convert it to wav or flac"
            ) from None
        self.channels = self._rest.shape[1]
        self.frames = 1 << 62  # unknown: the length in the header counts padding too
        self.name = self

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

    def _decoded(self, av: Any) -> Iterator[np.ndarray]:
        """Samples (frames, channels) of one packet after the other, all at the rate of the first one."""
        resampler = None
        begin = (self._container.start_time or 0) / 1e6
        for packet in self._container.demux():
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self._reached = max(self._reached, end - begin)
            for frame in packet.decode() if packet.stream is self._track else ():
                if resampler is None:
                    self.samplerate: int = frame.sample_rate
                    resampler = av.AudioResampler("fltp", frame.layout, frame.sample_rate)
                for found in resampler.resample(frame):
                    yield found.to_ndarray().T
        if resampler is None:
            self.samplerate = self._track.rate or 1
