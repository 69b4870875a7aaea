"""Atomic writing of files, and folders in which only one process writes."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import stat
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
    """The path for a message: control characters are written as in Python source code.

    A message stays one line, whatever the name of a file holds, and cannot change the state of a terminal.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(path))


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path`; rename it to `path` when the block ends without an error.

    Makes missing parent folders. `mode` is "w" (UTF-8 text, newlines as written) or "wb". The file that a
    link points to is replaced, not the link. Devices and pipes are written to directly.
    Raises AsrError when the file cannot be written (no permission, no room on disk).
    """
    target = Path(os.path.realpath(path))  # unlike Path.resolve, it also takes links in a circle
    temporary = _temporary(target)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        if _is_device(target):
            with target.open(mode, **text) as out:  # type: ignore[call-overload]
                yield out
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open(mode, **text) as out:  # type: ignore[call-overload]
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(target)
    except OSError as error:
        advice = "check the free space and the permissions"
        if error.errno == errno.ENAMETOOLONG:
            advice = "the system does not allow so long a name; rename the input"
        reason = error.strerror or error
        raise AsrError(f"{printable(path)}: cannot be written ({reason}); {advice}") from error
    finally:
        with suppress(OSError):  # it is gone already, or its folder could never be written
            temporary.unlink()


def _temporary(target: Path) -> Path:
    """A temporary file for a target. Its name tells the machine and the process, and is always short."""
    machine = _digest(platform.node())[:8]
    return target.with_name(f".{_digest(target.name)[:12]}.{machine}.{os.getpid()}.tmp")


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def remove_temporaries(folder: Path) -> None:
    """Delete the temporary files of `atomic_write` that killed processes of this machine left in a folder."""
    with suppress(OSError):
        for path in folder.iterdir():
            found = re.fullmatch(r"\.[0-9a-f]{12}\.([0-9a-f]{8})\.(\d+)\.tmp", path.name)
            if found and found[1] == _digest(platform.node())[:8] and not _is_alive(int(found[2])):
                with suppress(OSError):
                    path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _is_device(path: Path) -> bool:
    """Whether a path exists and is neither a file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def files_below(folder: Path, problems: list[AsrError]) -> list[Path]:
    """All files in and below a folder, sorted. Adds an error for each folder that cannot be listed."""

    def report(error: OSError) -> None:
        where = printable(error.filename or folder)
        problems.append(AsrError(f"{where}: cannot be listed ({error.strerror}); check its permissions"))

    return sorted(
        Path(parent) / name for parent, _, names in os.walk(folder, onerror=report) for name in names
    )


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Lock a folder for this process. The system releases the lock when the process ends, in any way.

    Makes the folder, and removes it again if it stays empty. Raises AsrError when another process holds the
    lock.
    """
    path, made = folder / ".claimed", not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        claim = path.open("w")
    except OSError as error:
        raise AsrError(
            f"{printable(folder)}: cannot be written ({error.strerror}); check the free space and the "
            "permissions"
        ) from error
    with claim:
        # A process that holds the lock removes the file when it ends.
        if not _lock(claim) or not path.exists():
            raise AsrError(
                f"{printable(folder)}: another process is using this folder; wait until it ends, or choose "
                "another folder"
            )
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
                if made:
                    folder.rmdir()  # does nothing unless it is empty


def _lock(file: IO) -> bool:
    """Whether this process holds the lock of an open file now. True on systems without locks."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True
