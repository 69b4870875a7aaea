"""Workers on a Ray cluster (the extra `ray`): Ray Data carries inputs to actors, and results back.

Each actor has its own model. Paths must be readable on every machine. Ray starts a lost actor again and gives
it the same inputs.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from asr.errors import AsrError
from asr.transcription.inputs import Input, in_memory, is_portable
from asr.transcription.recognizer import Recognizer
from asr.transcription.workers import Result, expected_seconds

BLOCK_SECONDS = 480.0  # about so much audio in the inputs that an actor gets at once
MOST = 256  # inputs in a block


class _Actor:
    """A process with a recognizer, somewhere in the cluster."""

    def __init__(self, recognizer: bytes, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._recognizer: Recognizer = pickle.loads(recognizer)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        inputs = [pickle.loads(each) for each in batch["input"]]
        results = self._recognizer.transcribe_all(inputs, small_windows=False)
        packed = np.array([pickle.dumps(result) for result in results], dtype=object)
        return {"position": batch["position"], "result": packed}


def transcribe_on_ray(
    recognizer: Recognizer, inputs: Sequence[Input], actors: int | None = None
) -> Iterator[tuple[int, Result]]:
    """The position of each input and its result, in any order.

    `actors` is the largest number of actors; None: one per core or GPU.

    Connects to the cluster of `ray start` or RAY_ADDRESS, or starts one on this machine. Raises AsrError
    where Ray is missing.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise AsrError("--ray needs Ray; install it with: pip install 'ray[data]'") from None
    if not ray.is_initialized():
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
        except Exception as error:  # Ray has no class for "it did not start in time"
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise AsrError(f"Ray does not start ({reason}); check it with: ray status") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the command has its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    gpu = recognizer.bundle.device.type == "cuda"
    needed = "GPU" if gpu else "CPU"
    total = int(ray.cluster_resources().get(needed, 1))
    count = max(1, min(actors or total, total, len(inputs)))
    free = max(1, min(count, int(ray.available_resources().get(needed, 1))))
    rows: list[dict[str, Any]] = []
    for position, input in enumerate(inputs):
        try:
            portable = input if is_portable(input) else in_memory(input)
            rows.append({"position": position, "input": pickle.dumps(portable)})
        except AsrError as error:
            yield position, error
    if not rows:
        return
    mean = max(1.0, sum(map(expected_seconds, inputs)) / len(inputs))
    size = max(1, min(MOST, round(BLOCK_SECONDS / mean), -(-len(inputs) // (3 * count))))
    results = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map_batches(
        _Actor,
        fn_constructor_args=(pickle.dumps(recognizer), 1),
        batch_size=size,
        # Those that can start at once, because Ray starts more than the minimum late.
        compute=ray.data.ActorPoolStrategy(min_size=free, max_size=count),
        num_gpus=1 if gpu else 0,
        num_cpus=1,
    )
    for row in results.iter_rows():
        yield row["position"], pickle.loads(row["result"])
