"""MPEG audio (MP3): the frames are counted, and concatenated files are split.

mpg123 skips damaged frames, guesses the length of a stream without a Xing header, and stops where the first
Xing header says. So every frame header is checked here first, and each stream gets a correct Xing header.
Sources: ISO/IEC 11172-3 and 13818-3 (frames), LAME's "Mp3 Info Tag", the VBRI header of Fraunhofer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from asr.audio.stream import Stream, damaged, truncated

_V1_KBPS = {
    1: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_V2_KBPS = {
    1: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    3: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_JUNK = 1 << 16  # bytes before the first frame that are searched for it


@dataclass(frozen=True)
class Frame:
    """The contents of the four bytes of a frame header."""

    length: int  # bytes, with the header
    samples: int  # of each channel
    kind: tuple[int, int, int, bool]  # version, layer, sample rate, mono: equal in all frames of a stream
    side_info: int  # bytes between the header and the place of a Xing header


@dataclass
class _Part:
    """The frames of one stream found so far."""

    start: int
    frame: Frame  # its first one
    header: bytes
    tag: str  # "Xing", "VBRI" or "damaged" if the first frame holds such a header and no audio, else ""
    promised: int | None  # frames according to that header
    promised_bytes: int | None
    count: int = 0  # frames of audio
    stop: int = 0


@lru_cache(maxsize=4096)
def parse_header(header: bytes) -> Frame | None:
    """The frame whose header is these four bytes. None for other bytes and for the free format."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version = {0: 3, 2: 2, 3: 1}.get(header[1] >> 3 & 3)  # 3 stands for "MPEG 2.5"
    layer = 4 - (header[1] >> 1 & 3)
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version is None or layer == 4 or rate == 3 or bitrate in (0, 15):
        return None
    kbps = (_V1_KBPS if version == 1 else _V2_KBPS)[layer][bitrate - 1]
    hertz = (44100, 48000, 32000)[rate] // (1, 2, 4)[version - 1]
    samples = 384 if layer == 1 else 576 if layer == 3 and version > 1 else 1152
    padding = header[2] >> 1 & 1
    slot = 4 if layer == 1 else 1  # bytes; a frame is a whole number of slots
    length = (samples // 8 // slot * kbps * 1000 // hertz + padding) * slot
    mono = header[3] >> 6 == 3
    side_info = (17 if mono else 32) if version == 1 else (9 if mono else 17)
    return Frame(length, samples, (version, layer, hertz, mono), side_info)


def mpeg_streams(file: BinaryIO, start: int, size: int, name: str) -> list[Stream]:
    """The MPEG streams in [start, size) of a file; empty when it is no MPEG audio.

    Raises AsrError when bytes between frames are neither a frame nor a tag, when the last frame is cut, and
    when there are fewer frames than the Xing or VBRI header says.
    """
    at = _first_frame(file, start, size)
    parts: list[_Part] = []
    while at is not None and at < size:
        file.seek(at)
        head = file.read(64)
        frame = parse_header(head[:4])
        if frame is None:
            skip = _tag_length(file, at, size, head)
            if not skip:
                raise damaged(name, f"at byte {at} (no MPEG frame begins there)")
            at += skip
            continue
        if at + frame.length > size:
            raise truncated(name, f"the last MPEG frame ends at byte {at + frame.length}, the file at {size}")
        part = parts[-1] if parts else None
        tag = _xing(file, at, head, frame)
        if part is None or tag or frame.kind != part.frame.kind:
            part = _Part(at, frame, head[:4], *(tag or ("", None, None)))
            parts.append(part)
        if tag is None:
            part.count += 1
        at += frame.length
        part.stop = at
    for part in parts:
        present = part.stop - part.start
        missing = (part.promised or 0) - part.count
        # Some encoders count the frame of the header as well; then the number of bytes agrees.
        if missing > 1 or (missing == 1 and present < (part.promised_bytes or 1 << 62)):
            raise truncated(name, f"{part.count} MPEG frames where the header says {part.promised}")
    return [_stream(part) for part in parts if part.count]


def _first_frame(file: BinaryIO, start: int, size: int) -> int | None:
    """The offset of the first frame that is followed by a second one of its kind, or that is the last one."""
    file.seek(start)
    window = file.read(_JUNK)
    if parse_header(window[:4]):  # this is MPEG audio, so a wrong second frame means damage
        return start
    at = window.find(b"\xff")
    while at >= 0:
        frame = parse_header(window[at : at + 4])
        if frame is not None:
            file.seek(start + at + frame.length)
            follower = parse_header(file.read(4))
            if start + at + frame.length == size or (follower and follower.kind == frame.kind):
                return start + at
        at = window.find(b"\xff", at + 1)
    return None


def _xing(file: BinaryIO, at: int, head: bytes, frame: Frame) -> tuple[str, int | None, int | None] | None:
    """Kind, frames and bytes of a Xing or VBRI header, with None for a missing number.

    None for other frames.
    """
    if frame.kind[1] != 3:
        return None
    for place in (4 + frame.side_info, 6 + frame.side_info):  # the second: after a checksum of two bytes
        if head[place : place + 4] in (b"Xing", b"Info"):
            flags = int.from_bytes(head[place + 4 : place + 8], "big")
            fields = [int.from_bytes(head[place + i : place + i + 4], "big") for i in (8, 12)]
            count = fields[0] if flags & 1 else None
            length = fields[flags & 1] if flags & 2 else None
            file.seek(at)
            return "Xing" if _is_intact(file.read(place + 156), place) else "damaged", count, length
    if head[36:40] == b"VBRI":
        return "VBRI", int.from_bytes(head[50:54], "big"), int.from_bytes(head[46:50], "big")
    return None


def _is_intact(frame: bytes, place: int) -> bool:
    """Whether the checksum of LAME's tag, which begins with "Xing" at `place`, is right or absent.

    Because of a damaged tag, a decoder could remove up to 4095 samples at each end.
    """
    crc = 0
    for byte in frame[: place + 154]:  # CRC-16 with the polynomial 0x8005, reflected
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return not any(frame[place + 120 : place + 156]) or crc.to_bytes(2, "big") == frame[place + 154 :]


def _tag_length(file: BinaryIO, at: int, size: int, head: bytes) -> int:
    """The length of a tag, or of zeros, that may lie between frames; 0 for anything else."""
    if head.startswith(b"TAG+"):
        return 227
    if head.startswith(b"TAG"):
        return min(128, size - at)
    if head.startswith(b"ID3"):
        return id3_length(head)
    if head.startswith(b"APETAGEX"):
        return int.from_bytes(head[12:16], "little") + 32  # a header, and items with a footer
    file.seek(at)
    if head.startswith(b"LYRICSBEGIN"):
        return file.read(1 << 20).find(b"LYRICS200") + 9
    zeros, block = 0, b""
    while not block.strip(b"\0") and (block := file.read(1 << 16)):
        zeros += len(block) - len(block.lstrip(b"\0"))
    # Zeros before a frame take the place of lost frames.
    rest = block.lstrip(b"\0")
    return zeros if not rest or rest.startswith((b"TAG", b"ID3", b"APETAGEX")) else 0


def id3_length(head: bytes) -> int:
    """The length of an ID3v2 tag, whose first ten bytes are given; 0 when there is none."""
    if not head.startswith(b"ID3") or len(head) < 10 or max(head[6:10]) > 127:
        return 0
    length = 0
    for byte in head[6:10]:  # seven bits each
        length = length << 7 | byte
    return length + 10 + (10 if head[5] & 16 else 0)


def _stream(part: _Part) -> Stream:
    """The bytes of a part, after a Xing header with the true number of frames if its own is not right."""
    least = (part.count - 4) * part.frame.samples  # encoder delay and padding are fewer than four frames
    if part.frame.kind[1] != 3 or (part.tag == "Xing" and part.count == part.promised):
        return Stream(part.start, part.stop, least=least)
    start = part.start + (part.frame.length if part.tag else 0)
    header = bytearray(part.header)
    header[1] |= 1  # no checksum
    for bitrate in range(1, 15):  # the smallest frame with enough room
        header[2] = bitrate << 4 | part.header[2] & 0x0C
        frame = parse_header(bytes(header))
        if frame and frame.length >= 4 + frame.side_info + 16:
            break
    else:
        raise AssertionError("every MPEG layer III frame of the highest bit rate has room for a Xing header")
    fields = b"Xing" + (3).to_bytes(4, "big") + part.count.to_bytes(4, "big")
    fields += (part.stop - start + frame.length).to_bytes(4, "big")
    prefix = bytes(header) + bytes(frame.side_info) + fields
    return Stream(start, part.stop, prefix.ljust(frame.length, b"\0"), least=least)
