"""Reads any audio as mono float32 at the sample rate of a model, as a whole or block by block.

soundfile decodes (wav, flac, ogg, opus, mp3, aiff, NIST sphere, ...), PyAV decodes containers with video or
AAC, and soxr resamples with a band-limited filter. Nothing here goes through a system ffmpeg, and torch is
not needed.
"""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, groupby, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from asr.audio.archive import is_member, read_member
from asr.audio.containers import find_streams
from asr.audio.pyav import ContainerSound
from asr.audio.quiet import quiet_c_stderr
from asr.audio.samples import (
    LARGEST_DECODED,
    LARGEST_FLOAT,
    RESAMPLER,
    SAMPLE_RATE,
    beyond_the_end,
    check_rate,
    check_samples,
    check_times,
    one_channel,
    scale_for,
)
from asr.audio.stream import Stream, StreamReader, truncated
from asr.errors import AsrError
from asr.files import printable

Source = str | os.PathLike[str] | bytes | BinaryIO

_FLOATS = ("FLOAT", "DOUBLE")  # encodings that can hold samples outside [-1, 1]
_BLOCK = 1 << 18  # frames decoded at a time; this limits memory for files of many channels
_UNKNOWN = 1 << 62  # libsndfile gives 2**63 - 1 frames for a FLAC stream that does not know its length
# The data of an MP3 frame can begin 511 bytes before the frame. That can be many small frames.
_MP3_WARM_UP = 32 * 1152


def read(
    source: Source,
    sample_rate: int = SAMPLE_RATE,
    start: float = 0.0,
    duration: float | None = None,
    name: str | None = None,
    channel: int | None = None,
) -> np.ndarray:
    """The samples of `source` from `start` for `duration` seconds: float32 (samples,), nominally in [-1, 1].

    `source` is a path, the bytes of a file, or an open binary file, which is read from its beginning.
    Messages call it `name`. Channels are mixed by their mean, unless `channel`, from 0, chooses one.
    Concatenated streams are read one after the other, each resampled from its own rate. If `duration` goes
    beyond the end, the result is shorter. Audio after the requested part is not decoded, so damage there is
    not found. Float files with 16-bit values are scaled, with a UserWarning (see `from_array`).

    Raises AsrError when the source is missing, unreadable, empty, not audio, truncated, damaged, or has
    impossible samples or an impossible rate, and for a `start` at or beyond the end.
    """
    check_rate(sample_rate, "requested sample rate")
    with _opened(source, name) as file:
        resampled, peak = [], 0.0
        for (_, rate), blocks in groupby(
            _decode(file, start, duration, None, channel), lambda b: (b.stream, b.rate)
        ):
            pieces = []
            for block in blocks:
                pieces.append(block.mono)
                peak = max(peak, block.peak)
            resampled.append(soxr.resample(np.concatenate(pieces), rate, sample_rate, RESAMPLER))
    samples = np.concatenate(resampled) if len(resampled) > 1 else resampled[0]
    if not len(samples):
        raise _too_short(file.name, sample_rate)
    scale = scale_for(peak, file.name)
    return samples if scale == 1 else samples * np.float32(scale)


def blocks(
    source: Source,
    sample_rate: int = SAMPLE_RATE,
    seconds: float = 30.0,
    start: float = 0.0,
    duration: float | None = None,
    name: str | None = None,
    channel: int | None = None,
) -> Iterator[np.ndarray]:
    """Audio of any length in float32 blocks (samples,) of about `seconds`; joined they equal `read`.

    Memory holds a few blocks (and all of a pipe). A file of floats that is longer than a block is read twice,
    because the peak of the whole file decides how the first block is scaled. Raises AsrError as `read` does,
    for some defects only when their block is reached.
    """
    check_rate(sample_rate, "requested sample rate")
    if not (math.isfinite(seconds) and seconds > 0):
        raise AsrError(f"blocks of {seconds} seconds are impossible; give a length above 0")
    with _opened(source, name) as file:
        decoded, peak = _with_peak(file, start, duration, seconds, channel)
        scale, empty = scale_for(peak, file.name), True
        for (_, rate), parts in groupby(decoded, lambda b: (b.stream, b.rate)):
            resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality=RESAMPLER)
            for part in parts:
                if len(block := resampler.resample_chunk(part.mono)):
                    yield block * np.float32(scale)
                    empty = False
            if len(block := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
                yield block * np.float32(scale)  # what the filter still held
                empty = False
        if empty:
            raise _too_short(file.name, sample_rate)


def duration(source: Source, name: str | None = None) -> float:
    """Length in seconds, from the headers.

    FLAC streams of unknown length and all containers are decoded, and their samples are counted, because
    their headers do not tell the length in all cases. Raises AsrError as `read` does, but only for problems
    that can be found without decoding: a truncated file is found, but damage inside a file is not.
    """
    with _opened(source, name) as file:
        total = 0.0
        for stream in file.streams:
            with _decoder(file, stream) as sound:
                check_rate(sound.samplerate, file.name)
                frames = int(sound.frames)
                if frames >= _UNKNOWN:
                    frames = _skip(file, sound, frames)  # to the end
                elif frames and sound.format == "FLAC":
                    # The header does not show whether the file is truncated, so the last frame is read.
                    _skip(file, sound, frames - 1)
                    if _read(file, sound, 1, frames - 1).shape[0] == 0:
                        raise truncated(file.name, f"fewer samples than the {frames} of the FLAC header")
                total += frames / sound.samplerate
        if not total:
            raise _empty(file.name)
        return total


def channels(source: Source, name: str | None = None) -> int:
    """The number of channels, the largest of its streams. Raises AsrError as `duration` does."""
    with _opened(source, name) as file:
        found = 0
        for stream in file.streams:
            with _decoder(file, stream) as sound:
                found = max(found, sound.channels)
        return found


def sample_rate(source: Source, name: str | None = None) -> int:
    """The sample rate in Hz of its first stream. Raises AsrError as `duration` does."""
    with _opened(source, name) as file, _decoder(file, file.streams[0]) as sound:
        check_rate(sound.samplerate, file.name)
        return int(sound.samplerate)


class _File(NamedTuple):
    """An open source, the streams in it, and what to call it in messages."""

    raw: BinaryIO
    streams: list[Stream]
    name: str


class _Block(NamedTuple):
    """Decoded audio: float32 (samples,), the number and the rate of its stream, the peak if floats."""

    mono: np.ndarray
    stream: int
    rate: int
    peak: float


class _ForwardSound(soundfile.SoundFile):
    """A stream that is read from front to back, without soundfile's own seek after each read.

    That seek spoils the next 0.2 s of an MP3, and fails in a FLAC that does not know its length.
    """

    def seekable(self) -> bool:
        return False

    def can_seek(self) -> bool:
        return super().seekable()


@contextmanager
def _opened(source: Source, name: str | None) -> Iterator[_File]:
    """The source as a file object that can seek, with its streams."""
    if isinstance(source, bytes | bytearray | memoryview):
        name = printable(name or "audio data")
        yield _with_streams(io.BytesIO(source), name)
    elif isinstance(source, str | os.PathLike):
        name = printable(name or source)
        with _open_path(Path(source), name) as raw:
            yield _with_streams(raw, name)
    elif callable(getattr(source, "read", None)):
        label = getattr(source, "name", None)
        name = printable(name or (label if isinstance(label, str) else "audio data"))
        can_seek = callable(getattr(source, "seekable", None)) and source.seekable()
        yield _with_streams(source if can_seek else io.BytesIO(_all_bytes(source, name)), name)
    else:
        raise AsrError(
            f"audio cannot be of the type {type(source).__name__}; give a path, bytes or an open binary file"
        )


def _open_path(path: Path, name: str) -> BinaryIO:
    """An open file. A pipe is read into memory, once and for all."""
    if is_member(path):
        return io.BytesIO(read_member(path))
    try:
        raw = path.open("rb")
        mode = os.fstat(raw.fileno()).st_mode
        if stat.S_ISREG(mode):
            return raw
        with raw:
            if stat.S_ISFIFO(mode):
                return io.BytesIO(_all_bytes(raw, name))
        raise AsrError(f"{name}: not a regular file; save the audio to a file first")
    except IsADirectoryError:
        raise AsrError(f"{name}: a folder, not an audio file; name a file in it") from None
    except FileNotFoundError:
        raise AsrError(f"{name}: no such file; check the path") from None
    except OSError as error:
        raise AsrError(f"{name}: cannot be opened ({error.strerror}); check its permissions") from None
    except ValueError:  # a zero byte in the path
        raise AsrError(f"{name}: impossible file name; check the path") from None


def _all_bytes(raw: BinaryIO, name: str) -> bytes:
    data = raw.read()
    if not isinstance(data, bytes):
        raise AsrError(f"{name}: opened as text; open audio in binary mode, with open(path, 'rb')")
    return data


def _with_streams(raw: BinaryIO, name: str) -> _File:
    try:
        raw.seek(0)
        if not isinstance(raw.read(0), bytes):
            raise AsrError(f"{name}: opened as text; open audio in binary mode, with open(path, 'rb')")
        size = raw.seek(0, os.SEEK_END)
        if not size:
            raise AsrError(f"{name}: empty file (0 bytes); copy or record it again")
        return _File(raw, find_streams(raw, size, name), name)
    except OSError as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: OSError) -> AsrError:
    return AsrError(f"{name}: cannot be read ({error.strerror or error}); check the disk or the network")


def _empty(name: str) -> AsrError:
    return AsrError(f"{name}: the file has no audio (0 samples); leave it out or record it again")


def _too_short(name: str, sample_rate: int) -> AsrError:
    return AsrError(f"{name}: shorter than one sample at {sample_rate} Hz; leave it out")


def _decoder(file: _File, stream: Stream) -> _ForwardSound | ContainerSound:
    """The decoder for one stream. Raises AsrError when it does not know the encoding."""
    reader = StreamReader(file.raw, stream)
    try:
        with quiet_c_stderr():
            if stream.container:
                return ContainerSound(reader, stream.container, file.name)
            sound = _ForwardSound(reader)
    except (soundfile.SoundFileError, TypeError, OSError) as error:  # TypeError: raw samples without header
        if reader.error:
            raise _unreadable(file.name, reader.error) from None
        detail = getattr(error, "error_string", "no header").rstrip(".")
        raise AsrError(
            f"{file.name}: not an audio file that can be read ({detail}); convert it to wav or flac"
        ) from None
    if sound.frames < stream.least:
        sound.close()
        raise AsrError(f"{file.name}: the MPEG audio cannot be read to its end; convert it to wav or flac")
    return sound


def _with_peak(
    file: _File, start: float, duration: float | None, seconds: float, channel: int | None
) -> tuple[Iterator[_Block], float]:
    """The blocks of `_decode`, and the peak of all if there are floats among them."""
    decoded = _decode(file, start, duration, seconds, channel)
    begin = list(islice(decoded, 2))
    if len(begin) == 1 or not _has_floats(file):
        return chain(begin, decoded), begin[0].peak
    peak = max(block.peak for block in chain(begin, decoded))
    return _decode(file, start, duration, seconds, channel), peak


def _has_floats(file: _File) -> bool:
    for stream in file.streams:
        if not stream.container:
            with _decoder(file, stream) as sound:
                if sound.subtype in _FLOATS:
                    return True
    return False


def _decode(
    file: _File, start: float, seconds: float | None, block_seconds: float | None, channel: int | None
) -> Iterator[_Block]:
    """Blocks of one stream after the other, at its own rate, mixed to one channel and checked."""
    name = file.name
    check_times(start, seconds, name)
    offset, remaining, found = 0.0, seconds, False  # offset: where the stream begins, in seconds
    for number, stream in enumerate(file.streams):
        with _decoder(file, stream) as sound:
            rate = sound.samplerate
            check_rate(rate, name)
            frames = int(sound.frames)
            known = frames < _UNKNOWN  # if not, the stream ends where its decoder finds no more samples
            first, before = max(0, round((start - offset) * rate)), round(offset * rate)
            left = frames - first
            if remaining is not None:
                left = min(left, round(remaining * rate) if found else max(1, round(remaining * rate)))
            if known:
                offset += frames / rate
            if left <= 0:
                continue
            size = _BLOCK
            if block_seconds is not None:
                size = max(1, round(min(block_seconds, left / rate) * rate))
            floats = sound.subtype in _FLOATS
            largest = LARGEST_FLOAT if floats else LARGEST_DECODED
            at = skipped = _skip(file, sound, first)  # in the stream
            while left:
                place = before + at  # in the whole file, for messages
                samples = _read(file, sound, min(size, left), place)
                if not len(samples):
                    if not known:
                        break
                    raise truncated(name, f"{place / rate:.2f} s of audio where {offset:.2f} s are promised")
                found = True
                peak = check_samples(samples, name, place, rate, largest)
                yield _Block(one_channel(samples, channel, name), number, rate, peak if floats else 0.0)
                left -= len(samples)
                at += len(samples)
            if remaining is not None:
                remaining -= (at - skipped) / rate
            if not known:
                offset += at / rate
    if not offset:
        raise _empty(name)
    if not found:
        raise beyond_the_end(start, offset, name)


def _read(file: _File, sound: _ForwardSound | ContainerSound, frames: int, at: int) -> np.ndarray:
    """The next frames: float32 (frames, channels). `at` is their position, for messages."""
    try:
        with quiet_c_stderr():
            samples = sound.read(frames, dtype="float32", always_2d=True)
    except soundfile.SoundFileError:
        samples = None
    if error := sound.name.error:
        raise _unreadable(file.name, error)
    if samples is None:
        second = at / sound.samplerate
        raise AsrError(f"{file.name}: damaged or truncated at {second:.2f} s or later; copy it again")
    return samples


def _skip(file: _File, sound: _ForwardSound | ContainerSound, frames: int) -> int:
    """Go to a frame: jump where the format allows it, and decode the rest of the way.

    Returns the frame that was reached: an earlier one if the stream ends there.
    """
    at = 0
    try:
        with quiet_c_stderr():
            if isinstance(sound, ContainerSound):
                at = sound.jump(frames) if frames < _UNKNOWN else 0
            elif frames and sound.frames < _UNKNOWN and sound.can_seek():
                at = max(0, frames - _MP3_WARM_UP) if sound.format == "MP3" else frames
                sound.seek(at)
    except soundfile.SoundFileError:
        second = frames / sound.samplerate
        raise AsrError(f"{file.name}: damaged or truncated before {second:.2f} s; copy it again") from None
    while at < frames and len(block := _read(file, sound, min(frames - at, _BLOCK), at)):
        at += len(block)
    return at
