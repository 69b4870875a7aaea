"""Files that are whole or as they were, and folders in which only one process writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from asr.errors import AsrError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


def printable(path: str | os.PathLike[str]) -> str:
    """The path for a message: newline, tab, escape and other characters without a glyph are written as in Python.

    A message stays one line, whatever the name of a file holds, and cannot change the state of a terminal.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(path))


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path`; rename it to `path` when the block ends without an error.

    Makes missing parent folders. `mode` is "w" (UTF-8 text, newlines as written) or "wb".
    Raises AsrError when the file cannot be written (no permission, no room on disk).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open(mode, **text) as out:  # type: ignore[call-overload]
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError as error:
        raise AsrError(
            f"{path}: cannot be written ({error.strerror or error}); check room and permissions"
        ) from error
    finally:
        with suppress(OSError):  # it is gone already, or its folder could never be written
            temporary.unlink()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep a folder for this process; the system gives it free when the process ends, however it ends.

    Makes the folder, and takes it away again if nothing was put into it. Raises AsrError when another process
    has it.
    """
    path, made = folder / ".claimed", not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        claim = path.open("w")
    except OSError as error:
        raise AsrError(
            f"{folder}: cannot be written ({error.strerror}); check room and permissions"
        ) from error
    with claim:
        if not _lock(claim) or not path.exists():  # it goes when the process that had it ends
            raise AsrError(
                f"{folder}: another process is at work there; wait for it, or choose another folder"
            )
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
                if made:
                    folder.rmdir()  # does nothing unless it is empty


def _lock(file: IO) -> bool:
    """Whether an open file is this process's alone now, or cannot be anyone's: some systems have no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True
