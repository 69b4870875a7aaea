"""Hot words: words and phrases that get a bonus for each of their characters.

A hypothesis gets one point for every character (spaces do not count) inside an occurrence of a phrase.
Characters that several occurrences share count once. In a script written with spaces a phrase occurs as whole
words.

So that a search follows a phrase, the characters of an unfinished phrase already count, and are subtracted
again if the phrase is not completed. The phrases form an automaton (Aho and Corasick 1975). The state is the
longest beginning of a phrase that the text so far ends with. A bit mask marks which of the last characters do
not count permanently yet.

Tokens that are strings of bytes are followed byte by byte (`asr.decoding.spelling`). If a character has
several bytes, only its first byte counts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.decoding.spelling import NO_LETTER, Spelling
from asr.errors import AsrError
from asr.tokenizers.interface import Tokenizer

MAX_LETTERS = 60  # of a phrase: together with a space on each side it must fit into 62 bits

_ALL_BITS = 2**62 - 1


Row = tuple[Tensor, Tensor, Tensor]
"""The state of prefixes: the automaton's state, the open bits, and the number of characters that count
now."""


class HotWords:
    """A scorer factory: the phrases as an automaton, for one tokenizer. `weight` is the bonus per character.

    Raises AsrError for a phrase that is empty, too long, or has characters that the tokenizer does not know,
    and for a tokenizer whose tokens are neither characters nor strings of bytes.
    """

    def __init__(
        self, phrases: Iterable[str], tokenizer: Tokenizer, bonus: float, device: torch.device | str = "cpu"
    ) -> None:
        spelling = Spelling.of(tokenizer)
        self.weight, self.eos, self.spelling = bonus, tokenizer.special.eos, spelling
        # EOS counts as a space, because both end a word. In scripts without spaces it ends no word.
        space = spelling.space if tokenizer.words_are_spaced else None
        self.space = spelling.eos if space is None else space
        letters = torch.where(spelling.letters == spelling.eos, self.space, spelling.letters)
        self.letters = letters.to(device)  # (V, L)
        self._sizes = (self.letters != NO_LETTER).sum(1)
        counts = spelling.counts.clone()
        counts[self.space] = False
        self.counts = counts.long().to(device)  # (n_letters,)
        self.gain = float(torch.where(letters == NO_LETTER, 0, counts.long()[letters]).sum(1).max())
        self._size = len(counts)
        automaton = _Automaton.build([_phrase_letters(p, tokenizer, spelling, self.space) for p in phrases])
        after_root = torch.zeros(self._size, dtype=torch.long)
        for letter, node in automaton.children[0].items():
            after_root[letter] = node
        self.after_root = after_root.to(device)  # the state after a letter that continues no phrase
        # All other transitions, sorted by their keys: state * n_letters + letter.
        transitions = sorted(
            (node * self._size + letter, target)
            for node, edges in enumerate(automaton.edges)
            for letter, target in edges.items()
        )
        table = torch.tensor(transitions or [(-1, 0)], device=device)
        self.keys, self.targets = table[:, 0].contiguous(), table[:, 1].contiguous()
        # Bit masks of the last characters that belong to a state, and to the longest phrase that ends there.
        self.begun = torch.tensor([2**n - 1 for n in automaton.depth], device=device)
        self.ended = torch.tensor([2**n - 1 for n in automaton.longest_match], device=device)

    def start(self, rows: int, capacity: int) -> HotWordScorer:
        """A scorer of `rows` empty prefixes of any length."""
        states = self.after_root[self.space].expand(rows)
        return HotWordScorer(self, states, torch.zeros_like(states), torch.zeros_like(states))

    def score_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Characters inside hot words, of whole hypotheses: tokens (R, U) padded, lengths (R,) -> (R,)."""
        scorer = self.start(len(tokens), tokens.size(1))
        total = torch.zeros(len(tokens), device=tokens.device)
        padded = torch.nn.functional.pad(tokens, (0, 1), value=self.eos)
        for position in range(tokens.size(1) + 1):
            column = torch.where(lengths == position, self.eos, padded[:, position])
            total += scorer.score(column.unsqueeze(1)).squeeze(1) * (lengths >= position)
            scorer.advance(column)
        return total

    def next_states(self, states: Tensor, letters: Tensor) -> Tensor:
        """The states after letters. Both have one shape, or shapes that broadcast."""
        keys = states * self._size + letters
        index = torch.searchsorted(self.keys, keys).clamp_max(len(self.keys) - 1)
        return torch.where(self.keys[index] == keys, self.targets[index], self.after_root[letters])

    def follow(self, row: Row, tokens: Tensor) -> tuple[Row, Tensor]:
        """The rows after one token each, and the change of the count by this token. `row` has shapes that
        broadcast with `tokens`.
        """
        states, open_bits, pending = (each.expand(tokens.shape) for each in row)
        changes = torch.zeros_like(pending)
        longest = int(self._sizes[tokens].max()) if self.letters.size(1) > 1 else 1
        for letters in self.letters[tokens].unbind(-1)[:longest]:
            there = letters != NO_LETTER
            letters = letters.clamp_min(0)
            after = self.next_states(states, letters)
            # A space has the bit 0, because it does not count.
            bits = (open_bits << 1 | self.counts[letters]) & _ALL_BITS
            counted = _count_bits(bits & self.begun[after])
            bits &= ~self.ended[after]
            left = _count_bits(bits & self.begun[after])
            changes = torch.where(there, changes + counted - pending, changes)
            states, open_bits, pending = (
                torch.where(there, new, old)
                for new, old in ((after, states), (bits, open_bits), (left, pending))
            )
        return (states, open_bits, pending), changes


class HotWordScorer:
    """Character counts of growing prefixes.

    For every row: the state of the automaton; as bits, which of the last characters do not count permanently
    yet; and how many of those count for now, because they belong to the unfinished phrase.
    """

    def __init__(self, words: HotWords, states: Tensor, open_bits: Tensor, pending: Tensor) -> None:
        self._words = words
        self._row: Row = (states, open_bits, pending)  # (R,) each

    def score(self, candidates: Tensor) -> Tensor:
        """The change of the count by each candidate: tokens (R, K) -> (R, K)."""
        states, open_bits, pending = (each.unsqueeze(1) for each in self._row)
        (_, _, left), changes = self._words.follow((states, open_bits, pending), candidates)
        # After EOS, the characters of an unfinished phrase do not count.
        return (changes - torch.where(candidates == self._words.eos, left, 0)).float()

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix."""
        self._row, _ = self._words.follow(self._row, tokens)

    def advance_some(self, tokens: Tensor, grows: Tensor) -> None:
        """Append a token (R,) to those prefixes where `grows` (R,) is true."""
        before = self._row
        self.advance(tokens)
        states, open_bits, pending = (
            torch.where(grows, new, old) for new, old in zip(self._row, before, strict=True)
        )
        self._row = (states, open_bits, pending)

    def select(self, rows: Tensor) -> HotWordScorer:
        """The scorer of the given rows (indices): reordered, repeated or dropped."""
        states, open_bits, pending = (each[rows] for each in self._row)
        return HotWordScorer(self._words, states, open_bits, pending)


def _phrase_letters(phrase: str, tokenizer: Tokenizer, spelling: Spelling, space: int) -> list[int]:
    """The letters of a phrase, with a space at each end where a word must begin or end."""
    text = " ".join(unicodedata.normalize("NFC", phrase).split())
    size = len(text.encode()) if spelling.in_bytes else len(text)
    if not 0 < size <= MAX_LETTERS:
        unit = "bytes" if spelling.in_bytes else "characters"
        raise AsrError(f"hot word {text!r}: it must have 1 to {MAX_LETTERS} {unit}")
    if unknown := tokenizer.unknown(text):
        raise AsrError(
            f"hot word {text!r}: the model does not know {' '.join(map(repr, unknown))}; "
            "write it with characters that the model knows"
        )
    letters = spelling.spell(text, tokenizer)
    # Each token must be one character. Equal numbers of tokens and characters do not show this.
    if not spelling.in_bytes and [spelling.symbols[letter] for letter in letters] != list(text):
        raise AsrError(f"hot word {text!r}: the tokens of this model are not characters; omit hot_words")
    edge = [space] if tokenizer.words_are_spaced else []
    before, after = ([] if _has_no_spaces(character) else edge for character in (text[0], text[-1]))
    return [*before, *letters, *after]


def _has_no_spaces(character: str) -> bool:
    """Whether the character belongs to a script that is written without spaces between words."""
    name = unicodedata.name(character, "").removeprefix("HALFWIDTH ")
    scripts = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
    return name.startswith(scripts)


@dataclass
class _Automaton:
    """An Aho-Corasick automaton. State 0 is the root; each list has one entry per state."""

    children: list[dict[int, int]]  # letter -> the state with this letter appended
    depth: list[int]  # number of letters of the state
    longest_match: list[int]  # length of the longest phrase that the state ends with; 0 if there is none
    # Transitions of each state other than the root. Those to children of the root are left out: they are the
    # same for all states.
    edges: list[dict[int, int]]

    @classmethod
    def build(cls, phrases: list[list[int]]) -> _Automaton:
        """The automaton of phrases, each a list of letters."""
        trie = cls([{}], [0], [0], [])
        for phrase in phrases:
            trie._insert(phrase)
        trie._connect()
        return trie

    def _insert(self, phrase: list[int]) -> None:
        node = 0
        for letter in phrase:
            if letter not in self.children[node]:
                self.children[node][letter] = len(self.children)
                self.children.append({})
                self.depth.append(self.depth[node] + 1)
                self.longest_match.append(0)
            node = self.children[node][letter]
        self.longest_match[node] = len(phrase)

    def _connect(self) -> None:
        """Add the transitions that leave a phrase, from the shortest states to the longest."""
        self.edges = [{} for _ in self.children]
        suffix = [0] * len(self.children)  # the longest other state that a state ends with
        for node in sorted(range(len(self.children)), key=self.depth.__getitem__):
            if node:
                self.longest_match[node] = max(self.longest_match[node], self.longest_match[suffix[node]])
                self.edges[node] = self.edges[suffix[node]] | self.children[node]
            for letter, child in self.children[node].items():
                if node:
                    suffix[child] = self.edges[suffix[node]].get(letter, self.children[0].get(letter, 0))


def _count_bits(numbers: Tensor) -> Tensor:
    """The number of bits set in each number (Warren, Hacker's Delight, section 5-1)."""
    x = numbers - (numbers >> 1 & 0x5555555555555555)
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333)
    x = x + (x >> 4) & 0x0F0F0F0F0F0F0F0F
    return x * 0x0101010101010101 >> 56
