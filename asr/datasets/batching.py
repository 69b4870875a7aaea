"""Which examples an epoch has, and in which batches: a function of (seed, epoch) and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.config import AugmentConfig, DataConfig
from asr.datasets.manifest import Utterance

BUCKET = 1.1  # examples whose durations differ by less than this factor are shuffled among each other
SILENCE_SECONDS = (0.3, 4.0)  # examples of nothing but silence are so long


@dataclass(frozen=True)
class Example:
    """One input of the model: recordings joined with pauses, or silence alone when there are no parts."""

    parts: tuple[int, ...]  # places in the list of utterances
    pauses: tuple[float, ...]  # seconds of silence before, between and after the parts: one more than parts
    speed: float
    seed: tuple[int, ...]  # of everything random that is done to this audio


class EpochPlan:
    """The batches of one epoch; `plan[i]` is the i-th batch, a list of examples.

    Only arrays are held: an `Example` is made when its batch is asked for. Batches take examples of about
    the same duration, so that little is padded, and their padded seconds stay below `data.batch_seconds`.
    The heaviest batch comes first, so that want of memory shows at once; the others are shuffled.
    """

    def __init__(
        self, utterances: Sequence[Utterance], data: DataConfig, augment: AugmentConfig, seed: int, epoch: int
    ) -> None:
        self._key = (seed, epoch)
        random = np.random.default_rng(self._key)
        singles = np.array([u.duration for u in utterances])
        self._strings = _draw_strings(utterances, augment, random)
        self._silences = random.uniform(*SILENCE_SECONDS, augment.silence)
        joined = np.array([singles[list(string)].sum() for string in self._strings])
        spoken = np.concatenate([singles, joined])
        self._speeds = random.choice(np.array(augment.speeds), len(spoken))

        # Pauses are drawn with the audio, from the example's own seed; here their longest is counted.
        gaps = np.array([len(string) - 1 for string in self._strings]) * augment.join.max_pause
        longest = (
            spoken / self._speeds + np.concatenate([np.zeros(len(singles)), gaps]) + 2 * augment.edge_silence
        )
        self.seconds = np.concatenate([longest, self._silences])  # (n_examples,), an upper bound

        bucket = np.ceil(np.log(self.seconds) / np.log(BUCKET))
        place = bucket + random.random(len(bucket)) * 0.999
        place[self.seconds.argsort()[-1:]] = np.inf  # the longest of all comes first
        self._order = np.argsort(-place)
        bound = np.minimum(BUCKET ** bucket[self._order], self.seconds.max(initial=0.0))  # falling
        starts = [0]
        while starts[-1] < len(bound):
            fit = int(data.batch_seconds / bound[starts[-1]])
            starts.append(min(len(bound), starts[-1] + max(1, min(data.max_batch, fit))))
        self._starts = np.array(starts)
        self._batches = 1 + random.permutation(max(0, len(starts) - 2))
        if len(starts) > 1:  # the sort put the longest example into batch 0
            self._batches = np.concatenate([[0], self._batches])
        self._singles, self._edge, self._join = len(singles), augment.edge_silence, augment.join

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[Example]:
        batch = self._batches[index]
        return [self._example(int(i)) for i in self._order[self._starts[batch] : self._starts[batch + 1]]]

    def _example(self, index: int) -> Example:
        seed = (*self._key, index)
        random = np.random.default_rng(seed)
        if index >= len(self._speeds):
            return Example((), (float(self._silences[index - len(self._speeds)]),), 1.0, seed)
        parts = (index,) if index < self._singles else self._strings[index - self._singles]
        before, after = random.uniform(0, self._edge, 2)
        between = random.uniform(self._join.min_pause, self._join.max_pause, len(parts) - 1)
        return Example(parts, (before, *between.tolist(), after), float(self._speeds[index]), seed)


def _draw_strings(
    utterances: Sequence[Utterance], augment: AugmentConfig, random: np.random.Generator
) -> list[tuple[int, ...]]:
    """Strings of recordings of one speaker each; speakers as often as they have recordings.

    Each count of parts gets the same share of the audio: alignment is learnt on the short strings first.
    """
    if not augment.join.per_epoch:
        return []
    of_speaker: dict[str | None, list[int]] = {}
    for index, utterance in enumerate(utterances):
        of_speaker.setdefault(utterance.speaker, []).append(index)
    counts = np.arange(augment.join.min_items, augment.join.max_items + 1)
    share = (1 / counts) / (1 / counts).sum()
    drawn = random.choice(counts, augment.join.per_epoch, p=share)
    strings = []
    for first, count in zip(random.integers(len(utterances), size=len(drawn)), drawn, strict=True):
        pool = of_speaker[utterances[first].speaker]
        parts = [int(i) for i in random.choice(pool, count)]
        total = np.cumsum([utterances[i].duration for i in parts])
        strings.append(tuple(parts[: max(1, int((total <= augment.join.max_seconds).sum()))]))
    return strings
