"""The speed of transcription and training on this machine, with a given model and data.

    python benchmarks/speed.py transcribe AUDIO... [--model DIR] [--device cpu] [--copies N] [--threads N]
                                                   [--batch-seconds S] [--precision P]
    python benchmarks/speed.py train CONFIG [key=value ...] [--steps N] [--device cpu]
    torchrun --nproc-per-node 2 benchmarks/speed.py train CONFIG ...

`transcribe` prints seconds of audio per second of wall time (RTFx), its inverse, the real-time factor, the
wall and the processor time, and the time from the first input to the first result. `train` prints utterances
and seconds of audio per second, and the share of time spent waiting for data. Loading the model and the first
batch, in which memory is allocated, are not counted.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from asr.config import load_config
from asr.errors import AsrError
from asr.training.distributed import join
from asr.training.optimizer import build_optimizer
from asr.training.precision import choose_precision
from asr.training.recognition import RecognitionTask
from asr.training.steps import Step, steps
from asr.training.train_state import TrainState
from asr.transcription.inputs import find_inputs
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Transcript


def transcribe(options: argparse.Namespace) -> None:
    """Time the transcription of all inputs, after a few that are not counted."""
    if options.threads:
        torch.set_num_threads(options.threads)
    recognizer = Recognizer(options.model, options.device, options.batch_seconds, precision=options.precision)
    inputs, problems = find_inputs(options.audio)
    if problems:
        raise problems[0]
    inputs *= options.copies
    list(recognizer.transcribe_all(inputs[:8]))
    began, processor = time.perf_counter(), time.process_time()
    results, first = [], 0.0
    for result in recognizer.transcribe_all(inputs):
        first = first or time.perf_counter() - began
        results.append(result)
    wall, processor = time.perf_counter() - began, time.process_time() - processor
    found = [r for r in results if isinstance(r, Transcript)]
    audio = sum(t.duration for t in found)
    device = f"{recognizer.bundle.device}, {torch.get_num_threads()} threads"
    device += f", batches of {recognizer.batch_seconds:g} s"
    print(f"{len(found)} files, {audio:.1f} s of audio in {wall:.2f} s on {device}")
    rates = f"RTFx {audio / wall:.1f}   real-time factor {wall / audio:.5f}"
    times = f"processor time {processor:.2f} s   first result after {first:.2f} s"
    print(f"{rates}   {len(found) / wall:.1f} utterances/s   {times}")


def train(options: argparse.Namespace) -> None:
    """Time optimizer steps, after a few that are not counted, in all processes of torchrun."""
    config = load_config(options.config, tuple(options.overrides))
    with join(options.device) as ranks:
        task = RecognitionTask(config, lambda line: print(line, file=sys.stderr) if ranks.main else None)
        task.bundle.to(ranks.device)
        optimizer = build_optimizer(task.bundle.network, config.optim, ranks)
        task.precision = choose_precision(config.train.precision, ranks.device, config.model.width)
        objective = ranks.wrap(task.objective())
        done: list[Step] = []
        began = 0.0
        for step, _ in steps(task, objective, optimizer, config.train, config.optim, TrainState(), ranks):
            if step.number == options.warmup:
                began = time.perf_counter()
            elif step.number > options.warmup:
                done.append(step)
            if len(done) == options.steps:
                break
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        wall = time.perf_counter() - began
    if ranks.main:
        audio, wait = (sum(getattr(s, name) for s in done) for name in ("amount", "wait"))
        threads = f"{torch.get_num_threads()} threads each"
        print(f"{len(done)} steps, {audio:.1f} s of audio in {wall:.2f} s on {ranks}, {threads}")
        rates = f"{audio / wall:.1f} s of audio/s"
        print(f"{rates}   data wait {wait / wall:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("transcribe")
    one.add_argument("audio", nargs="+")
    one.add_argument("--model", type=Path)
    one.add_argument("--copies", type=int, default=1)
    one.add_argument("--threads", type=int)
    one.add_argument("--batch-seconds", type=float)
    one.add_argument("--precision", default="auto")
    one.set_defaults(run=transcribe)
    two = verbs.add_parser("train")
    two.add_argument("config", type=Path)
    two.add_argument("overrides", nargs="*")
    two.add_argument("--steps", type=int, default=60)
    two.add_argument("--warmup", type=int, default=10)
    two.set_defaults(run=train)
    for verb in (one, two):
        verb.add_argument("--device", default="auto")
    options = parser.parse_args()
    try:
        options.run(options)
    except AsrError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
