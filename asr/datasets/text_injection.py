"""Text without audio for training: sentences with phonemes, as an encoder's phoneme head predicts them.

Each line of the file is a JSON object with `text` and `phonemes`, in which spaces separate words. Phonemes
may have errors, as those of the head have; `recipes/english/misheard.py` writes such a file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
import torch
from pydantic_core import from_json
from torch import Tensor

from asr.datasets.batching import Stream, random_stream
from asr.datasets.corpus import lacks
from asr.datasets.manifest import iter_lines
from asr.datasets.padding import pad_rows
from asr.datasets.settings import TextInjectionConfig
from asr.errors import AsrError
from asr.tokenizers import Tokenizer

FRAME_MULTIPLE = 64  # frames; few shapes of batches, for which kernels are compiled on a CPU
FRAMES_PER_PHONEME = (1.6, 4.5)  # mean of a sentence: from fast to slow speakers, in states of 40 ms
PAUSE = (0.25, 10)  # probability of a pause between words, and its longest duration in frames
TWO_FRAMES = 0.18  # share of the phonemes that have two frames. CTC is sure of the blank elsewhere.


@dataclass(frozen=True)
class InjectedBatch:
    """Simulated probabilities of phonemes (B, S, P), lengths (B,), tokens (B, U), and their lengths (B,)."""

    probabilities: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor

    def to(self, device: torch.device) -> InjectedBatch:
        """The same on a device."""
        return InjectedBatch(*(getattr(self, each.name).to(device) for each in fields(self)))


class InjectedTexts:
    """Sentences, of which each batch of audio gets some.

    They are sorted by length, and a batch gets consecutive ones, so there is little padding.
    """

    def __init__(
        self,
        config: TextInjectionConfig,
        symbols: str,
        tokenizer: Tokenizer,
        max_tokens: int | None = None,
        token_multiple: int = 1,
    ) -> None:
        """`symbols` are the phonemes, with ids from 1 on; the blank is 0. Other phonemes are left out.

        Raises AsrError for a missing file and, with file and line, for a line without text or phonemes, a
        character that the tokenizer does not have, and a text of more than `max_tokens`.
        """
        self.count, self._n_phonemes = config.sentences, len(symbols) + 1
        self._pad, self._token_multiple = tokenizer.special.pad, token_multiple
        ids = {symbol: id for id, symbol in enumerate(symbols, 1)} | {" ": 0}
        digest, sentences = hashlib.sha256(), []
        known_characters: set[str] = set()
        for number, _, line in iter_lines(config.file):
            digest.update(line)
            try:
                text, phonemes = _parse(line)
                tokens = tokenizer.encode(text)
                if any(lacks(tokenizer, character) for character in set(text) - known_characters):
                    raise AsrError(f"the tokenizer does not have all characters of {text!r}; leave it out")
                if max_tokens is not None and len(tokens) > max_tokens:
                    raise AsrError(f"{len(tokens)} tokens, but the decoder has only {max_tokens} positions")
            except AsrError as error:
                raise AsrError(f"{config.file}, line {number}: {error}") from None
            known_characters.update(text)
            phoneme_ids = [ids[symbol] for symbol in phonemes if symbol in ids]
            sentences.append((np.array(phoneme_ids, np.int32), np.array(tokens, np.int32)))
        if len(sentences) < self.count:
            raise AsrError(
                f"{config.file}: {len(sentences)} sentences, but train.text_injection.sentences is "
                f"{self.count}; lower it, or add sentences"
            )
        self._sentences = sorted(sentences, key=lambda sentence: len(sentence[0]))
        self.fingerprint = f"{len(sentences)} sentences, {digest.hexdigest()}"

    def __len__(self) -> int:
        return len(self._sentences)

    def batch(self, key: tuple[int, int, int]) -> InjectedBatch:
        """The sentences of a batch, a function of the key (seed, epoch, number) and nothing else."""
        random = random_stream(*key, Stream.INJECTION)
        first = int(random.integers(len(self._sentences) - self.count + 1))
        chosen = self._sentences[first : first + self.count]
        rows = [self._simulate(phonemes, random) for phonemes, _ in chosen]
        tokens = [torch.from_numpy(tokens).long() for _, tokens in chosen]
        return InjectedBatch(
            pad_rows(rows, torch.float32, 0.0, FRAME_MULTIPLE),
            torch.tensor([len(frames) for frames in rows]),
            pad_rows(tokens, torch.long, self._pad, self._token_multiple),
            torch.tensor([len(row) for row in tokens]),
        )

    def _simulate(self, phonemes: np.ndarray, random: np.random.Generator) -> Tensor:
        """Probabilities (S, P) of a sentence: short peaks, and the blank between them.

        Half of the peaks have more than 0.92, and a tenth have less than 0.56, as those of the English model
        have for speakers that it does not know.
        """
        low, high = FRAMES_PER_PHONEME
        extra = random.poisson(random.uniform(low, high) - 1, len(phonemes))
        pause = (random.random(len(phonemes)) < PAUSE[0]) * random.integers(PAUSE[1] + 1, size=len(phonemes))
        durations = np.where(phonemes > 0, 1 + extra, pause)  # (n,) frames of each phoneme and of each gap
        starts = np.cumsum(durations) - durations
        spoken = np.flatnonzero(phonemes)
        peaks = starts[spoken] + (random.random(len(spoken)) * durations[spoken]).astype(int)  # (n_phonemes,)
        values = 1 - 0.6 * random.random(len(spoken)) ** 3
        frames = np.zeros((int(durations.sum()) + 1, self._n_phonemes), np.float32)
        ends = starts[spoken] + durations[spoken]
        second = np.flatnonzero((random.random(len(spoken)) < TWO_FRAMES) & (peaks + 1 < ends))
        frames[peaks[second] + 1, phonemes[spoken[second]]] = values[second]
        frames[peaks, phonemes[spoken]] = values
        frames[:, 0] = 1 - frames.sum(1)
        return torch.from_numpy(frames)


def _parse(line: bytes) -> tuple[str, str]:
    """Text and phonemes of a line. Raises AsrError for another form."""
    try:
        record = from_json(line)
        text, phonemes = record["text"], record["phonemes"]
    except (ValueError, TypeError, KeyError):
        text = phonemes = None
    if not isinstance(text, str) or not isinstance(phonemes, str):
        raise AsrError('expected a JSON object such as {"text": "a cat", "phonemes": "ɐ kæt"}')
    return text, phonemes
