"""From text files to the file of a word n-gram model."""

from __future__ import annotations

import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asr.decoding.ngram.arpa import write_arpa
from asr.decoding.ngram.estimate import estimate_ngram
from asr.decoding.ngram.model import NgramModel, Perplexity
from asr.errors import AsrError
from asr.tokenizers import normalize_text

HELD_OUT = 50  # every 50th sentence


def train_ngram(
    files: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    order: int = 3,
    vocabulary_size: int = 30_000,
    minimum_counts: Sequence[int] = (2, 1, 2, 2),
    prune: float = 0.0,
) -> tuple[NgramModel, Perplexity]:
    """Estimate a model of texts, one sentence per line, plain or compressed (.gz, .xz), and write it.

    Every 50th sentence is held out; the perplexity returned is that of the held-out sentences. The file is an
    ARPA file if its name ends with .arpa or .arpa.gz, else the compact one. Other parameters are those of
    `estimate_ngram`. Raises AsrError for text that cannot be read and as `estimate_ngram` does.
    """
    lines = [line for file in files for line in _read(Path(file))]
    test = lines[::HELD_OUT]
    train = [line for i, line in enumerate(lines) if i % HELD_OUT]
    model = estimate_ngram(train, order, vocabulary_size, minimum_counts, prune)
    if str(out).endswith((".arpa", ".arpa.gz")):
        write_arpa(model, out)
    else:
        model.save(out)
    return model, model.perplexity(test)


def _read(path: Path) -> Iterator[str]:
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
    opener = openers.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            yield from filter(None, map(normalize_text, file))
    except (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeDecodeError) as error:
        raise AsrError(f"{path}: cannot read the text ({error})") from None
