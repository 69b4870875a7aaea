"""A stream: a range of bytes that soundfile can decode on its own. One file holds one or several.

Chained Ogg files, concatenated FLAC, MP3 and WAV files hold several. libsndfile would read only the first
stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from asr.errors import AsrError


@dataclass(frozen=True)
class Stream:
    """Where the bytes of one stream are, and which bytes are added or replaced for libsndfile."""

    start: int  # bytes
    stop: int
    prefix: bytes = b""  # read before the first byte
    patches: tuple[tuple[int, bytes], ...] = ()  # (offset in the file, bytes to read there)
    least: int = 0  # samples of each channel that the stream must have, where its frames were counted
    container: str = ""  # the name of a format that PyAV decodes, not libsndfile


class StreamReader:
    """The bytes of one stream as a file object for soundfile: `read`, `seek` and `tell`."""

    def __init__(self, file: BinaryIO, stream: Stream) -> None:
        self._file, self._stream, self._at = file, stream, 0
        self._size = len(stream.prefix) + stream.stop - stream.start
        self.error: OSError | None = None  # why bytes could not be read

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        size = max(0, self._size - self._at if size < 0 else min(size, self._size - self._at))
        prefix = self._stream.prefix[self._at : self._at + size]
        place = self._stream.start + max(0, self._at - len(self._stream.prefix))
        try:
            self._file.seek(place)
            data = self._file.read(size - len(prefix))
        except OSError as error:  # an exception cannot pass through libsndfile
            self.error, data = error, b""
        for offset, patch in self._stream.patches:
            first, last = max(offset, place), min(offset + len(patch), place + len(data))
            if first < last:
                inside = patch[first - offset : last - offset]
                data = data[: first - place] + inside + data[last - place :]
        self._at += len(prefix) + len(data)
        return prefix + data


def damaged(name: str, where: str) -> AsrError:
    return AsrError(f"{name}: damaged {where}; copy it again, or convert the part that can be read")


def truncated(name: str, detail: str) -> AsrError:
    return AsrError(f"{name}: truncated: {detail}; copy it again, or convert the part that can be read")
