"""A word n-gram model as a scorer of characters: look-ahead word language model (Hori et al. 2018).

"End-to-end speech recognition with word-based RNN language models". The probability of a character is a
ratio: the probability of all words that begin with the letters so far and this one, over the probability of
all words that begin with the letters so far. The product over a text is the probability that the n-gram model
gives to its words. So the model already influences the search inside a word, in every decoder.

An unknown word has the n-gram model's probability of an unknown word times that of its spelling, by a letter
trigram model of the vocabulary. The probabilities of all continuations of a text sum to one.

Tokens of several bytes, such as those of byte-level BPE, are followed byte by byte: a letter is a byte then
(`asr.decoding.spelling`), and the score of a token is the sum of those of its letters.

The state of a row is a pair: the history of words, and the node of the prefix tree of the vocabulary for the
letters of the word that has begun. Scores and next states of a pair are computed once and kept in tables.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from asr.decoding.ngram.model import Floats, Ints, NgramModel, load_ngram
from asr.decoding.spelling import NO_LETTER, Spelling
from asr.errors import AsrError
from asr.tokenizers import Tokenizer

IMPOSSIBLE = -30.0  # the score of a space or of the end of the text without a word before it
WORD_MODEL_WEIGHT, WORD_BONUS, UNKNOWN_PENALTY = 0.5, 0.0, 3.0  # best on read English (recipes/english)
MAX_STATES = 200_000  # with more states, the next search begins with empty tables
MAX_LETTERS = 128
MAX_UNREACHABLE = 0.2  # of the unigram probability: largest share of words that cannot be written
_SMALLEST = 1e-300


class WordModel:
    """A scorer factory: an n-gram model for one tokenizer, whose tokens are characters or strings of bytes.

    `weight` multiplies all scores. `word_bonus` is added to the joint score for each word, because a language
    model prefers few words. `unknown_penalty` is subtracted from the log-probability of an unknown word.
    Raises AsrError for a tokenizer of another kind, or of a script without spaces, and for one that lacks
    letters of many words of the n-gram model.
    """

    def __init__(
        self,
        model: NgramModel,
        tokenizer: Tokenizer,
        weight: float,
        word_bonus: float = WORD_BONUS,
        unknown_penalty: float = UNKNOWN_PENALTY,
    ) -> None:
        self.weight = weight
        self.bonus = word_bonus / weight if weight else 0.0
        self.gain = max(0.0, self.bonus)
        spelling, self.special, self.model = Spelling.of(tokenizer), tokenizer.special, model
        words = spelling.spell_words(model.words)
        used = spelling.used | ({ord(c) for word in words for c in word} if spelling.in_bytes else set())
        letters = sorted(used - {spelling.space})
        if not tokenizer.words_are_spaced or len(letters) > MAX_LETTERS or spelling.space is None:
            raise AsrError(
                "word n-gram model: the tokens of the recognizer must be a space and at most "
                f"{MAX_LETTERS} characters, or units with at most {MAX_LETTERS} different bytes; omit the "
                "model"
            )
        self.spelling, self.space, self.size = spelling, spelling.space, len(spelling.symbols)
        self.letters = np.array(letters)  # (A,) numbers of letters
        self.tree = _Tree(words, [spelling.symbols[i] for i in letters])
        self._unknown_share = float(np.exp(-unknown_penalty))
        unigrams = np.exp(model.log_prob[1 : len(model.words) + 1])
        lost = float(unigrams[~self.tree.reachable].sum() / unigrams.sum())
        if lost > MAX_UNREACHABLE:
            raise AsrError(
                f"word n-gram model: the recognizer lacks the letters of {lost:.0%} of its words; "
                "estimate it from text with the same letters (upper or lower case)"
            )
        self.tables = _Tables(self)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], tokenizer: Tokenizer, weight: float = WORD_MODEL_WEIGHT
    ) -> WordModel:
        """The model of a file, binary or ARPA. Raises AsrError as `load_ngram` and the constructor do."""
        try:
            return cls(load_ngram(path), tokenizer, weight)
        except AsrError as error:
            raise AsrError(str(error) if str(path) in str(error) else f"{path}: {error}") from None

    def start(self, rows: int, capacity: int) -> WordScorer:
        """A scorer of `rows` empty prefixes, of any later length."""
        if len(self.tables.keys) > MAX_STATES:
            self.tables = _Tables(self)  # scorers that are in use keep the old ones
        return WordScorer(self.tables, torch.zeros(rows, dtype=torch.long))

    def score_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scores of whole texts, the end included: tokens (R, U) padded, lengths (R,) -> (R,)."""
        scorer = self.start(len(tokens), tokens.size(1))
        total = torch.zeros(len(tokens), device=tokens.device)
        padded = torch.nn.functional.pad(tokens, (0, 1), value=self.special.eos)
        for position in range(padded.size(1)):
            column = torch.where(lengths == position, self.special.eos, padded[:, position])
            scores = scorer.score(column.unsqueeze(1)).squeeze(1)
            total += torch.where(lengths >= position, scores, 0.0)
            scorer.advance_some(column, lengths > position)
        return total

    def expand(self, histories: Ints, nodes: Ints) -> tuple[Floats, Ints, Ints]:
        """Log-probabilities of all letters in states (n,), and the histories and nodes that follow: (n, size
        of the alphabet).
        """
        tree, size, eos = self.tree, self.size, self.spelling.eos
        start_of_text = nodes == tree.start
        start_of_word = start_of_text | (nodes == tree.root)
        no_word = self.model.probability(histories, np.full(len(nodes), self.model.eos))
        unknown = self._unknown_prefixes(histories, nodes)
        prefixes = unknown + self._known_prefixes(histories, nodes)
        prefixes[start_of_word] = np.maximum(1 - no_word[start_of_word], _SMALLEST)
        prefixes[start_of_text] = 1.0
        log_prefixes = _log(prefixes)
        words, last_words = self._word_ends(histories, nodes, unknown)
        word_ends = _log(words) - log_prefixes + self.bonus
        next_words = self.model.next_history(histories, last_words)
        text_ends = self.model.probability(next_words, np.full(len(nodes), self.model.eos))

        scores = np.full((len(nodes), size), IMPOSSIBLE)
        scores[:, self.letters] = _log(self._letters(histories, nodes, unknown)) - log_prefixes[:, None]
        scores[:, self.space] = np.where(start_of_word, IMPOSSIBLE, word_ends + _log(1 - text_ends))
        scores[:, eos] = np.where(start_of_word, IMPOSSIBLE, word_ends + _log(text_ends))
        scores[start_of_text, eos] = _log(no_word[start_of_text])
        if self.spelling.in_bytes:
            scores[start_of_text, self.space] = 0.0  # it only says that a word begins

        next_histories = np.repeat(histories[:, None], size, 1)
        next_nodes = np.repeat(nodes[:, None], size, 1)  # special tokens change nothing
        next_nodes[:, self.letters] = tree.children[nodes]
        next_nodes[:, self.space] = np.where(start_of_text, nodes, tree.root)
        next_histories[~start_of_word, self.space] = next_words[~start_of_word]
        return np.maximum(scores, 10 * IMPOSSIBLE), next_histories, next_nodes

    def _unknown_prefixes(self, histories: Ints, nodes: Ints) -> Floats:
        """Probabilities (n,) that an unknown word begins with the letters of each node, given its history.

        Outside the tree all words are unknown. The probabilities are relative there, so that they do not
        underflow.
        """
        unknown = self.model.probability(histories, np.full(len(nodes), self.model.unknown))
        unknown = np.maximum(unknown * self._unknown_share, _SMALLEST)
        outside = (nodes >= self.tree.size) & (nodes != self.tree.start)
        return np.where(outside, 1.0, unknown) * self.tree.spelling[nodes]

    def _known_prefixes(self, histories: Ints, nodes: Ints) -> Floats:
        """Probabilities (n,) of all words below each node, given its history; 0 outside the tree."""
        found = np.zeros(len(nodes))
        rows = np.flatnonzero((nodes < self.tree.size) & (nodes != self.tree.root))
        first, last = self.tree.first[nodes[rows]], self.tree.last[nodes[rows]]
        found[rows] = self.model.range_probability(histories[rows], first, last)
        return found

    def _letters(self, histories: Ints, nodes: Ints, unknown: Floats) -> Floats:
        """Probabilities (n, A) of all words that go on with a letter, from those of unknown prefixes (n,)."""
        tree = self.tree
        found: Floats = unknown[:, None] * tree.trigrams[tree.pair[nodes], :-1]
        children = tree.children[nodes]
        row, letter = np.nonzero(children < tree.size)
        child = children[row, letter]
        found[row, letter] += self.model.range_probability(
            histories[row], tree.first[child], tree.last[child]
        )
        return found

    def _word_ends(self, histories: Ints, nodes: Ints, unknown: Floats) -> tuple[Floats, Ints]:
        """Probabilities (n,) that the word ends at each node, and the word (n,) that it is then."""
        tree = self.tree
        words = np.where(tree.word[nodes] >= 0, tree.word[nodes], self.model.unknown)
        found = unknown * tree.trigrams[tree.pair[nodes], -1]
        known = np.flatnonzero(words != self.model.unknown)
        found[known] += self.model.probability(histories[known], words[known])
        return found, words


def _log(probabilities: Floats) -> Floats:
    """Logarithms, which are finite for zeros, too."""
    found: Floats = np.log(np.maximum(probabilities, _SMALLEST))
    return found


class WordScorer:
    """Scores of growing prefixes. Every row is the index of a state in the tables: (R,), on the CPU."""

    def __init__(self, tables: _Tables, states: Tensor) -> None:
        self._tables, self._states = tables, states

    def score(self, candidates: Tensor) -> Tensor:
        """Log-probabilities of candidates (R, K), each given its row's prefix: (R, K)."""
        if self._tables.letters.size(1) == 1:
            return self._tables.scores[self._states].to(candidates.device).gather(1, candidates)
        states = self._states.unsqueeze(1).expand(candidates.shape).flatten()
        scores, _ = self._tables.follow(states, candidates.cpu().flatten())
        return scores.view_as(candidates).to(candidates.device)

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix."""
        self._states = self._tables.follow(self._states, tokens.cpu())[1]

    def advance_some(self, tokens: Tensor, grows: Tensor) -> None:
        """Append a token (R,) to those rows where `grows` (R,) is true."""
        rows = grows.cpu().nonzero().squeeze(1)
        states = self._states.clone()
        states[rows] = self._tables.follow(states[rows], tokens.cpu()[rows])[1]
        self._states = states

    def select(self, rows: Tensor) -> WordScorer:
        """The scorer of the given rows (indices), reordered, repeated or dropped."""
        return WordScorer(self._tables, self._states[rows.cpu()])


class _Tables:
    """Scores and next states of the states that searches have reached. State 0 is that of the empty text."""

    def __init__(self, words: WordModel) -> None:
        self._words = words
        self._size, self._eos, self.letters = words.size, words.spelling.eos, words.spelling.letters
        self.keys: dict[tuple[int, int], int] = {}
        self.scores = torch.zeros(1024, self._size)  # (states, letters); rows beyond len(keys) are free
        self._next = torch.full((1024, self._size), -1)  # -1: not reached yet
        self._after = np.zeros((1024, self._size, 2), np.int64)  # history and node
        start = words.model.start if words.model.order > 1 else 0
        self._add([(start, words.tree.start)])

    def follow(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The scores of a token each, and the states after it: (n,), (n,) -> (n,), (n,)."""
        scores = torch.zeros(len(states))
        for letters in self.letters[tokens].unbind(1):
            has_letter = (letters != NO_LETTER).nonzero().squeeze(1)
            if not len(has_letter):
                break
            scores[has_letter] += self.scores[states[has_letter], letters[has_letter]]
            not_eos = has_letter[letters[has_letter] != self._eos]
            states = states.index_copy(0, not_eos, self.next(states[not_eos], letters[not_eos]))
        return scores, states

    def next(self, states: Tensor, letters: Tensor) -> Tensor:
        """The states after a letter each: (n,), (n,) -> (n,)."""
        found = self._next[states, letters]
        missing = (found < 0).nonzero().squeeze(1)
        if len(missing):
            rows, columns = states[missing].numpy(), letters[missing].numpy()
            pairs = [(history, node) for history, node in self._after[rows, columns].tolist()]
            self._add(list(dict.fromkeys(pair for pair in pairs if pair not in self.keys)))
            reached = torch.tensor([self.keys[pair] for pair in pairs])
            self._next[states[missing], letters[missing]] = reached
            found[missing] = reached
        return found

    def _add(self, pairs: Sequence[tuple[int, int]]) -> None:
        if not pairs:
            return
        first, last = len(self.keys), len(self.keys) + len(pairs)
        if last > len(self.scores):
            more = max(last, 2 * len(self.scores)) - len(self.scores)
            self.scores = torch.cat([self.scores, self.scores.new_zeros(more, self._size)])
            self._next = torch.cat([self._next, self._next.new_full((more, self._size), -1)])
            self._after = np.concatenate([self._after, np.zeros((more, self._size, 2), np.int64)])
        histories, nodes = np.array(pairs).T
        scores, *after = self._words.expand(histories.copy(), nodes.copy())
        self.scores[first:last] = torch.from_numpy(scores).float()
        self._after[first:last] = np.stack(after, 2)
        self.keys.update(zip(pairs, range(first, last), strict=True))


class _Tree:
    """The prefix tree of a sorted vocabulary, in arrays over its nodes; and the spelling of unknown words.

    Nodes 0 to size - 1 are prefixes of words, 0 is the empty one (`root`). The nodes that follow stand for
    prefixes of unknown words, one for each pair of last letters. The last node (`start`) is the empty text.
    """

    def __init__(self, words: Sequence[str], letters: list[str]) -> None:
        self._count = len(letters)
        ids = {letter: i for i, letter in enumerate(letters)}
        longest = max(map(len, words))
        spelled = np.full((len(words), longest), -1)  # -1 after the end, A for a letter that is missing
        for i, word in enumerate(words):
            spelled[i, : len(word)] = [ids.get(letter, self._count) for letter in word]
        lengths = np.array([len(word) for word in words])
        self.reachable = ~(spelled == self._count).any(1)
        self.trigrams = self._train(spelled[self.reachable], lengths[self.reachable])
        self._build(spelled, lengths)

    def _train(self, spelled: Ints, lengths: Ints) -> Floats:
        """Probabilities of a letter, or the end (the last column), after two others: ((A + 1) ** 2, A + 1).

        Letter number A is the begin. Trigrams, bigrams and unigrams of the vocabulary are interpolated with
        Witten and Bell's weights (1991). An unknown word has at least one letter.
        """
        size = self._count + 1
        last = np.concatenate(
            [np.full((len(spelled), 2), self._count), spelled, np.full((len(spelled), 1), -1)], 1
        )
        rows, columns = np.nonzero(np.arange(spelled.shape[1] + 1) <= lengths[:, None])
        first, second, third = (last[rows, columns + i] for i in range(3))
        third = np.where(third < 0, self._count, third)
        counts = np.bincount((first * size + second) * size + third, minlength=size**3).reshape(
            size, size, size
        )
        probs = np.full(size, 1 / size)
        for table in (counts.sum((0, 1)), counts.sum(0), counts):
            kinds, total = (table > 0).sum(-1, keepdims=True), table.sum(-1, keepdims=True)
            probs = (table + kinds * probs) / np.maximum(total + kinds, 1) + (total == 0) * probs
        probs[-1, -1, -1] = 0.0
        probs[-1, -1] /= probs[-1, -1].sum()
        return probs.reshape(size * size, size)

    def _build(self, spelled: Ints, lengths: Ints) -> None:
        """The arrays. Words are sorted, so the words below a node are a range."""
        count, size = len(lengths), self._count + 1
        first, last, parent, letter = [np.zeros(1, np.int64)], [np.array([count])], [], []
        above, new = np.zeros(count, np.int64), np.zeros(count, bool)  # the node of each word's prefix
        total = 1
        for depth in range(spelled.shape[1]):
            new |= np.concatenate([[True], spelled[1:, depth] != spelled[:-1, depth]])
            alive = lengths > depth
            begins = np.flatnonzero(new & alive)
            # A range ends where the prefix changes. A shorter word, which has -1 here, changes it too.
            borders = np.append(np.flatnonzero(new), count)
            first.append(begins)
            last.append(borders[np.searchsorted(borders, begins, side="right")])
            parent.append(above[begins])
            letter.append(spelled[begins, depth])
            index = np.cumsum(new & alive) - 1 + total
            above = np.where(alive, index, above)
            total += len(begins)
        self.root, self.size = 0, total
        self.first, self.last = np.concatenate(first), np.concatenate(last)
        parents, edges = np.concatenate(parent), np.concatenate(letter)
        self.start = total + size * size
        nodes = self.start + 1

        pairs = np.arange(size * size)
        self.pair = np.full(nodes, size * size - 1)  # the last two letters; the begin twice at the root
        self.pair[total : self.start] = pairs
        self.spelling = np.ones(nodes)
        for begin, end in pairwise(np.cumsum([1, *map(len, parent)])):  # the nodes of a depth
            edge, up = edges[begin - 1 : end - 1], parents[begin - 1 : end - 1]
            self.pair[begin:end] = self.pair[up] % size * size + edge
            following = self.trigrams[self.pair[up], np.minimum(edge, size - 2)]
            self.spelling[begin:end] = self.spelling[up] * following
        followers = self.pair[:, None] % size * size + np.arange(self._count)
        # (nodes, A): the tree is left where no word goes on
        self.children = (total + followers).astype(np.int32)
        written = edges < self._count
        below = np.arange(1, total)
        self.children[parents[written], edges[written]] = below[written]
        self.children[self.start] = self.children[self.root]
        self.word = np.full(nodes, -1)  # the word that is spelled by a node
        whole = above[self.reachable]
        self.word[whole] = np.flatnonzero(self.reachable)
        self.first = np.append(self.first, np.zeros(nodes - total, np.int64))
        self.last = np.append(self.last, np.zeros(nodes - total, np.int64))
