"""Recordings inside tar files: the path `set/000003.tar/00000042.flac` names a member of `set/000003.tar`.

Members of a tar file are not compressed, so each can be read alone, at its place in the file.
"""

from __future__ import annotations

import os
import tarfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from asr.errors import AsrError

SUFFIX = ".tar"


def is_member(path: Path) -> bool:
    """Whether a path names a member of a tar file."""
    return path.parent.suffix == SUFFIX and path.parent.is_file()


def read_member(path: Path) -> bytes:
    """The bytes of a member. Raises AsrError when the tar file is damaged or has no such member."""
    tar = path.parent
    try:
        with tar.open("rb") as file:
            status = os.fstat(file.fileno())
            place = _index(tar, status.st_mtime_ns, status.st_size).get(path.name)
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


@lru_cache(64)
def _index(tar: Path, changed: int, size: int) -> dict[str, tuple[int, int]]:
    """Where the bytes of each member begin, and how many they are. Another time or size is another file."""
    with tarfile.open(tar, "r:") as archive:
        return {member.name: (member.offset_data, member.size) for member in archive if member.isfile()}
