"""Messages of a run on standard error. A closed pipe, a lost terminal or a full disk never stops a run."""

from __future__ import annotations

import sys

from rich.console import Console


class Log(Console):
    """A console on standard error that ignores its own failures. `say` prints one line."""

    def __init__(self, silent: bool = False) -> None:
        super().__init__(file=sys.stderr, highlight=False, soft_wrap=True, quiet=silent)

    def say(self, line: str) -> None:
        """Print one line as it is."""
        try:
            self.print(line, markup=False)
        except OSError:  # the line is lost
            self._lose_buffer()

    def on_broken_pipe(self) -> None:
        """Print nothing more. The method of the base class ends the process."""
        self.quiet = True

    def _lose_buffer(self) -> None:
        del self._buffer[:]  # a later line would fail with this one again
