"""Hot words: words and phrases that get a bonus for each of their characters.

A hypothesis scores one for every character (spaces do not count) inside an occurrence of a phrase. Characters
that several occurrences share count once. In a script written with spaces a phrase occurs as whole words.

So that a search follows a phrase, the characters of an unfinished phrase already count, and are subtracted
again if the phrase is not completed. The phrases form an automaton (Aho and Corasick 1975). Its state is the
longest beginning of a phrase that the prefix ends with. The bits of a number tell which of the prefix's last
characters do not count permanently yet.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.errors import AsrError
from asr.tokenizers.interface import Tokenizer

MAX_CHARACTERS = 60  # of a phrase: together with a space on each side it must fit into 62 bits
_ALL_BITS = 2**62 - 1


class HotWords:
    """A scorer factory: the phrases as an automaton, for one tokenizer. `weight` is the bonus per character.

    Raises AsrError for a phrase that is empty, too long, or has characters that the tokenizer does not know,
    and for a tokenizer whose tokens are not single characters.
    """

    gain = 1.0

    def __init__(
        self, phrases: Iterable[str], tokenizer: Tokenizer, bonus: float, device: torch.device | str = "cpu"
    ) -> None:
        self.weight = bonus
        self.vocabulary_size = len(tokenizer)
        self.eos = tokenizer.special.eos
        # EOS counts as a space, because both end a word. In scripts without spaces it ends no word.
        self.space = tokenizer.encode("a b")[1] if tokenizer.words_are_spaced else self.eos
        automaton = _Automaton.build([_phrase_tokens(phrase, tokenizer) for phrase in phrases])
        after_root = torch.zeros(self.vocabulary_size, dtype=torch.long)
        for token, node in automaton.children[0].items():
            after_root[token] = node
        self.after_root = after_root.to(device)  # (V,) the state after a token that continues no phrase
        # All other transitions, sorted by their keys: state * V + token.
        transitions = sorted(
            (node * self.vocabulary_size + token, target)
            for node, edges in enumerate(automaton.edges)
            for token, target in edges.items()
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

    def next_states(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The states after tokens. Both have one shape, or shapes that broadcast."""
        keys = states * self.vocabulary_size + tokens
        index = torch.searchsorted(self.keys, keys).clamp_max(len(self.keys) - 1)
        return torch.where(self.keys[index] == keys, self.targets[index], self.after_root[tokens])


class HotWordScorer:
    """Character counts of growing prefixes.

    For every row: the state of the automaton; as bits, which of the last characters do not count permanently
    yet; and how many of those count for now, because they belong to the unfinished phrase.
    """

    def __init__(self, words: HotWords, states: Tensor, open_bits: Tensor, pending: Tensor) -> None:
        self._words, self._states, self._open_bits, self._pending = words, states, open_bits, pending  # (R,)

    def score(self, candidates: Tensor) -> Tensor:
        """By how much each candidate changes the count: tokens (R, K) -> (R, K)."""
        words = self._words
        ends = candidates == words.eos
        tokens = torch.where(ends, words.space, candidates)
        states = words.next_states(self._states.unsqueeze(1), tokens)
        counted = torch.where(ends, words.ended[states], words.begun[states])
        open_bits = self._append(self._open_bits.unsqueeze(1), tokens)
        return (_count_bits(open_bits & counted) - self._pending.unsqueeze(1)).float()

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix."""
        words = self._words
        self._states = words.next_states(self._states, tokens)
        self._open_bits = self._append(self._open_bits, tokens) & ~words.ended[self._states]
        self._pending = _count_bits(self._open_bits & words.begun[self._states])

    def advance_some(self, tokens: Tensor, grows: Tensor) -> None:
        """Append a token (R,) to those prefixes where `grows` (R,) is true."""
        before = (self._states, self._open_bits, self._pending)
        self.advance(torch.where(grows, tokens, self._words.space))
        after = (self._states, self._open_bits, self._pending)
        self._states, self._open_bits, self._pending = (
            torch.where(grows, new, old) for new, old in zip(after, before, strict=True)
        )

    def select(self, rows: Tensor) -> HotWordScorer:
        """The scorer of the given rows (indices): reordered, repeated or dropped."""
        return HotWordScorer(self._words, self._states[rows], self._open_bits[rows], self._pending[rows])

    def _append(self, open_bits: Tensor, tokens: Tensor) -> Tensor:
        """The bits after one more token. A space has the bit 0, because it does not count."""
        return (open_bits << 1 | (tokens != self._words.space)) & _ALL_BITS


def _phrase_tokens(phrase: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a phrase, with a space at each end where a word must begin or end."""
    text = " ".join(unicodedata.normalize("NFC", phrase).split())
    if not text or len(text) > MAX_CHARACTERS:
        raise AsrError(f"hot word {text!r}: it must have 1 to {MAX_CHARACTERS} characters")
    if unknown := tokenizer.unknown(text):
        raise AsrError(
            f"hot word {text!r}: the model does not know {' '.join(map(repr, unknown))}; "
            "write it with characters that the model knows"
        )
    tokens = tokenizer.encode(text)
    if len(tokens) != len(text):
        raise AsrError(f"hot word {text!r}: the tokens of this model are not characters; omit hot_words")
    space = [tokenizer.encode("a b")[1]] if tokenizer.words_are_spaced else []
    before, after = ([] if _has_no_spaces(edge) else space for edge in (text[0], text[-1]))
    return [*before, *tokens, *after]


def _has_no_spaces(character: str) -> bool:
    """Whether the character belongs to a script that is written without spaces between words."""
    scripts = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
    return unicodedata.name(character, "").startswith(scripts)


@dataclass
class _Automaton:
    """An Aho-Corasick automaton. State 0 is the root; each list has one entry per state."""

    children: list[dict[int, int]]  # token -> the state with this token appended
    depth: list[int]  # number of tokens of the state
    longest_match: list[int]  # length of the longest phrase that the state ends with; 0 if there is none
    # Transitions of each state other than the root. Those to children of the root are left out: they are the
    # same for all states.
    edges: list[dict[int, int]]

    @classmethod
    def build(cls, phrases: list[list[int]]) -> _Automaton:
        """The automaton of phrases, each a list of tokens."""
        trie = cls([{}], [0], [0], [])
        for phrase in phrases:
            trie._insert(phrase)
        trie._connect()
        return trie

    def _insert(self, phrase: list[int]) -> None:
        node = 0
        for token in phrase:
            if token not in self.children[node]:
                self.children[node][token] = len(self.children)
                self.children.append({})
                self.depth.append(self.depth[node] + 1)
                self.longest_match.append(0)
            node = self.children[node][token]
        self.longest_match[node] = len(phrase)

    def _connect(self) -> None:
        """Add the transitions that leave a phrase, from the shortest states to the longest."""
        self.edges = [{} for _ in self.children]
        suffix = [0] * len(self.children)  # the longest other state that a state ends with
        for node in sorted(range(len(self.children)), key=self.depth.__getitem__):
            if node:
                self.longest_match[node] = max(self.longest_match[node], self.longest_match[suffix[node]])
                self.edges[node] = self.edges[suffix[node]] | self.children[node]
            for token, child in self.children[node].items():
                if node:
                    suffix[child] = self.edges[suffix[node]].get(token, self.children[0].get(token, 0))


def _count_bits(numbers: Tensor) -> Tensor:
    """The number of bits set in each number (Warren, Hacker's Delight, section 5-1)."""
    x = numbers - (numbers >> 1 & 0x5555555555555555)
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333)
    x = x + (x >> 4) & 0x0F0F0F0F0F0F0F0F
    return x * 0x0101010101010101 >> 56
