"""Several processes, started by `torchrun` on one machine or several, transcribe one list.

    torchrun --nproc-per-node 4 cli.py transcribe talks --output-dir out

Each takes the next portion of the list when it is ready for it, so a fast one does more. They communicate
only through the store of torchrun, and no process waits for another one before the end.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import cuda
from torch import distributed as dist

from asr.errors import AsrError

PORTION = 64  # most inputs that are taken at once
PATIENCE = 0.1  # seconds between two looks at what the others have done


@dataclass(frozen=True)
class Ranks:
    """This process, as one of the processes that share a list. `store` is None if it is alone."""

    rank: int = 0
    count: int = 1
    store: Any = None

    @property
    def main(self) -> bool:
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process: with several GPUs, each takes one."""
        if self.store and name in ("auto", "cuda") and cuda.is_available():
            return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        return name

    def decide(self, function: Callable[[], list[int]]) -> list[int]:
        """Call the function in the main process, and return its result in all processes.

        If it raises AsrError, the other processes end without a message.
        """
        if self.store is None:
            return function()
        if not self.main:
            found = json.loads(zlib.decompress(self.store.get("decision")))
            if found is None:
                raise SystemExit(1)
            return list(found)
        result: list[int] | None = None
        try:
            result = function()
        finally:
            self.store.set("decision", zlib.compress(json.dumps(result).encode()))
        return result

    def share(self, positions: Sequence[int]) -> Iterator[int]:
        """The positions that this process is to do: portion after portion, each when it is asked for."""
        if self.store is None:
            yield from positions
            return
        size = max(1, min(PORTION, len(positions) // (8 * self.count)))
        while (first := size * (self.store.add("next", 1) - 1)) < len(positions):
            yield from positions[first : first + size]

    def total(self, name: str, value: int) -> int:
        """The sum over all processes. It waits until all processes have called it."""
        if self.store is None:
            return value
        self.store.add(name, value)
        self.store.add(f"{name} count", 1)
        while self.store.add(f"{name} count", 0) < self.count:
            time.sleep(PATIENCE)
        return int(self.store.add(name, 0))


def join_ranks() -> Ranks:
    """The processes that torchrun started; without it, this process alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    try:
        store, rank, count = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    except (RuntimeError, ValueError) as error:
        raise AsrError(
            f"the processes of torchrun cannot reach each other ({str(error).splitlines()[0]}); check its "
            "options --master-addr and --rdzv-endpoint"
        ) from None
    prefix = f"asr {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return Ranks(rank, count, dist.PrefixStore(prefix, store))  # type: ignore[attr-defined]
