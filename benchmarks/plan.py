"""Measure the time and memory of planning an epoch of a very large corpus, and of reading its manifest.

    python benchmarks/plan.py --utterances 30000000 --lines 1000000

Durations are simulated (12 s on average, as in speech that is cut at pauses). 30 million of them are 100,000
hours. Memory is the peak of the whole process, with the interpreter and its libraries.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from asr.config import AugmentConfig, DataConfig, JoinConfig
from asr.datasets.batching import EpochPlan
from asr.datasets.corpus import Corpus

SPEAKERS = 100_000
TEXT = "the quick brown fox jumps over the lazy dog and then it does so again and again until the evening"


def peak() -> float:
    """The peak memory of this process so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def simulate(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Durations (count,) float32 between 0.5 and 30 s, 12 s on average, and speakers (count,) int32."""
    random = np.random.default_rng(0)
    durations = 0.5 + 29.5 * random.beta(1.5, 2.35, count).astype(np.float32)
    return durations, random.integers(SPEAKERS, size=count, dtype=np.int32)


def measure_reading(count: int) -> None:
    """Write a manifest of `count` lines and read it."""
    durations, speakers = simulate(count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.jsonl"
        with path.open("w") as out:
            for i, (duration, speaker) in enumerate(zip(durations.tolist(), speakers.tolist(), strict=True)):
                record = {"id": f"corpus-{i:09}", "audio": f"audio/{i // 1000:06}/{i:09}.flac", "text": TEXT}
                record |= {"duration": round(duration, 3), "speaker": f"speaker-{speaker}"}
                out.write(json.dumps(record) + "\n")
        began, worked = time.perf_counter(), time.process_time()
        corpus = Corpus.read(DataConfig(train=(path,)), "train")
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        print(
            f"reading {len(corpus):,} lines ({path.stat().st_size / 1e6:.0f} MB): {seconds:.1f} s "
            f"({worked:.1f} s of processor, {worked / count * 1e6:.1f} us a line); peak {peak():.2f} GB"
        )
        places = np.random.default_rng(1).integers(count, size=20_000).tolist()
        began = time.perf_counter()
        for place in places:
            corpus[place]
        print(f"one utterance: {(time.perf_counter() - began) / len(places) * 1e6:.0f} us")


def measure_plan(count: int) -> None:
    """Plan two epochs of `count` utterances with speeds and with neighbors joined."""
    durations, speakers = simulate(count)
    corpus = Corpus(durations, speakers, lambda index: NotImplemented, "simulated")
    offsets = np.arange(count)  # of the lines; a corpus that is read from manifests has them too
    held = (durations.nbytes + speakers.nbytes + offsets.nbytes) / 1e9
    print(f"{count:,} utterances, {corpus.seconds / 3600:,.0f} h: arrays of {held:.2f} GB")
    join = JoinConfig(order="neighbors", per_epoch=count // 20, max_seconds=60)
    augment = AugmentConfig(speeds=(0.9, 1.0, 1.1), join=join)
    for epoch in range(2):
        began, worked = time.perf_counter(), time.process_time()
        plan = EpochPlan(corpus, DataConfig(batch_seconds=600), augment, seed=0, epoch=epoch)
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        longest = np.maximum.reduceat(plan.seconds[plan._order], plan._starts[:-1])
        padded = float((longest * np.diff(plan._starts)).sum())
        share = 1 - float(plan.seconds.sum(dtype=np.float64)) / padded
        print(
            f"epoch {epoch}: {seconds:.1f} s ({worked:.1f} s of processor), "
            f"{len(plan.seconds):,} examples in {len(plan):,} batches, "
            f"{share:.1%} padding, batches {padded / len(plan) / 600:.1%} full; "
            f"peak {peak():.2f} GB"
        )
        began = time.perf_counter()
        places = range(0, len(plan), 1 + len(plan) // 1000)
        made = sum(len(plan[place]) for place in places)
        print(f"one example of a batch: {(time.perf_counter() - began) / made * 1e6:.0f} us")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--utterances", type=int, default=30_000_000, help="in the plan; 0: no plan")
    parser.add_argument("--lines", type=int, default=1_000_000, help="of the manifest; 0: no manifest")
    arguments = parser.parse_args()
    if arguments.lines:
        measure_reading(arguments.lines)
    if arguments.utterances:
        measure_plan(arguments.utterances)


if __name__ == "__main__":
    main()
