"""Long jobs: several processes against one, a recording of hours, and runs that are killed and started again.

    python benchmarks/overnight.py workers data/samples --copies 40 --workers 2
    python benchmarks/overnight.py long data/samples --hours 3 [--plot memory.png]
    python benchmarks/overnight.py short data/samples/digits --copies 1000 [--plot memory.png]
    python benchmarks/overnight.py kill data/samples --copies 20 --times 20

`workers` prints the speed (RTFx) of one process with one thread and of several, in turns, and checks that
all texts are equal and in order. `long` makes a recording of speech and pauses, transcribes it block by
block, and prints the memory above that after the first short recording, and whether every word was found
once. `short` transcribes many short files in one process, and prints memory, the share of the start-up, and
whether every copy of a file got the same text. `kill` ends a run with SIGKILL at random moments, continues it
with --resume, and compares its files with those of a run that nothing disturbed. The load of the machine is
printed: it changes all figures.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import torch
from rapidfuzz.distance import Levenshtein

from asr import audio
from asr.errors import AsrError
from asr.threads import cores
from asr.transcription.inputs import Input, find_inputs
from asr.transcription.pieces import PieceReader
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Transcript
from asr.transcription.workers import WorkerPool

T = TypeVar("T")

RATE = 16000


def workers(options: argparse.Namespace) -> None:
    """One process and several, in turns."""
    torch.set_num_threads(1)
    inputs = all_inputs(options.audio) * options.copies
    recognizer = Recognizer(options.model, "cpu")
    with WorkerPool(recognizer, options.workers) as pool:
        list(recognizer.transcribe_all(inputs[:10]))
        dict(pool.transcribe(inputs[: 10 * options.workers]))
        ratios = []
        for _ in range(options.rounds):
            began = time.perf_counter()
            alone = list(recognizer.transcribe_all(inputs))
            one = time.perf_counter() - began
            began = time.perf_counter()
            found = dict(pool.transcribe(inputs))
            several = time.perf_counter() - began
            if [text_of(found[i]) for i in range(len(inputs))] != [text_of(each) for each in alone]:
                sys.exit("the texts differ")
            seconds = sum(each.duration for each in alone if isinstance(each, Transcript))
            ratios.append(one / several)
            print(
                f"{len(inputs)} files, {seconds:.0f} s: RTFx {seconds / one:.0f} with one process, "
                f"{seconds / several:.0f} with {options.workers}; ratio {one / several:.2f}; "
                f"load {os.getloadavg()[0]:.1f} on {cores()} cores; same texts in the same order",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f}")


@dataclass
class Watch:
    """What a piece of work took."""

    samples: list[tuple[float, float]]  # seconds since its beginning, and memory of the process in MB
    waited: float  # seconds for audio
    wall: float
    processor: float

    @property
    def peak(self) -> float:
        """MB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def report(self, seconds: float) -> None:
        """Print figures for so many seconds of audio."""
        before = self.samples[0][1]
        print(f"memory before {before:.0f} MB, peak {self.peak:.0f} MB, above {self.peak - before:.0f} MB")
        print(f"RTFx {seconds / self.wall:.0f}, {seconds / self.processor:.0f} by processor time")
        load = os.getloadavg()[0]
        print(
            f"the model waited for audio {self.waited / self.wall:.1%} of {self.wall:.0f} s; load {load:.1f}"
        )


def watch(work: Callable[[], T]) -> tuple[T, Watch]:
    """The result of some work, and what it took."""
    samples = [(0.0, resident())]
    stop = threading.Event()
    began, processor = time.perf_counter(), time.process_time()

    def look() -> None:
        while not stop.wait(1):
            samples.append((time.perf_counter() - began, resident()))

    threading.Thread(target=look, daemon=True).start()
    waited = count_waiting()
    result = work()
    wall, processor = time.perf_counter() - began, time.process_time() - processor
    stop.set()
    return result, Watch(samples, sum(waited), wall, processor)


def long(options: argparse.Namespace) -> None:
    """A recording of hours: memory, words, and waiting for audio."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        parts = [audio.read(i.audio, RATE) for i in all_inputs(options.audio)]  # type: ignore[arg-type]
        rounds = make_long(path, parts, options.hours)
        recognizer = Recognizer(options.model, "cpu")
        expected = " ".join(recognizer.transcribe(part, RATE).text for part in parts)
        transcript, took = watch(lambda: recognizer.transcribe(path))
    words, reference = transcript.text.split(), expected.split() * rounds
    wrong = Levenshtein.distance(words, reference)
    hours = transcript.duration / 3600
    print(f"{hours:.2f} h, {len(transcript.segments)} segments of {rounds * len(parts)} parts")
    print(f"{len(words)} words, {len(reference)} in the parts one by one, {wrong} edits between them")
    took.report(transcript.duration)
    if options.plot:
        plot(took.samples, options.plot)


def short(options: argparse.Namespace) -> None:
    """Many short files in one process: memory, start-up, and waiting for audio."""
    torch.set_num_threads(1)
    originals = all_inputs(options.audio)
    with tempfile.TemporaryDirectory() as folder:
        for copy in range(options.copies):
            for original in originals:
                link = Path(folder) / f"{copy:05}_{Path(str(original.audio)).name}"
                link.symlink_to(Path(str(original.audio)).resolve())
        recognizer = Recognizer(options.model, "cpu")
        expected = [recognizer.transcribe(input).text for input in originals]
        start_up = age()
        inputs = all_inputs([folder])
        found, took = watch(lambda: list(recognizer.transcribe_all(inputs)))
    texts = [text_of(result)[1] for result in found]
    different = sum(text != expected[i % len(originals)] for i, text in enumerate(texts))
    seconds = sum(result.duration for result in found if isinstance(result, Transcript))
    print(f"{len(texts)} files, {seconds / 3600:.2f} h, {different} texts differ from those of one by one")
    took.report(seconds)
    print(f"start-up {start_up:.1f} s, {start_up / (start_up + took.wall):.1%} of the whole time")
    if options.plot:
        plot(took.samples, options.plot)


def make_long(path: Path, parts: list[np.ndarray], hours: float) -> int:
    """Write a recording in which all parts come again and again, after pauses with faint noise."""
    draw = np.random.default_rng(0)
    rounds, seconds = 0, 0.0
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as out:
        while seconds < hours * 3600:
            for part in parts:
                pause = 1e-4 * draw.standard_normal(round(draw.uniform(1.5, 12) * RATE))
                out.write(np.concatenate([pause, part]))
                seconds += (len(pause) + len(part)) / RATE
            rounds += 1
    return rounds


def count_waiting() -> list[float]:
    """A list that grows by the seconds for which the model waits for audio."""
    waited: list[float] = []
    original = PieceReader.read_ahead

    def timed(self: PieceReader, inputs):  # type: ignore[no-untyped-def]
        for job, pieces in timed_items(original(self, inputs)):
            yield job, timed_items(pieces)

    def timed_items(items):  # type: ignore[no-untyped-def]
        iterator = iter(items)
        while True:
            began = time.perf_counter()
            item = next(iterator, None)
            waited.append(time.perf_counter() - began)
            if item is None:
                return
            yield item

    PieceReader.read_ahead = timed  # type: ignore[method-assign]
    return waited


def kill(options: argparse.Namespace) -> None:
    """Runs that are killed, against one that is not."""
    inputs = all_inputs(options.audio)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "audio"
        source.mkdir()
        for i in range(options.copies):
            for number, input in enumerate(inputs):
                (source / f"{i:03}_{number:03}.wav").symlink_to(Path(str(input.audio)).resolve())
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        began = time.perf_counter()
        run(options, source, whole).wait()
        length = time.perf_counter() - began
        kills = 0
        while kills < options.times:
            process = run(options, source, killed)
            try:
                process.wait(draw.uniform(0.3, 1.0) * length)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                done = len(list(killed.glob("*.txt"))) if killed.exists() else 0
                print(f"killed {kills} times, {done} of {len(inputs) * options.copies} done", flush=True)
                if draw.random() < 0.5 and done:  # give the next run something to do again
                    for path in draw.sample(sorted(killed.glob("*.txt")), done // 2):
                        path.unlink()
        run(options, source, killed).wait()
        same = {p.name: p.read_bytes() for p in whole.iterdir()} == {
            p.name: p.read_bytes() for p in killed.iterdir()
        }
        print(f"killed {kills} times; {len(list(whole.iterdir()))} files; all files equal: {same}")
        sys.exit(not same)


def run(options: argparse.Namespace, source: Path, target: Path) -> subprocess.Popen[bytes]:
    """`asr transcribe --resume` in another process."""
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "cli.py"),
        "transcribe",
        str(source),
        "--resume",
    ]
    command += ["--output-dir", str(target), "--workers", str(options.workers)]
    return subprocess.Popen([*command, *(["--model", options.model] if options.model else [])])


def all_inputs(arguments: list[str]) -> list[Input]:
    inputs, problems = find_inputs(arguments)
    if problems:
        raise problems[0]
    return inputs


def text_of(result: Transcript | AsrError) -> tuple[str, str]:
    return (result.id, result.text) if isinstance(result, Transcript) else ("", str(result))


def resident() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def age() -> float:
    """Seconds since this process was started."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - started / os.sysconf("SC_CLK_TCK")


def plot(samples: list[tuple[float, float]], path: Path) -> None:
    """Memory over time, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3))
    axes = figure.add_subplot()
    axes.plot(*zip(*samples, strict=True))
    axes.set(xlabel="seconds", ylabel="memory in MB", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    for function in (workers, long, short, kill):
        verb = verbs.add_parser(function.__name__)
        verb.add_argument("audio", nargs="+")
        verb.add_argument("--model")
        verb.add_argument("--workers", type=int, default=2)
        verb.set_defaults(run=function)
        if function is long:
            verb.add_argument("--hours", type=float, default=3.0)
        else:
            verb.add_argument("--copies", type=int, default=20)
        if function in (long, short):
            verb.add_argument("--plot", type=Path)
        if function is workers:
            verb.add_argument("--rounds", type=int, default=3)
        if function is kill:
            verb.add_argument("--times", type=int, default=20)
            verb.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        options.run(options)
    except AsrError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
