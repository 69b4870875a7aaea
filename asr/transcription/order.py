"""Results in the order of their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

R = TypeVar("R")


def in_order(results: Iterable[tuple[int, R]]) -> Iterator[tuple[int, R]]:
    """The same results in the order of their positions, which are 0, 1, 2 ..."""
    waiting: dict[int, R] = {}
    following = 0
    for position, result in results:
        waiting[position] = result
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1
