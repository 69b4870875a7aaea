"""Batches of audio and tokens, decoded by threads ahead of the step that needs them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from torch import Tensor

from asr import audio
from asr.config import AugmentConfig, Config
from asr.datasets.batching import EpochPlan, Example
from asr.datasets.manifest import Utterance
from asr.tokenizer import PAD, Tokenizer


@dataclass(frozen=True)
class Batch:
    """Padded waveforms (B, samples) with lengths (B,), padded tokens (B, U) with lengths (B,), on the CPU."""

    waveforms: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    ids: list[str]
    texts: list[str]
    seconds: float  # of audio, without padding


class Loader:
    """Turns lists of examples into batches; what was decoded stays in memory up to `data.cache_mb`."""

    def __init__(
        self, utterances: Sequence[Utterance], tokenizer: Tokenizer, config: Config, train: bool
    ) -> None:
        self.utterances = utterances
        self.tokenizer = tokenizer
        self.sample_rate = config.features.sample_rate
        self.augment: AugmentConfig | None = config.augment if train else None
        self.workers = config.data.workers
        self._room = config.data.cache_mb * 2**20
        self._cache: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def batches(self, plan: EpochPlan, start: int = 0) -> Generator[Batch, None, None]:
        """Batches of a plan from `start` on, in its order, each decoded while earlier ones are in use."""
        with ThreadPoolExecutor(self.workers, thread_name_prefix="audio") as pool:
            ahead: deque[Future[Batch]] = deque()
            try:
                for index in range(start, len(plan)):
                    ahead.append(pool.submit(lambda i: self.load(plan[i]), index))
                    if len(ahead) > 2 * self.workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def load(self, examples: list[Example]) -> Batch:
        """Decode, augment and pad. Raises AsrError naming the file when a recording cannot be read."""
        waveforms = [self._waveform(example) for example in examples]
        separator = self.augment.join.separator if self.augment else " "
        texts = [separator.join(self.utterances[i].text for i in example.parts) for example in examples]
        tokens = [self.tokenizer.encode(text) for text in texts]
        return Batch(
            waveforms=_pad([torch.from_numpy(w) for w in waveforms], 0.0),
            lengths=torch.tensor([len(w) for w in waveforms]),
            tokens=_pad([torch.tensor(t, dtype=torch.long) for t in tokens], PAD),
            token_lengths=torch.tensor([len(t) for t in tokens]),
            ids=["+".join(self.utterances[i].id for i in example.parts) or "silence" for example in examples],
            texts=texts,
            seconds=sum(len(w) for w in waveforms) / self.sample_rate,
        )

    def _waveform(self, example: Example) -> np.ndarray:
        parts = [self._read(index) for index in example.parts]
        if example.speed != 1.0:
            parts = [
                soxr.resample(part, self.sample_rate * example.speed, self.sample_rate) for part in parts
            ]
        if self.augment is None:
            return np.concatenate(parts)
        pauses = [np.zeros(round(pause * self.sample_rate), np.float32) for pause in example.pauses]
        pieces = [pauses[0]]
        for part, pause in zip(parts, pauses[1:], strict=True):
            pieces += [part, pause]
        return _change_level(np.concatenate(pieces), self.augment, np.random.default_rng((*example.seed, 1)))

    def _read(self, index: int) -> np.ndarray:
        """A recording, from the cache where it is there. Reading it twice at once does no harm."""
        if (samples := self._cache.get(index)) is not None:
            return samples
        utterance = self.utterances[index]
        samples = audio.read(utterance.audio, self.sample_rate, utterance.start, utterance.duration)
        with self._lock:
            if samples.nbytes <= self._room and index not in self._cache:
                self._cache[index] = samples
                self._room -= samples.nbytes
        return samples


def _change_level(samples: np.ndarray, augment: AugmentConfig, random: np.random.Generator) -> np.ndarray:
    """Random gain; then white noise, whose level does not follow the gain."""
    if augment.gain_db:
        samples = samples * np.float32(10 ** (random.uniform(-augment.gain_db, augment.gain_db) / 20))
    if augment.noise_db is not None:
        level = np.float32(10 ** (random.uniform(*augment.noise_db) / 20))
        samples = samples + level * random.standard_normal(len(samples), dtype=np.float32)
    return samples


def _pad(rows: list[Tensor], value: float) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
