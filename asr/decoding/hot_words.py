"""Hot words: words and phrases that are likelier than the model thinks, by a bonus for each of their letters.

A text scores one for every letter (a space is none) that lies in an occurrence of a phrase; letters that
several occurrences share count once. In a script that is written with spaces a phrase occurs as whole words.

While a text grows, the letters of a phrase that has been begun count already, and are taken back when it is
left unfinished: so that a search follows it. The phrases are an automaton (Aho and Corasick 1975) whose state
is the longest beginning of a phrase that the text ends with; which of the last letters have been counted for
good are the bits of a number.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import torch
from torch import Tensor

from asr.errors import AsrError
from asr.tokenizers import EOS, Tokenizer

LONGEST = 60  # characters of a phrase: with the spaces around it they must have place among 62 bits
_ALL = 2**62 - 1


class HotWords:
    """A factory of scores: the phrases as an automaton, for one tokenizer. `weight` is the bonus of a letter.

    Raises AsrError for a phrase that is empty, too long, or has characters that the tokenizer does not know.
    """

    gain = 1.0

    def __init__(
        self, phrases: Iterable[str], tokenizer: Tokenizer, bonus: float, device: torch.device | str = "cpu"
    ) -> None:
        self.weight = bonus
        self.vocabulary = len(tokenizer)
        # EOS is a space here: both end a word. Where there are no spaces, EOS ends nothing.
        self.space = tokenizer.encode("a b")[1] if tokenizer.words_are_spaced else EOS
        strings = [_string(phrase, tokenizer) for phrase in phrases]
        children, depth, longest, edges = _automaton(strings)
        root = torch.zeros(self.vocabulary, dtype=torch.long)
        for token, node in children[0].items():
            root[token] = node
        pairs = sorted(
            (node * self.vocabulary + t, to) for node, e in enumerate(edges) for t, to in e.items()
        )
        table = torch.tensor(pairs or [(-1, 0)], device=device)
        self.root = root.to(device)  # (V,) the state after a token that continues nothing
        self.keys, self.targets = (
            table[:, 0].contiguous(),
            table[:, 1].contiguous(),
        )  # of all other transitions
        # As bits, the last letters that belong to a state, and those of the longest phrase that ends there.
        self.begun = torch.tensor([2**n - 1 for n in depth], device=device)
        self.ended = torch.tensor([2**n - 1 for n in longest], device=device)

    def start(self, rows: int, capacity: int) -> HotWordScorer:
        """A scorer of `rows` empty prefixes; however long they get."""
        state = self.root[self.space].expand(rows)
        return HotWordScorer(self, state, torch.zeros_like(state), torch.zeros_like(state))

    def score_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Letters of whole texts that lie in hot words: tokens (R, U) padded, lengths (R,) -> (R,)."""
        scorer = self.start(len(tokens), tokens.size(1))
        total = torch.zeros(len(tokens), device=tokens.device)
        for position in range(tokens.size(1) + 1):
            column = tokens[:, min(position, tokens.size(1) - 1)] if tokens.size(1) else lengths
            column = torch.where(lengths == position, EOS, column)
            total += scorer.score(column.unsqueeze(1)).squeeze(1) * (lengths >= position)
            scorer.advance(column)
        return total

    def follow(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The states after tokens; of one shape."""
        wanted = states * self.vocabulary + tokens
        place = torch.searchsorted(self.keys, wanted).clamp_max(len(self.keys) - 1)
        return torch.where(self.keys[place] == wanted, self.targets[place], self.root[tokens])


class HotWordScorer:
    """Counts of growing prefixes. Every row has a state, letters not counted for good, and how many of them
    are counted for the phrase that has been begun."""

    def __init__(self, words: HotWords, states: Tensor, open: Tensor, pending: Tensor) -> None:
        self._words, self._states, self._open, self._pending = words, states, open, pending  # (R,) each

    def score(self, candidates: Tensor) -> Tensor:
        """By how much the count of letters changes with each candidate: tokens (R, K) -> (R, K)."""
        words = self._words
        ends = candidates == EOS
        tokens = torch.where(ends, words.space, candidates)
        states = words.follow(self._states.unsqueeze(1), tokens)
        counted = torch.where(ends, words.ended[states], words.begun[states])
        letters = self._letters(self._open.unsqueeze(1), tokens)
        return (_bits(letters & counted) - self._pending.unsqueeze(1)).float()

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix."""
        words = self._words
        self._states = words.follow(self._states, tokens)
        self._open = self._letters(self._open, tokens) & ~words.ended[self._states]
        self._pending = _bits(self._open & words.begun[self._states])

    def select(self, rows: Tensor) -> HotWordScorer:
        """The scorer of the given rows (indices): reordered, repeated or dropped."""
        return HotWordScorer(self._words, self._states[rows], self._open[rows], self._pending[rows])

    def _letters(self, open: Tensor, tokens: Tensor) -> Tensor:
        return (open << 1 | (tokens != self._words.space)) & _ALL


def _string(phrase: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a phrase, with a space at each end where a word must begin or end there."""
    text = " ".join(unicodedata.normalize("NFC", phrase).split())
    if not text or len(text) > LONGEST:
        raise AsrError(f"hot word {text!r}: it must have 1 to {LONGEST} characters")
    if unknown := tokenizer.unknown(text):
        raise AsrError(
            f"hot word {text!r}: the model does not know {' '.join(map(repr, unknown))}; "
            "write it with the characters of the model's texts"
        )
    space = tokenizer.encode("a b")[1:2] if tokenizer.words_are_spaced else []
    before, after = ([] if _spaceless(edge) else space for edge in (text[0], text[-1]))
    return [*before, *tokenizer.encode(text), *after]


def _spaceless(character: str) -> bool:
    """Whether it belongs to a script whose words are not separated by spaces."""
    scripts = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
    return unicodedata.name(character, "").startswith(scripts)


def _automaton(
    strings: list[list[int]],
) -> tuple[list[dict[int, int]], list[int], list[int], list[dict[int, int]]]:
    """Of every state: its children, its length, that of the longest string it ends with, its transitions.

    Transitions to the children of state 0 are left out in the last: they are the same for all states.
    """
    children: list[dict[int, int]] = [{}]
    depth, longest = [0], [0]
    for string in strings:
        node = 0
        for token in string:
            if token not in children[node]:
                children[node][token] = len(children)
                children.append({})
                depth.append(depth[node] + 1)
                longest.append(0)
            node = children[node][token]
        longest[node] = len(string)
    edges: list[dict[int, int]] = [{} for _ in children]
    suffix = [0] * len(children)  # the longest other state that a state ends with
    for node in sorted(range(len(children)), key=depth.__getitem__):
        if node:
            longest[node] = max(longest[node], longest[suffix[node]])
            edges[node] = edges[suffix[node]] | children[node]
        for token, child in children[node].items():
            if node:
                suffix[child] = edges[suffix[node]].get(token, children[0].get(token, 0))
    return children, depth, longest, edges


def _bits(numbers: Tensor) -> Tensor:
    """How many bits of each number are set (Warren, Hacker's Delight, section 5-1)."""
    x = numbers - (numbers >> 1 & 0x5555555555555555)
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333)
    x = x + (x >> 4) & 0x0F0F0F0F0F0F0F0F
    return x * 0x0101010101010101 >> 56
