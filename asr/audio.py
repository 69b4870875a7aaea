"""Any audio file or array to mono float32 at the rate a model wants, whole or block by block.

soundfile decodes (wav, flac, ogg, opus, mp3, aiff, NIST sphere, ...), soxr resamples with a band-limited
filter. Nothing here goes through a system ffmpeg, and torch is not needed.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from asr.errors import AsrError
from asr.files import atomic_write

SAMPLE_RATE = 16000  # Hz: what the models of this package hear unless their configuration says otherwise
EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".sph")

_QUALITY = "HQ"  # soxr's 20-bit filter: aliases stay below the noise of 16-bit audio
_BLOCK = 1 << 18  # frames decoded at a time; bounds memory for files of many channels
_UNKNOWN = 1 << 62  # libsndfile gives 2**63 - 1 frames for a FLAC stream that does not know its length
# What libsndfile notes in its log when it mends a length that lies beyond the end of the file.
_MENDED = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")
_SLACK = 64  # bytes: some writers count the header into the size of the data
_FOREIGN = {  # formats that libsndfile does not read, by (position, first bytes)
    "MP4/M4A (AAC)": (4, b"ftyp"),
    "Matroska/WebM": (0, b"\x1aE\xdf\xa3"),
    "WMA": (0, b"0&\xb2u"),
    "AMR": (0, b"#!AMR"),
    "AAC": (0, b"\xff\xf1"),
}
_WRITERS = {  # ending: container, encoding
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "OPUS"),
    ".opus": ("OGG", "OPUS"),
}


def read(
    path: str | os.PathLike[str],
    sample_rate: int = SAMPLE_RATE,
    start: float = 0.0,
    duration: float | None = None,
) -> np.ndarray:
    """The samples of a file from `start` for `duration` seconds: float32 (samples,), nominally in [-1, 1].

    Channels are mixed by their mean. A `duration` beyond the end gives what there is. Raises AsrError naming
    the file when it is missing, unreadable, empty, not audio, truncated or holds NaN, and for a `start`
    at or beyond the end. An MP3 is as long as its header says, without a check: two of them glued together
    end after the first.
    """
    _check_rate(sample_rate)
    with _open(Path(path)) as file:
        pieces = list(_mono(file, Path(path), _BLOCK, start, duration))
        source_rate = file.samplerate
    samples = soxr.resample(np.concatenate(pieces), source_rate, sample_rate, _QUALITY)
    if not len(samples):
        raise AsrError(f"{path}: shorter than one sample at {sample_rate} Hz; leave it out")
    return samples


def blocks(
    path: str | os.PathLike[str], sample_rate: int = SAMPLE_RATE, seconds: float = 30.0
) -> Iterator[np.ndarray]:
    """A file of any length in float32 blocks (samples,) of about `seconds`; joined they equal `read`.

    Memory stays within a few blocks. Raises AsrError as `read` does, in the middle for what shows only there.
    """
    _check_rate(sample_rate)
    if not (math.isfinite(seconds) and seconds > 0):
        raise AsrError(f"blocks of {seconds} seconds cannot be cut; give a length above 0")
    path = Path(path)
    with _open(path) as file:
        stream = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32", quality=_QUALITY)
        size = max(1, round(seconds * file.samplerate))
        for mono in _mono(file, path, size):
            if len(block := stream.resample_chunk(mono)):
                yield block
        if len(block := stream.resample_chunk(np.zeros(0, np.float32), last=True)):
            yield block  # what the filter still held


def from_array(samples: np.ndarray, source_rate: int, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """An array (samples,) or (samples, channels) as `read` gives it: float32 (samples,) at `sample_rate`.

    Floats are taken as they are; int16, int32 and uint8 are scaled to [-1, 1]. Raises AsrError for another
    type or shape, no samples, or NaN.
    """
    _check_rate(source_rate)
    _check_rate(sample_rate)
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= 64):
        raise AsrError(f"audio array has shape {samples.shape}; give (samples,) or (samples, channels)")
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype in (np.int16, np.int32):
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise AsrError(f"audio array has type {samples.dtype}; give float, int16, int32 or uint8")
    samples = _mix(samples.astype(np.float32))
    if not len(samples):
        raise AsrError("audio array has no samples; give at least one")
    _check_finite(samples, "audio array", 0, source_rate)
    return soxr.resample(samples, source_rate, sample_rate, _QUALITY)


def duration(path: str | os.PathLike[str]) -> float:
    """Length of a file in seconds, from its header; a stream that does not say is decoded and counted.

    Raises AsrError as `read` does for what shows without decoding (a truncated wav, aiff, au or flac does).
    """
    path = Path(path)
    with _open(path) as file:
        frames = file.frames
        if frames > _UNKNOWN:
            frames = sum(len(block) for block in _mono(file, path, _BLOCK))
        elif file.format == "FLAC":  # its header outlives truncation, but then its last frame is not there
            for _ in _mono(file, path, 1, start=(frames - 1) / file.samplerate):
                pass
        return frames / file.samplerate


def write(path: str | os.PathLike[str], samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write floats (samples,) or (samples, channels) atomically; PCM clips what is beyond [-1, 1].

    The ending chooses the format: .wav and .flac hold 16-bit PCM, .ogg and .opus hold Opus (which knows
    8, 12, 16, 24 and 48 kHz only). Raises AsrError for another ending or rate, NaN, or a file that cannot be
    written.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise AsrError(f"{path}: cannot write {path.suffix!r} audio; name it {', '.join(_WRITERS)}")
    samples = np.asarray(samples, dtype=np.float32)
    _check_finite(samples, str(path), 0, sample_rate)
    form, subtype = _WRITERS[path.suffix.lower()]
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    encoded = io.BytesIO()
    try:
        with soundfile.SoundFile(encoded, "w", sample_rate, channels, subtype, format=form) as file:
            # In pieces: libsndfile's ogg writer overflows its stack on a long array.
            for at in range(0, len(samples), _BLOCK):
                file.write(samples[at : at + _BLOCK])
    except (soundfile.SoundFileError, ValueError) as error:
        raise AsrError(f"{path}: cannot be written as {subtype} at {sample_rate} Hz ({error})") from None
    with atomic_write(path, "wb") as out:
        out.write(encoded.getbuffer())


class _Stream(soundfile.SoundFile):
    """A file read from front to back without soundfile's own seek after each read.

    That seek spoils the next 0.2 s of an MP3 and fails in a FLAC that does not know its length.
    """

    def seekable(self) -> bool:
        return False


def _open(path: Path) -> soundfile.SoundFile:
    """The opened file, which has at least one frame and all the bytes that its header promises."""
    try:
        if path.is_dir():
            raise AsrError(f"{path}: a folder, not an audio file; name a file in it")
        if path.exists() and not path.is_file():
            raise AsrError(f"{path}: not a regular file; save the audio to a file first")
        with path.open("rb") as raw:
            head = raw.read(12)
    except FileNotFoundError:
        raise AsrError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise AsrError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from None
    if not head:
        raise AsrError(f"{path}: empty file (0 bytes); copy or record it again")
    try:
        file = _Stream(os.fsencode(path))
        if file.frames == 0 and head[:4] == b"RIFF" and (image := _unsized_wav(path)):
            file = _Stream(image)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: raw samples without a header
        for name, (at, magic) in _FOREIGN.items():
            if head[at:].startswith(magic):
                raise AsrError(f"{path}: {name} cannot be read; convert it to wav or flac first") from None
        detail = getattr(error, "error_string", "no header").rstrip(".")
        raise AsrError(
            f"{path}: not an audio file that can be read ({detail}); check it, or convert it to wav or flac"
        ) from None
    if file.frames == 0:
        file.close()
        raise AsrError(f"{path}: no audio in it (0 samples); leave it out or record it again")
    for promised, there in _MENDED.findall(file.extra_info):
        # A length of nearly 2**31 (sox) or 2**32 (others) was written before it was known.
        if int(there) + _SLACK < int(promised) < 0x7FFF0000:
            file.close()
            raise AsrError(
                f"{path}: truncated: {there} bytes of audio where the header promises {promised}; "
                "copy it again, or convert what is there"
            )
    return file


def _unsized_wav(path: Path) -> mmap.mmap | None:
    """A wav whose writer streamed it and left 0 as the size of its data, with the size that it has.

    None for a wav that is empty indeed. The change is in memory only, page by page (copy on write).
    """
    with path.open("rb") as raw:
        image = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_COPY)
    at = image.find(b"data", 12, 4096)
    if at < 0 or at + 8 >= len(image) or int.from_bytes(image[4:8], "little") + 8 >= len(image):
        return None
    image[at + 4 : at + 8] = min(len(image) - at - 8, 0xFFFFFFFF).to_bytes(4, "little")
    return image


def _mono(
    file: soundfile.SoundFile, path: Path, size: int, start: float = 0.0, seconds: float | None = None
) -> Iterator[np.ndarray]:
    """Blocks of up to `size` frames at the file's own rate, mixed to one channel and checked."""
    rate = file.samplerate
    if not (math.isfinite(start) and start >= 0 and (seconds is None or seconds > 0)):
        raise AsrError(f"{path}: start {start} s, duration {seconds} s: impossible; give times from 0 up")
    first = round(start * rate)
    if first >= file.frames:
        length = file.frames / rate
        raise AsrError(f"{path}: start {start:g} s is beyond the end ({length:g} s); check the times")
    left = file.frames - first
    if seconds is not None:
        left = min(left, max(1, round(seconds * rate)))
    at = first
    try:
        _skip(file, first)
        while left and len(block := file.read(min(size, left), dtype="float32", always_2d=True)):
            mono = _mix(block)
            _check_finite(mono, str(path), at, rate)
            yield mono
            left -= len(block)
            at += len(block)
    except soundfile.SoundFileError:
        raise AsrError(f"{path}: damaged or truncated after {at / rate:.2f} s; copy it again") from None
    if at == first:
        raise AsrError(f"{path}: no audio at {start:g} s; check the times and the file")
    if 0 < left < _UNKNOWN and file.format != "MP3" and file.frames < _UNKNOWN:
        raise AsrError(f"{path}: truncated after {at / rate:.2f} s; copy it again, or convert what is there")


def _skip(file: soundfile.SoundFile, frames: int) -> None:
    """Go to a frame, by decoding where one cannot jump: in a stream, and just before the frame in an MP3."""
    if file.frames < _UNKNOWN:
        # The bits of an MP3 frame may begin 511 bytes before it: many frames, where each has few bytes.
        jump = max(0, frames - 32 * 1152) if file.format == "MP3" else frames
        file.seek(jump)
        frames -= jump
    while frames > 0 and (passed := len(file.read(min(frames, _BLOCK), dtype="float32", always_2d=True))):
        frames -= passed


def _mix(samples: np.ndarray) -> np.ndarray:
    """(samples,) or (samples, channels) -> (samples,), contiguous."""
    if samples.ndim == 1:
        return np.ascontiguousarray(samples)
    if samples.shape[1] == 1:
        return samples[:, 0].copy()
    with np.errstate(over="ignore", invalid="ignore"):  # infinities get their own message from the caller
        return samples.mean(axis=1, dtype=np.float32)


def _check_finite(samples: np.ndarray, name: str, at: int, rate: int) -> None:
    if not np.isfinite(samples).all():
        second = (at + int(np.argwhere(~np.isfinite(samples))[0][0])) / rate
        raise AsrError(f"{name}: NaN or infinite sample at {second:.3f} s; mend or leave out this audio")


def _check_rate(rate: int) -> None:
    if not (math.isfinite(rate) and rate > 0):
        raise AsrError(f"a sample rate of {rate} Hz is impossible; give one above 0, such as {SAMPLE_RATE}")
