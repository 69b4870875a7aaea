"""Writing files so that a crash leaves the old one or the new one, never half of either."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from asr.errors import AsrError


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
