"""The examples of an epoch and their batches, a function of (seed, epoch) and nothing else.

A plan of 30 million utterances (100,000 hours) and 1.5 million joined strings takes 10 s of one core. The
peak memory of the process, with the corpus and the plan of the epoch before, is 1.74 GB
(`benchmarks/plan.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from asr.datasets.corpus import Corpus, sort_by
from asr.datasets.settings import AugmentConfig, DataConfig, JoinConfig

BUCKET = 1.1  # examples whose durations differ by less than this factor are shuffled together
SILENCE_SECONDS = (0.3, 4.0)  # shortest and longest example that has only silence


class Stream(IntEnum):
    """The purposes of random numbers. Each purpose has its own stream."""

    PLAN = 0
    LAYOUT = 1
    ROOM = 2
    GAIN = 3
    NOISE = 4
    WHITE_NOISE = 5
    MIX = 6
    SHARDS = 7
    INJECTION = 8


def random_stream(seed: int, epoch: int, place: int, purpose: Stream) -> np.random.Generator:
    """A generator of its own for each (seed, epoch, place, purpose).

    A plain sequence of integers cannot be the seed: numpy pads it with zeros, so (s, e) would equal (s,
    e, 0). It does not pad `spawn_key`.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, place, purpose)))


@dataclass(frozen=True)
class Example:
    """One input of the model: joined recordings with pauses. Without parts it is silence."""

    parts: tuple[int, ...]  # indices in the corpus
    pauses: tuple[float, ...]  # seconds of silence before, between and after the parts: one more than parts
    speed: float
    key: tuple[int, int, int]  # seed, epoch, number in the epoch: the key of all random changes of this audio


class EpochPlan:
    """The batches of one epoch, or of a pool of its shards. `plan[i]` is the i-th batch, a list of examples.

    The examples of a batch have about the same duration, so there is little padding. The rows times the
    longest row are at most `data.batch_seconds`, to within one sample for each piece of audio; a longer
    example is alone. The batch with the most padded seconds is the first, so that a lack of memory shows
    at once. The others are shuffled. The plan consists of arrays, and an `Example` is made when its batch
    is needed. All random numbers and orders are the same on all machines.

    With `data.shard_pool`, the shards of the corpus are shuffled, and a pool has that many of them. Joined
    strings and silence are divided among the pools.
    """

    def __init__(
        self, corpus: Corpus, data: DataConfig, augment: AugmentConfig, seed: int, epoch: int, pool: int = 0
    ) -> None:
        self._key = (seed, epoch, pool)
        self._augment, self._pad_seconds = augment, np.float32(data.pad_seconds)
        random = random_stream(seed, epoch, pool, Stream.PLAN)
        self._indices = _weigh(corpus, data.weights, random_stream(seed, epoch, 0, Stream.MIX))
        self.shards = np.zeros(0, np.int64)  # those of the pool
        candidates = corpus.by_speaker if augment.join.per_epoch else np.zeros(0, np.int32)
        if data.shard_pool is not None:
            order = random_stream(seed, epoch, 0, Stream.SHARDS).permutation(len(corpus.shard_paths))
            self.shards = order[pool * data.shard_pool : (pool + 1) * data.shard_pool]
            inside = np.isin(corpus.shards, self.shards)
            singles = np.arange(len(corpus), dtype=np.int32) if self._indices is None else self._indices
            self._indices, candidates = singles[inside[singles]], candidates[inside[candidates]]
        self._singles = len(corpus) if self._indices is None else len(self._indices)
        pools = count_pools(corpus, data)
        strings, silences = (_share(n, pool, pools) for n in (augment.join.per_epoch, augment.silence))
        self._parts, self._ends = _draw_strings(corpus, augment.join, random, strings, candidates)
        self._silences = random.uniform(*SILENCE_SECONDS, silences).astype(np.float32)
        spoken = self._singles + len(self._ends) - 1
        self._speeds = random.integers(len(augment.speeds), size=spoken, dtype=np.uint8)
        self.seconds = self._longest(corpus)  # (n_examples,) float32, an upper bound

        self._order, self._starts = _cut(self.seconds, data.batch_seconds, data.max_batch, random)
        self._batches = np.arange(len(self._starts) - 1, dtype=np.int32)
        random.shuffle(self._batches)
        if len(self._batches):
            place = int(self.padded_seconds.argmax())
            self._batches[[0, place]] = self._batches[[place, 0]]

    @property
    def padded_seconds(self) -> np.ndarray:
        """Upper bound of the rows times the longest row of every batch (n_batches,), in the plan's order."""
        longest = np.maximum.reduceat(self.seconds[self._order], self._starts[:-1])
        return (longest * np.diff(self._starts))[self._batches]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[Example]:
        batch = self._batches[index]
        return [self._example(int(i)) for i in self._order[self._starts[batch] : self._starts[batch + 1]]]

    def _longest(self, corpus: Corpus) -> np.ndarray:
        """Upper bounds in seconds (n_examples,) float32. Pauses are drawn later, and count with the
        longest.
        """
        edges = 2 * self._augment.edge_silence
        seconds = np.empty(len(self._speeds) + len(self._silences), np.float32)
        singles, strings, silences = np.split(seconds, [self._singles, len(self._speeds)])
        durations = corpus.durations
        if self._indices is not None:
            durations = durations[self._indices]
        np.divide(durations, self._pick_speeds(slice(0, self._singles)), out=singles)
        singles += np.float32(edges)
        if len(strings):
            spoken = np.add.reduceat(corpus.durations[self._parts], self._ends[:-1], dtype=np.float64)
            gaps = (np.diff(self._ends) - 1) * self._augment.join.max_pause
            strings[:] = spoken / self._pick_speeds(slice(self._singles, None)) + gaps + edges
        silences[:] = self._silences
        if self._pad_seconds:  # a little more, because each piece is rounded to a sample
            seconds = np.ceil((seconds + 1e-3) / self._pad_seconds) * np.float32(self._pad_seconds)
        return seconds

    def _pick_speeds(self, which: slice) -> np.ndarray:
        return np.array(self._augment.speeds, np.float32)[self._speeds[which]]

    def _example(self, index: int) -> Example:
        seed, epoch, pool = self._key
        key = (seed, epoch, pool << 32 | index)
        if index >= len(self._speeds):
            return Example((), (float(self._silences[index - len(self._speeds)]),), 1.0, key)
        string = index - self._singles
        parts: tuple[int, ...] = (index,)
        if string < 0 and self._indices is not None:
            parts = (int(self._indices[index]),)
        elif string >= 0:
            parts = tuple(self._parts[self._ends[string] : self._ends[string + 1]].tolist())
        random, join = random_stream(*key, Stream.LAYOUT), self._augment.join
        before, after = random.uniform(0, self._augment.edge_silence, 2).tolist()
        between = random.uniform(join.min_pause, join.max_pause, len(parts) - 1).tolist()
        return Example(parts, (before, *between, after), self._augment.speeds[self._speeds[index]], key)


def count_pools(corpus: Corpus, data: DataConfig) -> int:
    """The number of pools of an epoch."""
    return 1 if data.shard_pool is None else -(-len(corpus.shard_paths) // data.shard_pool)


def _share(total: int, pool: int, pools: int) -> int:
    """The part of a number that a pool gets. The parts of all pools add up to it."""
    return total * (pool + 1) // pools - total * pool // pools


def _weigh(corpus: Corpus, weights: Sequence[float], random: np.random.Generator) -> np.ndarray | None:
    """The index in the corpus of every single utterance of an epoch (n,) int32; None: each of them once.

    A weight of 2.5 means each utterance of a manifest twice, and half of them, drawn for this epoch, again.
    """
    if not weights or all(weight == 1 for weight in weights):
        return None
    found = []
    for begin, end, weight in zip(corpus.starts, [*corpus.starts[1:], len(corpus)], weights, strict=True):
        manifest = np.arange(begin, end, dtype=np.int32)
        found += [manifest] * int(weight)
        found.append(np.sort(random.permutation(manifest)[: round((weight % 1) * len(manifest))]))
    return np.concatenate(found)


def _cut(
    seconds: np.ndarray, batch_seconds: float, max_batch: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """An order (n,) int32 of the examples, and the starts of the batches in it (n_batches + 1,) int64.

    Buckets come in the order of falling duration. Within a bucket the order is random. The last start is n.
    """
    if not len(seconds):
        return np.zeros(0, np.int32), np.zeros(1, np.int64)
    low, high = seconds.min(), seconds.max()
    # Edges are computed by multiplication, because logarithms can differ in the last bit between machines.
    edges = np.cumprod([low, *[BUCKET] * int(np.ceil(1 + np.log(high / low) / np.log(BUCKET)))])
    edges = np.minimum(edges, high).astype(np.float32)[::-1]  # upper bounds of the buckets, falling
    bucket = np.searchsorted(-edges, -seconds, side="right").astype(np.int16)
    bucket -= 1
    order = sort_by(bucket, random.integers(2**16, size=len(seconds), dtype=np.uint16))
    ends = np.bincount(bucket, minlength=len(edges)).cumsum()
    starts, begin = [], 0
    for edge, end in zip(edges.tolist(), ends.tolist(), strict=True):
        rows = max(1, min(max_batch, int(batch_seconds / edge)))
        starts.append(np.arange(begin, end, rows))
        begin += len(starts[-1]) * rows
    return order, np.concatenate([*starts, [len(seconds)]])


def _draw_strings(
    corpus: Corpus, join: JoinConfig, random: np.random.Generator, total: int, pool: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`total` strings of the recordings `pool` (indices sorted by speaker), each of one speaker.

    A speaker's share follows from the number of recordings. Each number of parts gets the same share of the
    audio, because short strings teach the alignment first. Returns the parts (n_parts,) of all strings and
    the start of each string (n_strings + 1,).
    """
    if not total or not len(pool):
        return np.zeros(0, np.int32), np.zeros(1, np.int64)
    speakers = corpus.speakers[pool]  # rising
    counts = np.arange(join.min_items, join.max_items + 1)
    counts = random.choice(counts, total, p=(1 / counts) / (1 / counts).sum())
    first = random.integers(len(pool), size=total)
    begin = np.searchsorted(speakers, speakers[first], side="left")
    end = np.searchsorted(speakers, speakers[first], side="right")
    starts = np.concatenate([[0], counts.cumsum()])
    if join.order == "neighbors":  # consecutive; near the speaker's last recording, from an earlier start
        counts = np.minimum(counts, end - begin)
        starts = np.concatenate([[0], counts.cumsum()])
        first = np.minimum(first, end - counts)
        places = np.arange(starts[-1]) + np.repeat(first - starts[:-1], counts)
    else:
        places = random.integers(np.repeat(begin, counts), np.repeat(end, counts))
    parts = pool[places]
    seconds = corpus.durations[parts].astype(np.float64).cumsum()
    seconds -= np.repeat((seconds - corpus.durations[parts])[starts[:-1]], counts)
    kept = seconds <= join.max_seconds
    kept[starts[:-1]] = True
    return parts[kept], np.concatenate([[0], kept.cumsum()])[starts]
