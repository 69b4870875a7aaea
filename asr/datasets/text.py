"""Plain text, one sentence per line, read in blocks in a seeded order. At most one pool is in memory.

A file is divided into blocks of equal size. A line belongs to the block in which it begins. An epoch takes
the blocks of all files in an order that is a function of (seed, epoch), one pool of blocks at a time. The
sentences of a pool are shuffled and batched by length. So a run can be resumed at any batch of a pool.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from asr.datasets.settings import TextConfig
from asr.errors import AsrError
from asr.tokenizers import SpecialTokens, Tokenizer, normalize_text

BLOCK = 1 << 16  # bytes
POOL = 256  # blocks: 16 MiB of text are shuffled and sorted together
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
CASES: dict[str, Callable[[str], str]] = {"as_is": str, "upper": str.upper, "lower": str.lower}
LONGEST = 1 << 20  # bytes of a line that are read; a sentence is much shorter


@dataclass(frozen=True)
class TextFile:
    """The bytes of a text file from `start` to `end`. Lines begin at both."""

    path: Path
    file: BinaryIO
    start: int
    end: int

    @classmethod
    def open(cls, path: Path, scratch: Path) -> TextFile:
        """Open a text file. .gz and .xz are unpacked into an unnamed file in the folder `scratch`.

        Raises AsrError when the file is missing, or its content does not match its suffix.
        """
        opener = OPENERS.get(path.suffix)
        file: BinaryIO
        try:
            if opener is None:
                file = path.open("rb")
            else:
                with opener(path, "rb") as packed:
                    scratch.mkdir(parents=True, exist_ok=True)
                    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  open as long as this object
                    shutil.copyfileobj(packed, file, BLOCK)
            return cls(path, file, 0, file.seek(0, 2))
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise AsrError(f"{path}: cannot be read as text ({reason}); check the file") from None

    def split(self, lines: int) -> tuple[TextFile, TextFile]:
        """All but the last `lines` lines, and these. Raises AsrError when nothing would be left."""
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
            f"{self.path}: the file has {max(0, found + 1)} lines, and hold_out {lines} leaves no line for "
            "training; lower data.hold_out"
        )

    def lines(self, start: int, end: int) -> Iterator[str]:
        """The lines that begin in bytes [start, end). Raises AsrError for bytes that are not UTF-8."""
        if start == self.start:
            self.file.seek(start)
        else:  # a line that began before belongs to another block
            self.file.seek(start - 1)
            start += len(self.file.readline(end - start + 1)) - 1
        while start < end:
            line = self.file.readline(LONGEST)
            try:
                yield line.decode("utf-8", "strict" if len(line) < LONGEST else "ignore").lstrip("\ufeff")
            except UnicodeDecodeError as error:
                raise AsrError(
                    f"{self.path}: byte {start + error.start} is not UTF-8; convert the file with iconv"
                ) from None
            start += len(line)
            self.file.seek(start)  # the caller may have read at another position in between

    def _ends_with_newline(self) -> bool:
        self.file.seek(max(self.start, self.end - 1))
        return self.file.read(1) == b"\n"


@dataclass
class Survey:
    """The counts of a text."""

    sentences: int = 0
    characters: int = 0  # without line ends
    too_long: int = 0
    too_many_tokens: int = 0
    unknown: int = 0  # sentences with characters that the model lacks
    first_unknown: str = ""

    def __str__(self) -> str:
        out = f"{self.sentences:,} sentences, {self.characters:,} characters"
        if self.too_long:
            out += f"; left out: {self.too_long:,} longer than data.max_characters"
        if self.too_many_tokens:
            out += f"; left out: {self.too_many_tokens:,} with more tokens than the model has positions"
        if self.unknown:
            out += f"; left out: {self.unknown:,} with unknown characters, such as {self.first_unknown!r}"
        return out


@dataclass(frozen=True)
class TextBatch:
    """Padded tokens (B, U): rows of the prompt, the tokens, EOS. `n_targets` of them are to be predicted."""

    place: int  # in the pool
    tokens: Tensor
    lengths: Tensor  # (B,) with prompt and EOS
    n_targets: int
    bad: tuple[str, ...] = ()  # a sentence can always be read

    @property
    def ids(self) -> Sequence[str]:
        """The numbers of the sentences in the batch, because sentences have no names."""
        return [f"sentence {i}" for i in range(len(self.tokens))]

    @property
    def amount(self) -> float:
        """The same as `n_targets`."""
        return self.n_targets


@dataclass(frozen=True)
class TextPool:
    """Batches of token sequences of similar length."""

    groups: list[list[np.ndarray]]
    special: SpecialTokens

    def __len__(self) -> int:
        return len(self.groups)

    def batches(self, places: Iterable[int]) -> Generator[TextBatch, None, None]:
        """The batches at these places, in this order."""
        for place in places:
            group = self.groups[place]
            lengths = torch.tensor([len(sentence) for sentence in group]) + len(self.special.prompt) + 1
            n_targets = sum(map(len, group)) + len(group)
            yield TextBatch(place, padded(group, self.special), lengths, n_targets)


class Text:
    """The sentences of some files."""

    def __init__(self, files: Sequence[TextFile], config: TextConfig) -> None:
        self.files, self.config = files, config
        self.max_tokens: int | None = None  # of a sentence; longer ones are left out
        counts = [-(-(file.end - file.start) // BLOCK) for file in files]
        self._first = np.cumsum([0, *counts])  # block of each file, among all blocks

    @property
    def pools(self) -> int:
        """The number of pools of an epoch."""
        return -(-int(self._first[-1]) // POOL)

    def sentences(self, blocks: Iterable[int] | None = None) -> Iterator[str]:
        """The sentences of some blocks (None: all, in order): normalized, not empty, in the configured
        case.
        """
        convert = CASES[self.config.case]
        for block in range(self._first[-1]) if blocks is None else blocks:
            index = int(np.searchsorted(self._first, block, side="right")) - 1
            file = self.files[index]
            start = file.start + int(block - self._first[index]) * BLOCK
            for line in file.lines(start, min(start + BLOCK, file.end)):
                if sentence := normalize_text(convert(line)):
                    yield sentence

    def characters(self) -> set[str]:
        """All characters of the sentences that are not too long."""
        limit, found = self.config.max_characters, set[str]()
        for sentence in self.sentences():
            if len(sentence) <= limit:
                found.update(sentence)
        return found

    def survey(self, tokenizer: Tokenizer) -> Survey:
        """Read everything once, and count the sentences that will be used and those that will not."""
        found, known = Survey(), frozenset(tokenizer.symbols)
        for sentence in self.sentences():
            if len(sentence) > self.config.max_characters:
                found.too_long += 1
            elif self.max_tokens is not None and len(tokenizer.encode(sentence)) > self.max_tokens:
                found.too_many_tokens += 1
            elif not known.issuperset(sentence) and (unknown := tokenizer.unknown(sentence)):
                found.unknown += 1
                found.first_unknown = found.first_unknown or unknown[0]
            else:
                found.sentences += 1
                found.characters += len(sentence)
        return found

    def pool(self, tokenizer: Tokenizer, seed: int, epoch: int, number: int) -> TextPool:
        """A pool of an epoch, a function of (seed, epoch, number)."""
        order = np.random.default_rng((seed, epoch)).permutation(int(self._first[-1]))
        generator = np.random.default_rng((seed, epoch, number + 1))
        return self._pool(tokenizer, order[number * POOL : (number + 1) * POOL], generator)

    def in_order(self, tokenizer: Tokenizer) -> Iterator[TextPool]:
        """All sentences once, the same at every call."""
        for first in range(0, int(self._first[-1]), POOL):
            yield self._pool(tokenizer, range(first, min(first + POOL, int(self._first[-1]))), None)

    def _pool(
        self, tokenizer: Tokenizer, blocks: Iterable[int], generator: np.random.Generator | None
    ) -> TextPool:
        """The sentences of some blocks in batches of similar length, shuffled if there is a generator."""
        limit, known = self.config.max_characters, frozenset(tokenizer.symbols)
        pool = [
            np.array(tokenizer.encode(sentence), dtype=np.int32)
            for sentence in self.sentences(blocks)
            if len(sentence) <= limit and (known.issuperset(sentence) or not tokenizer.unknown(sentence))
        ]
        if self.max_tokens is not None:
            pool = [tokens for tokens in pool if len(tokens) <= self.max_tokens]
        if generator is not None:
            generator.shuffle(pool)
        pool.sort(key=len)
        groups = []
        while pool:  # the longest sentences first, with EOS
            fit = max(1, self.config.batch_characters // (len(pool[-1]) + 1))
            groups.append(pool[-fit:])
            del pool[-fit:]
        if generator is not None:
            generator.shuffle(groups)
        return TextPool(groups, tokenizer.special)


def padded(sentences: Sequence[np.ndarray | Sequence[int]], special: SpecialTokens) -> Tensor:
    """Rows of the prompt, the tokens, EOS, then padding: (B, longest)."""
    begin = len(special.prompt)
    out = torch.full((len(sentences), begin + max(map(len, sentences)) + 1), special.pad)
    out[:, :begin] = torch.tensor(special.prompt)
    for row, sentence in zip(out, sentences, strict=True):
        row[begin : begin + len(sentence)] = torch.as_tensor(sentence)
        row[begin + len(sentence)] = special.eos
    return out
