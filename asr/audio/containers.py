"""Detects the format of a file, and checks that the file is as long as its header says.

libsndfile reads a truncated file as if it were complete. So the sizes in the headers are first compared with
the size of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

from asr.audio.mpeg import id3_length, mpeg_streams
from asr.audio.ogg import ogg_streams
from asr.audio.stream import Stream, truncated
from asr.errors import AsrError

# Sizes of this value or more are placeholders, written before the length was known (sox: about 2**31, others:
# 2**32 - 1).
_UNKNOWN_SIZE = 0x7FFF0000
_CONTAINERS = {  # formats that PyAV decodes, by (offset, bytes there)
    "MP4/M4A (AAC)": (4, b"ftyp"),
    "Matroska/WebM": (0, b"\x1aE\xdf\xa3"),
    "WMA": (0, b"0&\xb2u"),
    "AMR": (0, b"#!AMR"),
    "AAC": (0, b"\xff\xf1"),
    "AAC (MPEG-2)": (0, b"\xff\xf9"),
    "Shorten": (0, b"ajkg"),
    "Monkey's Audio": (0, b"MAC "),
    "WavPack": (0, b"wvpk"),
    "VOC": (0, b"Creative Voice File"),
}
ZEROS = 1 << 16  # bytes that are read at once where a file has nothing but zeros
_RIFF = (b"RIFF", b"RIFX", b"RF64")
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_GUID_END = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


def find_streams(file: BinaryIO, size: int, name: str) -> list[Stream]:
    """The streams of a file of `size` bytes; `name` is for messages.

    Raises AsrError when the format is not read, and when the file is truncated or damaged.
    """
    file.seek(0)
    head, start = file.read(64), 0
    while length := id3_length(head):  # a tag can come before any format
        start += length
        file.seek(start)
        head = file.read(64)
    for format, (at, magic) in _CONTAINERS.items():  # before MPEG, which can be inside
        if head[at:].startswith(magic):
            return [Stream(start, size, container=format)]
    streams = _walker(head)(file, start, size, name)
    if not streams:
        raise AsrError(f"{name}: not an audio file that can be read; check it, or convert it to wav or flac")
    return streams


def _walker(head: bytes) -> Callable[[BinaryIO, int, int, str], list[Stream]]:
    """The function that finds the streams of a file that begins with `head`."""
    if head[:4] in _RIFF and head[8:12] == b"WAVE":
        return _wav
    if head.startswith(_W64_RIFF):
        return _w64
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff
    simple = {b"caff": _caf, b".snd": _au, b"dns.": _au, b"NIST": _nist, b"fLaC": _flac, b"OggS": ogg_streams}
    return simple.get(head[:4], mpeg_streams)


def _wav(file: BinaryIO, start: int, size: int, name: str) -> list[Stream]:
    """WAV and RF64; several in a row are several streams."""
    streams: list[Stream] = []
    while start < size:
        file.seek(start)
        form = file.read(12)
        if form[:4] not in _RIFF or form[8:] != b"WAVE":
            break
        order: Literal["big", "little"] = "big" if form[:4] == b"RIFX" else "little"
        at, long_size, patches, found = start + 12, 0, [], False
        while at + 8 <= size:
            file.seek(at)
            chunk = file.read(36)
            length = int.from_bytes(chunk[4:8], order)
            if not any(chunk[:8]):
                at = _after_zeros(file, at, size)
                continue
            if chunk[:4] == b"ds64":
                long_size = int.from_bytes(chunk[16:24], "little")
            if chunk[:4] == b"data" and not found:
                found = True
                if form[:4] == b"RF64" and length == 0xFFFFFFFF and long_size:
                    length = long_size
                elif length == 0 and at + 8 < size and int.from_bytes(form[4:8], order) + 8 + start < size:
                    # A program that wrote to a pipe left 0 as the size: everything that follows is audio.
                    length = size - at - 8
                    patches.append((at + 4, min(length, 0xFFFFFFFF).to_bytes(4, order)))
                elif length >= _UNKNOWN_SIZE and at + 8 + length > size:
                    length = size - at - 8
                # Some programs count the header as part of this size.
                _check_size(name, size - at - 8, length, {36, 44, at + 8 - start})
            elif chunk[:4] in _RIFF:
                break
            at += 8 + length
            if length % 2:  # a padding byte follows, which some programs omit
                file.seek(at)
                at += file.read(4) not in _RIFF
        streams.append(Stream(start, min(at, size), patches=tuple(patches)))
        start = at
    return streams


def _after_zeros(file: BinaryIO, at: int, size: int) -> int:
    """The place of the first byte from `at` on that is not zero, or the size of the file.

    A recorder can reserve more space than it needs. Reading it 8 bytes at a time would take minutes.
    """
    while at < size:
        file.seek(at)
        block = file.read(ZEROS)
        if not block:
            return size
        if rest := block.lstrip(b"\0"):
            return at + len(block) - len(rest)
        at += len(block)
    return size


def _w64(file: BinaryIO, start: int, size: int, name: str) -> list[Stream]:
    """Sony Wave64: chunks with 16 bytes of type and 8 bytes of size, which includes those 24."""
    at = start + 40
    while at + 24 <= size:
        file.seek(at)
        chunk = file.read(24)
        length = int.from_bytes(chunk[16:], "little")
        if chunk[:16] == b"data" + _W64_GUID_END:
            _check_size(name, size - at - 24, length - 24)
        at += max(24, -(-length // 8) * 8)
    return [Stream(start, size)]


def _aiff(file: BinaryIO, start: int, size: int, name: str) -> list[Stream]:
    """AIFF and AIFF-C: chunks with 4 bytes of type and 4 bytes of size, big-endian."""
    at = start + 12
    while at + 8 <= size:
        file.seek(at)
        chunk = file.read(8)
        if not any(chunk):
            at = _after_zeros(file, at, size)
            continue
        length = int.from_bytes(chunk[4:], "big")
        if chunk[:4] == b"SSND" and length < _UNKNOWN_SIZE:
            _check_size(name, size - at - 8, length)
        at += 8 + length + length % 2
    return [Stream(start, size)]


def _caf(file: BinaryIO, start: int, size: int, name: str) -> list[Stream]:
    """Apple's Core Audio Format: chunks with 4 bytes of type and 8 bytes of size, -1 for "to the end"."""
    at = start + 8
    while at + 12 <= size:
        file.seek(at)
        chunk = file.read(12)
        length = int.from_bytes(chunk[4:], "big", signed=True)
        if length < 0:
            break
        _check_size(name, size - at - 12, length)
        at += 12 + length
    return [Stream(start, size)]


def _au(file: BinaryIO, start: int, size: int, name: str) -> list[Stream]:
    """Sun's and NeXT's format: the offset and the size of the data follow the first four bytes."""
    file.seek(start)
    head = file.read(12)
    order: Literal["big", "little"] = "big" if head[:4] == b".snd" else "little"
    offset, length = (int.from_bytes(head[i : i + 4], order) for i in (4, 8))
    if length < _UNKNOWN_SIZE:
        _check_size(name, size - start - offset, length)
    return [Stream(start, size)]


def _nist(file: BinaryIO, start: int, size: int, name: str) -> list[Stream]:
    """NIST sphere: a header of text lines whose size is in the second line."""
    file.seek(start)
    text = file.read(1024)
    numbers = {key: int(value) for key, value in re.findall(rb"(\w+) -i (\d{1,18})\s", text)}
    lines = text.split(b"\n", 2)
    offset = int(lines[1]) if len(lines) > 1 and lines[1].strip().isdigit() else 1024
    keys = (b"sample_count", b"channel_count", b"sample_n_bytes")
    if b"shorten" not in text and all(key in numbers for key in keys):
        count, channels, width = (numbers[key] for key in keys)
        _check_size(name, size - start - offset, count * channels * width)
    return [Stream(start, size)]


def _flac(file: BinaryIO, start: int, size: int, name: str) -> list[Stream]:
    """FLAC: a stream begins with its mark and a STREAMINFO block of 34 bytes. The decoder finds its end."""
    starts = [
        at for mark in (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22") for at in _find(file, start, size, mark)
    ]
    if not starts:  # the header itself is damaged: libsndfile says so
        starts = [start]
    starts.sort()
    return [Stream(first, last) for first, last in zip(starts, [*starts[1:], size], strict=True)]


def _find(file: BinaryIO, start: int, size: int, mark: bytes) -> Iterator[int]:
    """Every offset in [start, size) at which `mark` begins."""
    overlap, at, window = len(mark) - 1, start, b""
    file.seek(start)
    while at < size and (block := file.read(min(1 << 20, size - at))):
        window = window[-overlap:] + block
        first = at + len(block) - len(window)
        found = window.find(mark)
        while found >= 0:
            yield first + found
            found = window.find(mark, found + 1)
        at += len(block)


def _check_size(name: str, present: int, promised: int, tolerated: set[int] | None = None) -> None:
    """Raise AsrError when fewer bytes of audio are present than promised."""
    if promised > present and promised - present not in (tolerated or ()):
        raise truncated(name, f"{max(present, 0)} bytes of audio where the header promises {promised}")
