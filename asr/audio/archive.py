"""Recordings inside tar files: `set/000003.tar/a/42.flac` names the member `a/42.flac` of `set/000003.tar`.

Members of a tar file are not compressed, so one member can be read without reading the others.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from asr.errors import AsrError

SUFFIX = ".tar"


def tar_of(path: Path) -> Path | None:
    """The tar file in which a path names a member; None for other paths.

    It only looks at the names: no file is opened.
    """
    return next((folder for folder in path.parents if folder.suffix == SUFFIX), None)


def is_member(path: Path) -> bool:
    """Whether a path names a member of a tar file that is there."""
    tar = tar_of(path)
    return tar is not None and tar.is_file()


def read_member(path: Path) -> bytes:
    """The bytes of a member. Raises AsrError when the tar file is damaged or has no such member."""
    tar = tar_of(path)
    assert tar is not None, "only members of tar files are read"
    try:
        with tar.open("rb") as file:
            status = os.fstat(file.fileno())
            place = _index(tar, status.st_mtime_ns, status.st_size).place(path.relative_to(tar).as_posix())
            if place is None:
                raise AsrError(f"{path}: the tar file has no such member; check the name")
            file.seek(place[0])
            data = file.read(place[1])
    except OSError as error:
        raise AsrError(f"{tar}: cannot be read ({error.strerror}); check the disk or the network") from None
    except tarfile.TarError as error:
        raise AsrError(f"{tar}: damaged, or not a tar file ({error}); copy it again") from None
    return data


def read_ahead(tar: Path) -> None:
    """Ask the system to read a whole file in the background, from its beginning, where it can do so."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError), tar.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def members(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The files of an open tar file. Names are written as in a path: without `./` and a leading `/`.

    Raises tarfile.ReadError where a header is damaged.
    """
    for member in archive:
        if member.isreg() and not member.issparse():
            yield posixpath.normpath("/" + member.name).lstrip("/"), member
    check_end(archive)


def check_end(archive: tarfile.TarFile) -> None:
    """Raise tarfile.ReadError if the members that were read end at a damaged header.

    tarfile treats a header that it cannot parse as the end of the file. The real end is marked with zeros.
    """
    file = archive.fileobj
    assert file is not None, "the archive is open"
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"the header at byte {archive.offset} is not one")


class _Index:
    """The offset and the size of each member. The index takes 24 bytes for each member.

    Names are known by their 64-bit hashes. In a tar file of a million members, two of them are equal with a
    probability of 1 in 40 million.
    """

    def __init__(self, tar: Path) -> None:
        with tarfile.open(tar, "r:") as archive:
            rows = [(hash(name), member.offset_data, member.size) for name, member in members(archive)]
        table = np.array(rows, np.int64).reshape(-1, 3)
        # A name that occurs again replaces the earlier member, as it does when a tar file is unpacked.
        table = table[np.argsort(table[:, 0], kind="stable")]
        self._names, self._places = table[:, 0].copy(), table[:, 1:].copy()

    def place(self, name: str) -> tuple[int, int] | None:
        """The offset and the size of a member, or None."""
        row = int(np.searchsorted(self._names, hash(name), side="right")) - 1
        if row < 0 or self._names[row] != hash(name):
            return None
        offset, size = self._places[row].tolist()
        return offset, size


@lru_cache(8192)  # 0.4 GB for tar files of 1,000 utterances with descriptions
def _index(tar: Path, changed: int, size: int) -> _Index:
    """The index of a tar file. If the time or the size of the file changes, it is indexed again."""
    return _Index(tar)
