"""Several threads share one model: the thread whose turn it is also does the work of waiting threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
How = TypeVar("How")


@dataclass(eq=False)
class _Request(Generic[Item, How]):
    items: Sequence[Item]
    how: How
    done: bool = False
    error: Exception | None = None


class Turns(Generic[Item, How]):
    """Calls `work(items, how)` for one thread at a time.

    The thread whose turn it is also takes items of waiting threads with the same `how`, as long as the sum of
    `size` is at most `most`. So threads that call at the same time share one batch.
    """

    def __init__(
        self, work: Callable[[list[Item], How], None], size: Callable[[Item], float], most: float
    ) -> None:
        self._work, self._size, self._most = work, size, most
        self._waiting: list[_Request[Item, How]] = []
        self._guard, self._turn = threading.Lock(), threading.Lock()

    def __call__(self, items: Sequence[Item], how: How) -> None:
        """Return when the items are done. Raises what their work raised."""
        request = _Request(items, how)
        with self._guard:
            self._waiting.append(request)
        with self._turn:
            if not request.done:
                self._do(self._together(request))
        if request.error:
            raise request.error

    def _together(self, own: _Request[Item, How]) -> list[_Request[Item, How]]:
        """This request and other requests that fit. They are removed from the waiting ones."""
        with self._guard:
            chosen, room = [own], self._most - self._total(own)
            for other in self._waiting:
                if other is not own and other.how is own.how and self._total(other) <= room:
                    room -= self._total(other)
                    chosen.append(other)
            self._waiting = [each for each in self._waiting if each not in chosen]
        return chosen

    def _total(self, request: _Request[Item, How]) -> float:
        return sum(map(self._size, request.items))

    def _do(self, requests: list[_Request[Item, How]]) -> None:
        try:
            self._work([item for each in requests for item in each.items], requests[0].how)
        except Exception as error:
            for each in requests:
                each.error = error
        for each in requests:
            each.done = True
