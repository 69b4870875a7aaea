"""A language model as a factory of scores: shallow fusion in beam search, whole texts in rescoring.

Shallow fusion adds the weighted log-probability that a language model gives to each character, EOS included,
to the scores of the recognizer (Gülçehre et al. 2015).
"""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.errors import AsrError
from asr.model.decoders.transformer import DecoderState
from asr.model.language_model import LanguageModel
from asr.model_folder import load_language_model
from asr.tokenizers import BOS, EOS, PAD, UNK, Tokenizer

CHUNK = 2**16  # tokens that are scored at once: rows x positions


class LanguageModelFactory:
    """Scores texts by a language model. `ids` (V,) gives its token for each token of the recognizer."""

    gain = 0.0  # log-probabilities

    def __init__(self, network: LanguageModel, ids: Tensor, weight: float) -> None:
        self.network, self.ids, self.weight = network, ids, weight

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], tokenizer: Tokenizer, weight: float, device: str
    ) -> LanguageModelFactory:
        """The language model of a folder, for a recognizer with a tokenizer, on its device.

        Raises AsrError for what is not a language model's folder, and for one with characters that the
        recognizer does not know.
        """
        bundle = load_language_model(folder, device)
        try:
            ids = matching_tokens(tokenizer, bundle.tokenizer)
        except AsrError as error:
            raise AsrError(f"{folder}: {error}") from None
        bundle.network.requires_grad_(False)
        return cls(bundle.network, ids.to(bundle.device), weight)

    def start(self, rows: int, capacity: int) -> LanguageModelScorer:
        """A scorer of `rows` empty prefixes that will grow to `capacity` tokens at most."""
        state = self.network.start(rows, capacity + 1)  # BOS has a place too
        first = self.network.step(self.ids.new_full((rows,), BOS), state)
        return LanguageModelScorer(self, state, first)

    @torch.inference_mode()
    def score_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities of whole texts, EOS included, all positions at once: (R, U), (R,) -> (R,)."""
        places = torch.arange(tokens.size(1) + 1, device=tokens.device)  # (U + 1,)
        within = places < lengths.unsqueeze(1)  # (R, U + 1)
        texts = torch.where(within, pad(self.ids[tokens], (0, 1)), PAD)
        wanted = texts.masked_fill(places == lengths.unsqueeze(1), EOS)
        given = pad(texts[:, :-1], (1, 0), value=BOS)
        fit = max(1, CHUNK // len(places))
        scores = [
            torch.log_softmax(self.network(some).float(), dim=-1).gather(2, follow.unsqueeze(2)).squeeze(2)
            for some, follow in zip(given.split(fit), wanted.split(fit), strict=True)
        ]  # (R, U + 1) in pieces
        return torch.cat(scores).masked_fill(wanted == PAD, 0.0).sum(1)


class LanguageModelScorer:
    """Scores of growing prefixes, from cached keys and values."""

    def __init__(self, factory: LanguageModelFactory, state: DecoderState, log_probs: Tensor) -> None:
        self._source, self._state, self._log_probs = factory, state, log_probs  # (R, V') of what follows

    def score(self, candidates: Tensor) -> Tensor:
        """Log-probabilities of candidates (R, K), each given its row's prefix: (R, K)."""
        return self._log_probs.gather(1, self._source.ids[candidates])

    def advance(self, tokens: Tensor) -> None:
        """Append a token (R,) to every prefix: one step of the network."""
        self._log_probs = self._source.network.step(self._source.ids[tokens], self._state)

    def select(self, rows: Tensor) -> LanguageModelScorer:
        """The scorer of the given rows (indices), reordered, repeated or dropped; this one is used up."""
        return LanguageModelScorer(
            self._source, self._state.reorder(rows.unsqueeze(0)), self._log_probs[rows]
        )


def matching_tokens(recognizer: Tokenizer, language: Tokenizer) -> Tensor:
    """The language model's token for each of the recognizer's: (V,).

    A language model with characters that the recognizer cannot say is refused: it would spend its
    probability on them, and is as a rule one of other text (small letters instead of capitals, punctuation).
    The other way round it is harmless: a character that the language model does not know is UNK to it, and
    unlikely.
    """
    foreign = [c for c in language.symbols if c not in frozenset(recognizer.symbols)]
    if foreign:
        shown = " ".join(map(repr, foreign[:5])) + (" ..." if len(foreign) > 5 else "")
        raise AsrError(
            f"the language model has characters that the recognizer does not know: {shown}; train it with "
            "data.case (upper or lower) and data.characters_of set to fit"
        )
    ids = {symbol: i for i, symbol in enumerate(language.symbols)}
    return torch.tensor([ids.get(symbol, UNK) for symbol in recognizer.symbols])
