"""A neural language model as a scorer: shallow fusion in beam search, whole hypotheses in rescoring.

Shallow fusion adds the weighted log-probability that a language model gives to each token, EOS included, to
the scores of the recognizer (Gülçehre et al. 2015).
"""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.decoding.prompts import with_prompt
from asr.errors import AsrError
from asr.masks import length_mask
from asr.model.decoders.transformer import DecoderState
from asr.model.interfaces import LimitsPositions
from asr.model.language_model import LanguageModel
from asr.model_folder import load_language_model
from asr.tokenizers.interface import Tokenizer
from asr.tokenizers.special import SpecialTokens

CHUNK = 2**16  # tokens scored at once: rows x positions
UNKNOWN = "<unk>"  # the symbol of the unknown token in every tokenizer that has one


class LanguageModelFactory:
    """Scores hypotheses by a language model.

    `ids` (V,) has the language model's token for each token of the recognizer. `special` are the special
    tokens of the language model.
    """

    gain = 0.0  # log-probabilities

    def __init__(self, network: LanguageModel, special: SpecialTokens, ids: Tensor, weight: float) -> None:
        self.network, self.special, self.ids, self.weight = network, special, ids, weight
        if isinstance(network, LimitsPositions):
            self.max_tokens = network.max_positions - len(special.prompt)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], tokenizer: Tokenizer, weight: float, device: str
    ) -> LanguageModelFactory:
        """The language model of a folder, for a recognizer with the tokenizer, on the recognizer's device.

        Raises AsrError for a folder without a language model, and for a language model with symbols that the
        recognizer does not have.
        """
        bundle = load_language_model(folder, device)
        try:
            ids = matching_tokens(tokenizer, bundle.tokenizer)
        except AsrError as error:
            raise AsrError(f"{folder}: {error}") from None
        bundle.network.requires_grad_(False)
        return cls(bundle.network, bundle.special, ids.to(bundle.device), weight)

    def start(self, rows: int, capacity: int) -> LanguageModelScorer:
        """A scorer of `rows` empty prefixes, which can grow to `capacity` tokens."""
        prompt = self.special.prompt
        state = self.network.start(rows, len(prompt) + capacity)
        for token in prompt:
            log_probs = self.network.step(self.ids.new_full((rows,), token), state)
        return LanguageModelScorer(self, state, log_probs)

    @torch.inference_mode()
    def score_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities of whole hypotheses, EOS included: tokens (R, U), lengths (R,) -> (R,)."""
        size = tokens.size(1)
        inside = length_mask(lengths, size)  # (R, U)
        inputs = with_prompt(torch.where(inside, self.ids[tokens], self.special.pad), self.special)
        targets = pad(torch.where(inside, self.ids[tokens], self.special.eos), (0, 1), value=self.special.eos)
        rows = max(1, CHUNK // inputs.size(1))
        first = len(self.special.prompt) - 1  # the position that predicts the first token
        scores = [
            self.network(some)[:, first:].float().log_softmax(-1).gather(2, target.unsqueeze(2)).squeeze(2)
            for some, target in zip(inputs.split(rows), targets.split(rows), strict=True)
        ]  # (rows, U + 1) each
        return torch.where(length_mask(lengths + 1, size + 1), torch.cat(scores), 0.0).sum(1)


class LanguageModelScorer:
    """Scores of growing prefixes, from cached keys and values."""

    def __init__(self, factory: LanguageModelFactory, state: DecoderState, log_probs: Tensor) -> None:
        self._factory, self._state = factory, state
        self._log_probs = log_probs  # (R, V') of the language model's next token

    def score(self, candidates: Tensor) -> Tensor:
        """Log-probabilities of candidates (R, K), each given its row's prefix: (R, K)."""
        return self._log_probs.gather(1, self._factory.ids[candidates])

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix: one step of the network."""
        self._log_probs = self._factory.network.step(self._factory.ids[tokens], self._state)

    def select(self, rows: Tensor) -> LanguageModelScorer:
        """The scorer of the given rows (indices): reordered, repeated or dropped. This one must not be used
        after this call."""
        state = self._state.reorder(rows.unsqueeze(0))
        return LanguageModelScorer(self._factory, state, self._log_probs[rows])


def matching_tokens(recognizer: Tokenizer, language: Tokenizer) -> Tensor:
    """The language model's token for each token of the recognizer: (V,).

    Tokens match by their symbols, EOS by its role. A language model with symbols that the recognizer does not
    have is refused: it would give probability to symbols that cannot occur, and it probably was trained on
    text of another kind (lower case instead of upper case, punctuation). The opposite is harmless: a symbol
    that the language model lacks is replaced by its unknown token, which has a low probability.

    Raises AsrError also if the language model needs an unknown token and has none.
    """
    ids = {symbol: i for i, symbol in enumerate(language.symbols)}
    known = frozenset(recognizer.symbols)
    foreign = [s for s in ids if s not in known]
    _refuse("the language model has symbols that the recognizer does not know", foreign)
    if UNKNOWN not in ids:
        missing = [s for s in recognizer.symbols if s not in ids]
        _refuse("the recognizer has symbols that the language model does not know", missing)
    matching = torch.tensor([ids.get(symbol, ids.get(UNKNOWN, 0)) for symbol in recognizer.symbols])
    matching[recognizer.special.eos] = language.special.eos
    return matching


def _refuse(reason: str, symbols: list[str]) -> None:
    """Raises AsrError if there are any symbols."""
    if symbols:
        shown = " ".join(map(repr, symbols[:5])) + (" ..." if len(symbols) > 5 else "")
        raise AsrError(
            f"{reason}: {shown}; train the language model with data.characters_of (the recognizer's folder) "
            "and a suitable data.case"
        )
