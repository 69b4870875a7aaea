"""Ogg: pages are checked, and a chain of streams is split (RFC 3533).

libogg drops a damaged page without a message, and libsndfile reads only the first stream of a chain.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

from asr.audio.stream import Stream, damaged, truncated

_FIRST, _LAST = 2, 4  # flags of a page
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits reversed


def ogg_streams(file: BinaryIO, start: int, size: int, name: str) -> list[Stream]:
    """The links of a chain, one stream each. All pages in [start, size) and their checksums are checked.

    Raises AsrError when a page is damaged or missing, and when a stream has no page marked as its last one.
    """
    links: list[int] = []  # the offset of the first page of each link
    pages: dict[int, int] = {}  # for each stream that has not ended: its serial number, its next page number
    ended: set[int] = set()  # serial numbers of the current link
    at = start
    while at < size:
        file.seek(at)
        header = file.read(27)
        if not header.startswith(b"OggS"[: len(header)]):
            if links and not pages and _is_padding(file, at, header):
                break
            raise damaged(name, f"at byte {at} (no Ogg page begins there)")
        segments = file.read(header[26]) if len(header) == 27 else b""
        body = file.read(sum(segments))
        length = 27 + header[26] + sum(segments) if len(header) == 27 else 27
        if len(header) < 27 or len(segments) < header[26] or at + length > size:
            raise truncated(name, f"the last Ogg page ends at byte {at + length}, the file at {size}")
        if _checksum(header[:22] + bytes(4) + header[26:] + segments + body) != header[22:26]:
            raise damaged(name, f"at byte {at} (the checksum of an Ogg page is wrong)")
        flags, serial = header[5], int.from_bytes(header[14:18], "little")
        number = int.from_bytes(header[18:22], "little")
        if flags & _FIRST:
            if not pages:  # all streams of the previous link have ended
                links.append(at)
                ended.clear()
            if serial in pages or serial in ended:
                raise damaged(name, f"at byte {at} (an Ogg stream begins a second time)")
            pages[serial] = number
        if serial not in pages:
            raise damaged(name, f"at byte {at} (an Ogg page belongs to no stream)")
        if number != pages[serial]:
            raise damaged(name, f"at byte {at} (Ogg page {pages[serial]} is missing, {number} follows)")
        pages[serial] += 1
        if flags & _LAST:
            del pages[serial]
            ended.add(serial)
        at += length
    if pages:
        raise truncated(name, "the Ogg stream has no last page")
    return [Stream(first, last) for first, last in zip(links, [*links[1:], at], strict=True)]


def _checksum(page: bytes) -> bytes:
    """CRC-32 with the polynomial of zlib, but neither reflected nor inverted: zlib gets reversed bits."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_REVERSED)


def _is_padding(file: BinaryIO, at: int, header: bytes) -> bool:
    """Whether the bytes after the last page are zeros or an ID3v1 tag, which hold no audio."""
    file.seek(at)
    return header.startswith(b"TAG") or not any(file.read(1 << 16))
