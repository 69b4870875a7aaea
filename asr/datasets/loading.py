"""Batches of audio and tokens. Threads decode them before the step that needs them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import soxr
import torch
from torch import Tensor

from asr import audio
from asr.datasets.augmentation import Augmenter
from asr.datasets.batching import EpochPlan, Example
from asr.datasets.corpus import Corpus
from asr.datasets.manifest import Utterance
from asr.datasets.padding import pad_rows
from asr.datasets.settings import AugmentConfig, DataConfig
from asr.datasets.text_injection import InjectedBatch, InjectedTexts
from asr.errors import AsrError
from asr.tokenizers import Tokenizer

# A recording may be shorter than its utterance by so many seconds plus this share, because lengths of MP3
# files are estimates and annotators round. A recording that is shorter still probably lacks a part of the
# text.
TOLERANCE = (0.1, 0.05)


@dataclass(frozen=True)
class Batch:
    """Padded waveforms (B, samples) with lengths (B,), padded tokens (B, U) with lengths (B,), on the CPU.

    Examples whose recordings cannot be read are missing: B may be 0.
    """

    place: int  # in the plan
    waveforms: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    has_text: Tensor  # (B,) bool; without, a row has no tokens and only the phonemes are a target
    phonemes: Tensor  # (B, P), ids from 1 on, padded with 0, which is the blank
    phoneme_lengths: Tensor
    has_phonemes: Tensor  # (B,) bool
    ids: list[str]
    texts: list[str]
    treatments: list[str]  # a description of each row's augmentation, for people
    amount: float  # seconds of audio, without padding
    bad: tuple[str, ...]  # a message for each recording that could not be read
    injected: InjectedBatch | None = None  # sentences without audio; they are not counted as examples

    @property
    def n_targets(self) -> int:
        """The tokens that a decoder must predict: those of the texts, and EOS after each.

        The phonemes of a row without a text count in place of its tokens.
        """
        instead = self.phoneme_lengths[~self.has_text]
        return int(self.token_lengths.sum()) + int(instead.sum()) + len(self.ids)

    def repeated(self, times: int) -> Batch:
        """The batch with all its rows several times, one copy after the other.

        Waveforms and their lengths, and sentences without audio, are those of this batch.
        """
        return replace(
            self,
            tokens=self.tokens.repeat(times, 1),
            token_lengths=self.token_lengths.repeat(times),
            has_text=self.has_text.repeat(times),
            phonemes=self.phonemes.repeat(times, 1),
            phoneme_lengths=self.phoneme_lengths.repeat(times),
            has_phonemes=self.has_phonemes.repeat(times),
            ids=self.ids * times,
            texts=self.texts * times,
            treatments=self.treatments * times,
        )


class Loader:
    """Turns lists of examples into batches. Decoded audio stays in memory up to `data.cache_mb`.

    With `augment` the audio is augmented, as in training. Without it, recordings are taken as they are.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        sample_rate: int,
        data: DataConfig,
        augment: AugmentConfig | None = None,
        phonemes: str = "",
        max_tokens: int | None = None,
        max_samples: int | None = None,
        texts: InjectedTexts | None = None,
    ) -> None:
        """`phonemes` are the symbols that become targets, with ids from 1 on. Others are left out.

        A text of more than `max_tokens`, and augmented audio of more than `max_samples`, count as recordings
        that cannot be read: the model has no positions for them. Each batch gets sentences of `texts` too.
        """
        self.texts = texts
        self.max_tokens, self.max_samples = max_tokens, max_samples
        self.corpus, self.tokenizer, self.sample_rate = corpus, tokenizer, sample_rate
        self.augmenter = Augmenter(augment, sample_rate) if augment is not None else None
        self._separator = augment.join.separator if augment is not None else " "
        self._phoneme_ids = {symbol: id for id, symbol in enumerate(phonemes, 1)}
        self._sample_multiple = max(1, round(data.pad_seconds * sample_rate))
        self._token_multiple = data.pad_tokens
        self.workers = data.workers
        self._room = data.cache_mb * 2**20  # bytes
        self._cache: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def batches(self, plan: EpochPlan, places: Iterable[int]) -> Generator[Batch, None, None]:
        """The batches at these places of a plan, in this order. Later ones are decoded while earlier ones are
        used.
        """
        with ThreadPoolExecutor(self.workers, thread_name_prefix="audio") as pool:
            ahead: deque[Future[Batch]] = deque()
            try:
                for place in places:
                    ahead.append(pool.submit(lambda i: self.load(plan[i], i), place))
                    if len(ahead) > 2 * self.workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def load(self, examples: Sequence[Example], place: int = 0, read: bool = True) -> Batch:
        """Decode, augment and pad. A recording that cannot be read adds a message to the batch.

        Without `read`, no recording is opened: as much silence takes its place.
        """
        waveforms, tokens, ids, texts, treatments, bad = [], [], [], [], [], []
        phonemes, has_text, has_phonemes = [], [], []
        for example in examples:
            utterances = [self.corpus[index] for index in example.parts]  # an error here ends the training
            id = "+".join(utterance.id for utterance in utterances) or "silence"
            # Every part of a string needs the target. Silence has the empty text and no phonemes.
            known = all(utterance.text is not None for utterance in utterances)
            text = self._separator.join(u.text or "" for u in utterances) if known else ""
            encoded = self.tokenizer.encode(text)
            try:
                make = self._waveform if read else self._silence
                waveform, treatment = make(example, utterances)
                self._check_limits(id, waveform, encoded)
            except AsrError as error:
                bad.append(str(error))
                continue
            waveforms.append(torch.from_numpy(waveform))
            tokens.append(torch.tensor(encoded, dtype=torch.long))
            treatments.append(treatment)
            ids.append(id)
            texts.append(text)
            has_text.append(known)
            has_phonemes.append(all(utterance.phonemes is not None for utterance in utterances))
            pronounced = "".join(u.phonemes or "" for u in utterances) if has_phonemes[-1] else ""
            phonemes.append(self._ids_of_phonemes(pronounced))
        return Batch(
            place,
            waveforms=pad_rows(waveforms, torch.float32, 0.0, self._sample_multiple),
            lengths=torch.tensor([len(w) for w in waveforms], dtype=torch.long),
            tokens=pad_rows(tokens, torch.long, self.tokenizer.special.pad, self._token_multiple),
            token_lengths=torch.tensor([len(t) for t in tokens], dtype=torch.long),
            has_text=torch.tensor(has_text, dtype=torch.bool),
            phonemes=pad_rows(phonemes, torch.long, 0),
            phoneme_lengths=torch.tensor([len(p) for p in phonemes], dtype=torch.long),
            has_phonemes=torch.tensor(has_phonemes, dtype=torch.bool),
            ids=ids,
            texts=texts,
            treatments=treatments,
            amount=sum(len(w) for w in waveforms) / self.sample_rate,
            bad=tuple(bad),
            injected=self.texts.batch(examples[0].key) if self.texts is not None else None,
        )

    def _check_limits(self, id: str, waveform: np.ndarray, tokens: Sequence[int]) -> None:
        """Raise AsrError for an utterance that is too long for the model."""
        if self.max_tokens is not None and len(tokens) > self.max_tokens:
            raise AsrError(
                f"{id}: the text has {len(tokens)} tokens, but the decoder has only {self.max_tokens} "
                "positions; leave the utterance out, or raise positions.max_length"
            )
        if self.max_samples is not None and len(waveform) > self.max_samples:
            seconds, most = len(waveform) / self.sample_rate, self.max_samples / self.sample_rate
            raise AsrError(
                f"{id}: the audio is {seconds:.1f} s long after augmentation, but the window of the "
                f"features has {most:g} s; lower data.max_seconds"
            )

    def _ids_of_phonemes(self, phonemes: str) -> Tensor:
        ids = [self._phoneme_ids[symbol] for symbol in phonemes if symbol in self._phoneme_ids]
        return torch.tensor(ids, dtype=torch.long)

    def _waveform(self, example: Example, utterances: list[Utterance]) -> tuple[np.ndarray, str]:
        """The audio (samples,) of an example, and a description of its augmentation."""
        parts = [self._read(i, u) for i, u in zip(example.parts, utterances, strict=True)]
        if self.augmenter is None:
            return np.concatenate(parts), ""
        done = []
        if example.speed != 1.0:
            rates = self.sample_rate * example.speed, self.sample_rate
            parts = [soxr.resample(part, *rates) for part in parts]
            done.append(f"speed {example.speed:g}")
        pauses = [np.zeros(round(pause * self.sample_rate), np.float32) for pause in example.pauses]
        if sum(map(len, pauses)):
            done.append("pauses " + " ".join(f"{pause:.2f}" for pause in example.pauses) + " s")
        pieces = [pauses[0]]
        for part, pause in zip(parts, pauses[1:], strict=True):
            pieces += [part, pause]
        samples, rest = self.augmenter(np.concatenate(pieces), sum(map(len, parts)), example.key)
        return samples, ", ".join(done + rest)

    def _silence(self, example: Example, utterances: list[Utterance]) -> tuple[np.ndarray, str]:
        """Silence (samples,) as long as the audio of an example, and its description."""
        spoken = sum(utterance.duration or 0.0 for utterance in utterances) / example.speed
        return np.zeros(round((spoken + sum(example.pauses)) * self.sample_rate), np.float32), "silence"

    def _read(self, index: int, utterance: Utterance) -> np.ndarray:
        """A recording, from the cache if it is there. Two threads may read it at once, which does no harm."""
        if (samples := self._cache.get(index)) is not None:
            return samples
        assert utterance.duration is not None, "a corpus has only utterances with a duration"
        samples = audio.read(utterance.audio, self.sample_rate, utterance.start, utterance.duration)
        missing = utterance.duration - len(samples) / self.sample_rate
        if missing > TOLERANCE[0] + TOLERANCE[1] * utterance.duration:
            raise AsrError(
                f"{utterance.audio}: {missing:.2f} s shorter than the {utterance.duration:.2f} s of "
                f"utterance {utterance.id!r}; copy it again, or prepare the corpus again"
            )
        with self._lock:
            if samples.nbytes <= self._room and index not in self._cache:
                self._cache[index] = samples
                self._room -= samples.nbytes
        return samples
