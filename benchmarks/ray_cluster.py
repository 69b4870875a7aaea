"""Two actors of a Ray cluster against one process: speed, equal texts, and an actor that is killed.

    python benchmarks/ray_cluster.py AUDIO... [--model DIR] [--copies 40] [--actors 2]

Needs `pip install -e '.[ray]'`. Ray starts on this machine. Everything uses one thread for each process. The
times of Ray include the start of the actors, each of which loads the model; the start of Ray itself is
printed apart. In the last run an actor gets SIGKILL after the first results. No other job of Ray may run on
this machine then: its actor could be the one that is killed.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import ray
import torch

from asr.errors import AsrError
from asr.transcription.inputs import Input, find_inputs
from asr.transcription.ray_workers import transcribe_on_ray
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Transcript

ACTOR = b"MapWorker"  # a part of the name that Ray gives to the process of an actor


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("audio", nargs="+")
    parser.add_argument("--model")
    parser.add_argument("--copies", type=int, default=40)
    parser.add_argument("--actors", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    inputs, problems = find_inputs(args.audio)
    if problems:
        raise problems[0]
    inputs *= args.copies
    recognizer = Recognizer(args.model, "cpu")
    list(recognizer.transcribe_all(inputs[:10]))
    began = time.perf_counter()
    results = list(recognizer.transcribe_all(inputs))
    one = time.perf_counter() - began
    expected = {position: text_of(result) for position, result in enumerate(results)}
    seconds = sum(each.duration for each in results if isinstance(each, Transcript))
    print(
        f"{len(inputs)} files, {seconds:.0f} s of audio; one process: {one:.1f} s, RTFx {seconds / one:.0f}"
    )
    began = time.perf_counter()
    ray.init(num_cpus=args.actors, logging_level=logging.ERROR, log_to_driver=False)
    print(f"start of Ray: {time.perf_counter() - began:.1f} s", flush=True)
    for kill in (False, True):
        found, wall = on_ray(recognizer, inputs, args.actors, kill)
        if found != expected:
            sys.exit(
                f"{sum(found.get(i) != text for i, text in expected.items())} texts differ or are missing"
            )
        name = "one of them killed" if kill else "undisturbed"
        print(
            f"{args.actors} actors, {name}: {wall:.1f} s, RTFx {seconds / wall:.0f}, "
            f"{one / wall:.2f} times as fast; same texts; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def on_ray(
    recognizer: Recognizer, inputs: Sequence[Input], actors: int, kill: bool
) -> tuple[dict[int, str], float]:
    """The text of each input, and the seconds that this took."""
    began = time.perf_counter()
    found: dict[int, str] = {}
    for position, result in transcribe_on_ray(recognizer, inputs, actors):
        found[position] = text_of(result)
        kill = kill and not kill_an_actor()
    if kill:
        sys.exit("no process of an actor was found, so none was killed")
    return found, time.perf_counter() - began


def kill_an_actor() -> bool:
    """Send SIGKILL to one process that works for Ray. Returns whether there was one."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if ACTOR in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
                return True
        except OSError:  # it has ended
            continue
    return False


def text_of(result: Transcript | AsrError) -> str:
    return result.text if isinstance(result, Transcript) else f"error: {result}"


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"error: {error}")
