"""Messages of a run on standard error. A closed pipe, a lost terminal or a full disk never stops a run."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import IO, cast

from rich.console import Console


class Log:
    """Prints lines; a silent one prints nothing."""

    def __init__(self, silent: bool = False) -> None:
        stream = cast(IO[str], _SafeStream())
        self.console = Console(file=stream, highlight=False, soft_wrap=True, quiet=silent)

    def say(self, line: str) -> None:
        """Print one line as it is."""
        self.console.print(line, markup=False)


class _SafeStream(io.TextIOBase):
    """Standard error, whose failures are ignored."""

    def write(self, text: str) -> int:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):  # nobody will ever read this stream again
                _write_to_nowhere()
        return len(text)

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return sys.stderr.encoding or "utf-8"


def _write_to_nowhere() -> None:
    """Connect standard error with the null device. Otherwise Python fails to write its rest at exit."""
    with suppress(OSError):  # a stream without a file descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stderr.fileno())
        os.close(null)
