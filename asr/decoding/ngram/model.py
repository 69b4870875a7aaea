"""A word n-gram model with back-off, as a prefix tree in arrays.

Every n-gram is a node, and its parent is the n-gram without the last word. A history is a node too: the
longest n-gram, of at most order - 1 words, that the words so far end with. Node 0 is the empty n-gram. The
nodes are sorted by length, then parent, then last word, so the children of a node are consecutive and sorted.

Words have the ids 0 to N - 1 in the order of their code points. Then all words that begin with the same
letters are a range of ids, and the probability of such a range is computed without a sum over its words
(`NgramModel.range_probability`). The end of a sentence has id N, the unknown word N + 1, and the begin of a
sentence, which is only part of histories, N + 2.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from asr.errors import AsrError
from asr.files import atomic_write

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"  # the names of the special words in files
ZERO = -99 * math.log(10)  # the logarithm of zero in ARPA files, here in natural logarithms
MAX_ORDER = 4
_UNITS = 2.0**60
_FORMAT = "asr word n-gram 1"


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text. Every sentence has one prediction more than words: its end."""

    words: int  # running words
    unknown: int  # running words outside the vocabulary
    perplexity: float  # per prediction, without those of unknown words
    perplexity_with_unknown: float  # the same, with the predictions of unknown words

    @property
    def unknown_rate(self) -> float:
        """Share of the running words that are outside the vocabulary: 0 to 1."""
        return self.unknown / max(1, self.words)


class NgramModel:
    """A back-off model (Katz 1987): P(w | h) is stored for known n-grams, else it is b(h) P(w | h').

    h' is the history without its first word. Logarithms are natural ones.

    words: the vocabulary, sorted. Per node: `parent`, the last `word`, `log_prob` of that word given the
    parent, and `backoff`, the logarithm of b. `levels[k]` is the first node of k words; levels[order + 1] is
    the number of nodes.
    """

    def __init__(
        self,
        words: Sequence[str],
        levels: Sequence[int],
        parent: Ints,
        word: Ints,
        log_prob: Floats,
        backoff: Floats,
    ) -> None:
        self.words = tuple(words)
        self.eos, self.unknown, self.bos = (len(words) + i for i in range(3))
        self.size = len(words) + 3  # ids
        self.levels = tuple(levels)
        self.parent, self.word, self.log_prob, self.backoff = parent, word, log_prob, backoff
        self._keys = parent[1:] * self.size + word[1:]  # sorted; of node 1 and those that follow

    @property
    def order(self) -> int:
        """The number of words of the longest n-grams."""
        return len(self.levels) - 2

    def __len__(self) -> int:
        """The number of n-grams."""
        return len(self.parent) - 1

    @classmethod
    def from_ngrams(
        cls, words: Sequence[str], orders: Sequence[tuple[Ints, Floats, Floats]], where: str = "n-grams"
    ) -> NgramModel:
        """The model of n-grams (n, k) of ids, log-probabilities (n,) and back-offs (n,), for k = 1, 2 ...

        Raises AsrError for a duplicate n-gram, and for one whose first k - 1 words are not an n-gram.
        """
        size = len(words) + 3
        parents, lasts = [np.zeros(1, np.int64)], [np.full(1, -1)]
        probs, backoffs, levels = [np.zeros(1)], [np.zeros(1)], [0, 1]
        level_keys: list[Ints] = []  # of every level, sorted
        for k, (grams, log_prob, backoff) in enumerate(orders, 1):
            parent = np.zeros(len(grams), np.int64)
            for column in range(k - 1):  # walks down from the root
                keys = parent * size + grams[:, column]
                table = level_keys[column]
                place = np.searchsorted(table, keys)
                known = place < len(table)
                known[known] = table[place[known]] == keys[known]
                if not known.all():
                    example = grams[int(np.argmin(known))]
                    raise AsrError(
                        f"{where}: the {k}-gram of ids {example.tolist()} has no {k - 1}-gram before it"
                    )
                parent = levels[column + 1] + place
            keys = parent * size + grams[:, -1]
            order = np.argsort(keys, kind="stable")
            level_keys.append(keys[order])
            if (level_keys[-1][1:] == level_keys[-1][:-1]).any():
                raise AsrError(f"{where}: duplicate {k}-gram; list every n-gram once")
            parents.append(parent[order])
            lasts.append(grams[order, -1])
            probs.append(log_prob[order])
            backoffs.append(backoff[order])
            levels.append(levels[-1] + len(grams))
        if levels[2] - levels[1] != size:
            raise AsrError(
                f"{where}: only {levels[2] - 1} of {size} words have a probability; give every word a 1-gram"
            )
        return cls(words, levels, *(np.concatenate(each) for each in (parents, lasts, probs, backoffs)))

    @cached_property
    def suffix(self) -> Ints:
        """For each node, the longest node in the tree that is a suffix without the first word: (nodes,)."""
        suffix = np.zeros(len(self.parent), np.int64)
        for k in range(2, self.order + 1):
            nodes = slice(self.levels[k], self.levels[k + 1])
            suffix[nodes] = self._follow(suffix, suffix[self.parent[nodes]], self.word[nodes])
        return suffix

    @cached_property
    def _probability(self) -> Floats:
        return np.exp(self.log_prob)

    @cached_property
    def _backoff(self) -> Floats:
        return np.exp(self.backoff)

    @cached_property
    def _excess(self) -> Ints:
        """Running sums over the nodes of P(w | h) - b(h) P(w | h'), in units of 2**-60: (nodes,).

        Only differences of two sums are used. Sums can overflow, but a difference is still exact if it is
        below 8, because integers wrap around.
        """
        nodes = np.arange(self.levels[2], len(self.parent))
        parent = self.parent[nodes]
        lower = self._probability_of(self.suffix[parent], self.word[nodes])
        excess = np.zeros(len(self.parent), np.int64)
        excess[nodes] = np.rint((self._probability[nodes] - self._backoff[parent] * lower) * _UNITS)
        return excess.cumsum()

    @cached_property
    def _unigram_sums(self) -> Floats:
        """Sums of the unigram probabilities of the first n words: (N + 1,)."""
        return np.concatenate([[0.0], self._probability[1 : len(self.words) + 1].cumsum()])

    def index(self, words: Iterable[str]) -> list[int]:
        """Ids of words; those outside the vocabulary get the id of the unknown word."""
        return [self._ids.get(word, self.unknown) for word in words]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @property
    def start(self) -> int:
        """The history at the beginning of a sentence."""
        return self.bos + 1

    def next_history(self, histories: Ints, words: Ints) -> Ints:
        """The histories after a word each: (n,), (n,) -> (n,)."""
        return self._follow(self.suffix, histories, words)

    def probability(self, histories: Ints, words: Ints) -> Floats:
        """P(word | history): (n,), (n,) -> (n,)."""
        return self._probability_of(histories, words)

    def range_probability(self, histories: Ints, first: Ints, last: Ints) -> Floats:
        """The sum of P(w | history) of the words first <= w < last: (n,) each -> (n,).

        The sum equals b times the sum for the shorter history, plus the differences for the n-grams of this
        history.
        """
        nodes, share = histories.copy(), np.ones(len(histories))
        total = np.zeros(len(histories))
        excess = self._excess
        while nodes.any():
            begin = np.searchsorted(self._keys, nodes * self.size + first)
            end = np.searchsorted(self._keys, nodes * self.size + last)  # the children begin + 1 to end
            total += share * (excess[end] - excess[begin]) / _UNITS  # 0 for the empty history
            share *= self._backoff[nodes]
            nodes = self.suffix[nodes]
        return total + share * (self._unigram_sums[last] - self._unigram_sums[first])

    def _find(self, nodes: Ints, words: Ints) -> Ints:
        """The children of nodes by their last word, or 0."""
        keys = nodes * self.size + words
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, place + 1, 0)

    def _probability_of(self, nodes: Ints, words: Ints) -> Floats:
        nodes, share, total = nodes.copy(), np.ones(len(nodes)), np.zeros(len(nodes))
        todo = np.arange(len(nodes))
        while len(todo):
            child = self._find(nodes[todo], words[todo])
            found = child > 0
            total[todo[found]] = share[todo[found]] * self._probability[child[found]]
            todo = todo[~found]
            share[todo] *= self._backoff[nodes[todo]]
            nodes[todo] = self.suffix[nodes[todo]]
        return total

    def _follow(self, suffix: Ints, nodes: Ints, words: Ints) -> Ints:
        """The longest known history after a word, for each of the nodes (n,)."""
        result, nodes = np.zeros(len(nodes), np.int64), nodes.copy()
        todo = np.arange(len(nodes))
        longest = self.levels[self.order]  # an n-gram of full length is no history
        while len(todo):
            child = self._find(nodes[todo], words[todo])
            found = (child > 0) & ((child < longest) | (self.order == 1))
            result[todo[found]] = child[found] if self.order > 1 else 0
            todo = todo[~found]
            todo = todo[nodes[todo] > 0]
            nodes[todo] = suffix[nodes[todo]]
        return result

    def log_probs(self, words: Sequence[str]) -> Floats:
        """Log-probabilities of the words of a sentence and of its end: (number of words + 1,)."""
        ids = np.array([*self.index(words), self.eos])
        histories = [self.start if self.order > 1 else 0]
        for word in ids[:-1]:
            histories.append(int(self.next_history(np.array(histories[-1:]), np.array([word]))[0]))
        with np.errstate(divide="ignore"):
            return np.log(self.probability(np.array(histories), ids))

    def perplexity(self, sentences: Iterable[str]) -> Perplexity:
        """How well the model predicts sentences of words that are separated by spaces."""
        lines = [np.array([*self.index(line.split()), self.eos]) for line in sentences if line.split()]
        if not lines:
            raise AsrError("perplexity: there is no text; give sentences")
        total, known, unknown = 0.0, 0.0, 0
        lengths = np.array([len(line) for line in lines])
        order = np.argsort(-lengths, kind="stable")
        lines, lengths = [lines[i] for i in order], lengths[order]
        histories = np.full(len(lines), self.start if self.order > 1 else 0)
        for position in range(int(lengths[0])):
            count = int((lengths > position).sum())
            words = np.array([line[position] for line in lines[:count]])
            log_probs = np.log(self.probability(histories[:count], words))
            known_words = words != self.unknown
            total, known = total + log_probs.sum(), known + log_probs[known_words].sum()
            unknown += int((~known_words).sum())
            histories = self.next_history(histories[:count], words)
        predictions = int(lengths.sum())
        return Perplexity(
            predictions - len(lines),
            unknown,
            math.exp(-known / max(1, predictions - unknown)),
            math.exp(-total / predictions),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, with logarithms in half precision and ids of 16 or 32 bits. Atomic."""
        ids = np.uint16 if self.size < 2**16 else np.uint32
        history = self.levels[self.order] if self.order > 1 else 1
        arrays: dict[str, NDArray[Any]] = {
            "words": np.frombuffer("\n".join(self.words).encode(), np.uint8),
            "levels": np.array(self.levels, np.int64),
            "children": np.bincount(self.parent[1:], minlength=history).astype(np.uint32),
            "word": self.word[1:].astype(ids),
            "log_prob": np.maximum(self.log_prob[1:], -3e4).astype(np.float16),
            "backoff": self.backoff[1:history].astype(np.float16),
        }
        with atomic_write(path, "wb") as out:
            out.write(to_bytes(arrays, {"format": _FORMAT}))


def load_ngram(path: str | os.PathLike[str]) -> NgramModel:
    """The model of a file: that of `NgramModel.save`, or an ARPA file (`.arpa`, `.arpa.gz`).

    Raises AsrError when the file is missing or is neither.
    """
    if Path(path).name.endswith((".arpa", ".arpa.gz", ".lm", ".lm.gz")):
        from asr.decoding.ngram.arpa import read_arpa

        return read_arpa(path)
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise _not_a_model(path)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        reason = error.strerror or "no such file"
        raise AsrError(f"{path}: cannot read the n-gram model ({reason})") from None
    except SafetensorError:
        raise _not_a_model(path) from None
    children = arrays["children"].astype(np.int64)
    nodes = len(arrays["word"]) + 1
    parent = np.concatenate([[0], np.repeat(np.arange(len(children)), children)])
    backoff = np.zeros(nodes)
    backoff[1 : len(arrays["backoff"]) + 1] = arrays["backoff"]
    return NgramModel(
        arrays["words"].tobytes().decode().split("\n"),
        arrays["levels"].tolist(),
        parent,
        np.concatenate([[-1], arrays["word"].astype(np.int64)]),
        np.concatenate([[0.0], arrays["log_prob"].astype(np.float64)]),
        backoff,
    )


def _not_a_model(path: str | os.PathLike[str]) -> AsrError:
    return AsrError(
        f"{path}: not a word n-gram model; give an ARPA file (.arpa, .arpa.gz), or a file that `train_ngram` "
        "wrote"
    )
