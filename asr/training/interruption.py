"""Leaving in order when asked to."""

from __future__ import annotations

import signal
from types import FrameType


class Interruption:
    """Catches Ctrl-C and SIGTERM while the block runs; the second one has its usual effect."""

    signal = 0

    def __enter__(self) -> Interruption:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.signal != 0

    @property
    def status(self) -> int:
        """The exit status of a process that was stopped, by the signal of another one if not its own."""
        return 128 + (self.signal or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._before[signal.Signals(number)])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
