"""Signals that ask a run to save and stop."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interruption:
    """Catches Ctrl-C, SIGTERM and SIGHUP (a lost terminal) while the block runs.

    A second signal of the same kind has its usual effect. If SIGHUP is ignored already (`nohup`), it stays
    ignored.
    """

    received = 0  # the number of the signal

    def __enter__(self) -> Interruption:
        self._before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)):
            if number is None or (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN):
                continue
            self._before[number] = signal.signal(number, self._note)
        return self

    def __call__(self) -> bool:
        """Whether a signal was received."""
        return self.received != 0

    @property
    def status(self) -> int:
        """The exit status of a process that was stopped by its own signal or by that of another process."""
        return 128 + (self.received or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
