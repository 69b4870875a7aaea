"""ARPA files of n-gram models: text with logarithms of base 10, the format of SRILM, KenLM and others."""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from asr.decoding.ngram.model import BOS, EOS, MAX_ORDER, UNKNOWN, ZERO, Floats, Ints, NgramModel
from asr.errors import AsrError
from asr.files import atomic_write

_LOG10 = math.log(10)


def read_arpa(path: str | os.PathLike[str]) -> NgramModel:
    """The model of an ARPA file, plain or compressed (`.gz`).

    Raises AsrError for a file that cannot be read, that is not an ARPA file, and for orders above 4.
    """
    path = Path(path)
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as file
        ):
            sections = list(_sections(file, path))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise AsrError(f"{path}: cannot read the ARPA file ({error})") from None
    if not sections:
        raise AsrError(f"{path}: not an ARPA file; it has no section \\1-grams:")
    if len(sections) > MAX_ORDER:
        raise AsrError(f"{path}: order {len(sections)}; give a model of order {MAX_ORDER} at most")

    special = (EOS, UNKNOWN, BOS)
    unigrams = {words: (log_prob, backoff) for log_prob, words, backoff in sections[0]}
    if EOS not in unigrams or BOS not in unigrams:
        raise AsrError(f"{path}: there is no {BOS} or no {EOS}; give a model of whole sentences")
    unknown = [word for word in unigrams if word.lower() == UNKNOWN]  # SRILM writes <unk>, others <UNK>
    renamed = unknown[0] if unknown else UNKNOWN
    sections[0] = [
        (log_prob, UNKNOWN if w == renamed else w, backoff) for log_prob, w, backoff in sections[0]
    ]
    if not unknown:
        sections[0].append((ZERO / _LOG10, UNKNOWN, 0.0))
    words = sorted(set(unigrams) - {*special, renamed})
    ids = {word: i for i, word in enumerate([*words, *special])} | {renamed: len(words) + 1}
    orders: list[tuple[Ints, Floats, Floats]] = []
    for k, entries in enumerate(sections, 1):
        try:
            grams = np.array([[ids[word] for word in text.split()] for _, text, _ in entries], np.int64)
        except KeyError as error:
            raise AsrError(
                f"{path}: {error} is in a {k}-gram but has no 1-gram; estimate the model again"
            ) from None
        numbers = np.array([(log_prob, backoff) for log_prob, _, backoff in entries], np.float64)
        numbers = numbers.reshape(-1, 2) * _LOG10
        orders.append((grams.reshape(-1, k), numbers[:, 0], numbers[:, 1]))
    return NgramModel.from_ngrams(words, orders, str(path))


def _sections(file: IO[str], path: Path) -> Iterator[list[tuple[float, str, float]]]:
    """For each order its n-grams: the logarithm, the words with spaces between, the back-off."""
    entries: list[tuple[float, str, float]] | None = None
    order = 0
    for number, line in enumerate(file, 1):
        line = line.strip(" \r\n")
        if line.endswith("-grams:") and line.startswith("\\"):
            if entries is not None:
                yield entries
            entries, order = [], order + 1
        elif line == "\\end\\":
            break
        elif entries is not None and line:
            fields = line.split()  # tabs between the fields, or spaces
            try:
                backoff = float(fields[order + 1]) if len(fields) == order + 2 else 0.0
                if not order + 1 <= len(fields) <= order + 2:
                    raise ValueError
                entries.append((float(fields[0]), " ".join(fields[1 : order + 1]), backoff))
            except ValueError:
                raise AsrError(f"{path}, line {number}: not a {order}-gram: {line[:60]!r}") from None
    else:
        if entries is not None:
            raise AsrError(f"{path}: the file is cut off; its last line must be \\end\\")
    if entries is not None:
        yield entries


def write_arpa(model: NgramModel, path: str | os.PathLike[str]) -> None:
    """Write the model as an ARPA file, compressed where the name ends with `.gz`. Atomic."""
    names = np.array([*model.words, EOS, UNKNOWN, BOS], dtype=object)
    with atomic_write(path, "wb") as raw:
        packed = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if str(path).endswith(".gz") else raw
        out = io.TextIOWrapper(packed, encoding="utf-8", newline="\n", write_through=True)
        out.write("\\data\\\n")
        for k in range(1, model.order + 1):
            out.write(f"ngram {k}={model.levels[k + 1] - model.levels[k]}\n")
        texts = np.array([""], dtype=object)  # of the nodes of the level before
        for k in range(1, model.order + 1):
            nodes = slice(model.levels[k], model.levels[k + 1])
            last = names[model.word[nodes]]
            texts = last if k == 1 else texts[model.parent[nodes] - model.levels[k - 1]] + " " + last
            out.write(f"\n\\{k}-grams:\n")
            for log_prob, text, backoff in zip(
                model.log_prob[nodes] / _LOG10, texts, model.backoff[nodes] / _LOG10, strict=True
            ):
                end = f"\t{backoff:.7g}" if k < model.order else ""
                out.write(f"{max(log_prob, -99.0):.7g}\t{text}{end}\n")
        out.write("\n\\end\\\n")
        out.detach()
        if packed is not raw:
            packed.close()  # writes the end of the compressed data; `raw` stays open
