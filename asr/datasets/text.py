"""Plain text, one sentence a line, read in blocks in a seeded order: no more than a pool is ever in memory.

A file is cut into blocks at fixed bytes; a line belongs to the block in which it begins. An epoch takes the
blocks of all files in an order that follows from (seed, epoch), a pool of blocks at a time; the sentences of
a pool are shuffled and batched by length. What follows a place (epoch, pool, batch) can be read from there.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from asr.config import TextConfig
from asr.errors import AsrError
from asr.tokenizers import BOS, EOS, PAD, CharacterTokenizer, Tokenizer, normalize_text

BLOCK = 1 << 16  # bytes
POOL = 256  # blocks; 16 MiB of text are shuffled and sorted at a time
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
CASES: dict[str, Callable[[str], str]] = {"as_is": str, "upper": str.upper, "lower": str.lower}
LONGEST = 1 << 20  # bytes of a line that are looked at, far more than a sentence may have


class Place(NamedTuple):
    """How far an endless stream of batches has been read."""

    epoch: int = 0
    pool: int = 0
    batch: int = 0  # of the pool


START = Place()


@dataclass(frozen=True)
class Source:
    """The bytes of a text file from `start` to `end`, which are at the beginnings of lines."""

    path: Path
    file: BinaryIO
    start: int
    end: int

    @classmethod
    def open(cls, path: Path, scratch: Path) -> Source:
        """Open a text file; .gz and .xz are unpacked into a nameless file in the folder `scratch`.

        Raises AsrError when the file is missing, or is not what its finish_reason says.
        """
        opener = OPENERS.get(path.suffix)
        file: BinaryIO
        try:
            if opener is None:
                file = path.open("rb")
            else:
                with opener(path, "rb") as packed:
                    scratch.mkdir(parents=True, exist_ok=True)
                    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  lives as long as the source
                    shutil.copyfileobj(packed, file, BLOCK)
            return cls(path, file, 0, file.seek(0, 2))
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise AsrError(f"{path}: cannot be read as text ({reason}); check the file") from None

    def split(self, lines: int) -> tuple[Source, Source]:
        """All but the last so many lines, and those. Raises AsrError where nothing would be left."""
        position, found = self.end, -1 if self._ends_with_newline() else 0
        while position > self.start:
            begin = max(self.start, position - BLOCK)
            self.file.seek(begin)
            data = self.file.read(position - begin)
            newlines = [i for i, byte in enumerate(data) if byte == 10]
            if found + len(newlines) >= lines:
                middle = begin + newlines[-(lines - found)] + 1
                return replace(self, end=middle), replace(self, start=middle)
            found, position = found + len(newlines), begin
        raise AsrError(
            f"{self.path}: {max(0, found + 1)} lines, of which hold_out {lines} leaves none to train on; "
            "hold out fewer"
        )

    def lines(self, start: int, end: int) -> Iterator[str]:
        """The lines that begin in bytes [start, end). Raises AsrError for what is not UTF-8."""
        if start == self.start:
            self.file.seek(start)
        else:  # what began before is another block's
            self.file.seek(start - 1)
            start += len(self.file.readline(end - start + 1)) - 1
        while start < end:
            line = self.file.readline(LONGEST)
            try:
                yield line.decode("utf-8", "strict" if len(line) < LONGEST else "ignore").lstrip("\ufeff")
            except UnicodeDecodeError as error:
                raise AsrError(
                    f"{self.path}: byte {start + error.start} is not UTF-8; convert the file, as with iconv"
                ) from None
            start += len(line)
            self.file.seek(start)  # whoever was given the line may have read elsewhere

    def _ends_with_newline(self) -> bool:
        self.file.seek(max(self.start, self.end - 1))
        return self.file.read(1) == b"\n"


@dataclass
class Survey:
    """What a text holds."""

    sentences: int = 0
    characters: int = 0  # without the ends of lines
    too_long: int = 0
    unknown: int = 0  # sentences with characters that are not the model's
    first_unknown: str = ""

    def __str__(self) -> str:
        out = f"{self.sentences:,} sentences, {self.characters:,} characters"
        if self.too_long:
            out += f"; left out: {self.too_long:,} longer than data.max_characters"
        if self.unknown:
            out += f"; left out: {self.unknown:,} with unknown characters, such as {self.first_unknown!r}"
        return out


class Text:
    """The sentences of some sources."""

    def __init__(self, sources: Sequence[Source], config: TextConfig) -> None:
        self.sources, self.config = sources, config
        counts = [-(-(source.end - source.start) // BLOCK) for source in sources]
        self._first = np.cumsum([0, *counts])  # of each source, among all blocks

    def sentences(self, blocks: Iterable[int] | None = None) -> Iterator[str]:
        """The sentences of some blocks (None: all, in order): normalized, not empty, in the case asked for."""
        convert = CASES[self.config.case]
        for block in range(self._first[-1]) if blocks is None else blocks:
            index = int(np.searchsorted(self._first, block, side="right")) - 1
            source = self.sources[index]
            start = source.start + int(block - self._first[index]) * BLOCK
            for line in source.lines(start, min(start + BLOCK, source.end)):
                if sentence := normalize_text(convert(line)):
                    yield sentence

    def learn(self) -> Tokenizer:
        """A tokenizer of all characters of all sentences that are not too long."""
        limit = self.config.max_characters
        kept = (sentence for sentence in self.sentences() if len(sentence) <= limit)
        return CharacterTokenizer.from_characters(c for sentence in kept for c in sentence)

    def survey(self, tokenizer: Tokenizer) -> Survey:
        """Count what will be used and what will be left out, reading everything once."""
        found, known = Survey(), frozenset(tokenizer.symbols)
        for sentence in self.sentences():
            if len(sentence) > self.config.max_characters:
                found.too_long += 1
            elif not known.issuperset(sentence):
                found.unknown += 1
                found.first_unknown = found.first_unknown or tokenizer.unknown(sentence)[0]
            else:
                found.sentences += 1
                found.characters += len(sentence)
        return found

    def batches(self, tokenizer: Tokenizer, seed: int, place: Place) -> Iterator[tuple[Place, Tensor]]:
        """Batches from a place on, without end, each with the place that comes after it.

        A batch (B, U) has rows BOS, characters, EOS, padded with PAD.
        """
        while True:
            order = np.random.default_rng((seed, place.epoch)).permutation(int(self._first[-1]))
            for pool in range(place.pool, -(-len(order) // POOL)):
                generator = np.random.default_rng((seed, place.epoch, pool + 1))
                batches = self._pool(tokenizer, order[pool * POOL : (pool + 1) * POOL], generator)
                for number, batch in enumerate(batches[place.batch :], place.batch + 1):
                    yield Place(place.epoch, pool, number), padded(batch)
                place = Place(place.epoch, pool + 1)
            place = Place(place.epoch + 1)

    def in_order(self, tokenizer: Tokenizer) -> Iterator[Tensor]:
        """All sentences once, in batches as above; the same at every call."""
        for first in range(0, int(self._first[-1]), POOL):
            blocks = range(first, min(first + POOL, int(self._first[-1])))
            yield from map(padded, self._pool(tokenizer, blocks, None))

    def _pool(
        self, tokenizer: Tokenizer, blocks: Iterable[int], generator: np.random.Generator | None
    ) -> list[list[np.ndarray]]:
        """Batches of sentences of similar length, out of some blocks, in a random order if one is wanted."""
        limit, known = self.config.max_characters, frozenset(tokenizer.symbols)
        pool = [
            np.array(tokenizer.encode(sentence), dtype=np.int32)
            for sentence in self.sentences(blocks)
            if len(sentence) <= limit and known.issuperset(sentence)
        ]
        if generator is not None:
            generator.shuffle(pool)
        pool.sort(key=len)
        batches = []
        while pool:  # the longest sentences first, with EOS
            fit = max(1, self.config.batch_characters // (len(pool[-1]) + 1))
            batches.append(pool[-fit:])
            del pool[-fit:]
        if generator is not None:
            generator.shuffle(batches)
        return batches


def padded(sentences: Sequence[np.ndarray | Sequence[int]]) -> Tensor:
    """Rows BOS, tokens, EOS, then PAD: (B, longest + 2)."""
    out = torch.full((len(sentences), max(map(len, sentences)) + 2), PAD)
    out[:, 0] = BOS
    for row, sentence in zip(out, sentences, strict=True):
        row[1 : len(sentence) + 1] = torch.as_tensor(sentence)
        row[len(sentence) + 1] = EOS
    return out
