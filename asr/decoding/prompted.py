"""A search with the prompt of the options, and the language and silence that the decoder detects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from asr.decoding.options import DecodingOptions, Hypothesis
from asr.errors import AsrError
from asr.model.interfaces import HasDecoder, LimitsPositions, Memory
from asr.model_folder import Bundle
from asr.tokenizers.interface import HasPromptTokens
from asr.tokenizers.special import PromptTokens, SpecialTokens

AUTO = "auto"  # detect the language of each utterance
Search = Callable[[SpecialTokens, Memory], list[list[Hypothesis]]]
"""A decoder that is given the special tokens, and with them the prompt."""


@torch.inference_mode()
def detect_languages(network: HasDecoder, memory: Memory, prompts: PromptTokens) -> list[str]:
    """The most likely language of each row of the memory (Radford et al. 2022, section 2.3).

    It is the best of the language tokens after the first token of the prompt.
    """
    log_probs = _after_start(network, memory, (prompts.start,), prompts)
    codes = list(prompts.languages)
    tokens = memory.lengths.new_tensor([prompts.languages[code] for code in codes])
    return [codes[i] for i in log_probs[:, tokens].argmax(1).tolist()]


@torch.inference_mode()
def no_speech_probabilities(
    network: HasDecoder, memory: Memory, prompt: Sequence[int], prompts: PromptTokens
) -> list[float]:
    """The probability of each row of the memory that nobody speaks: that of a token after `prompts.start`."""
    assert prompts.no_speech is not None, "the caller asks only for models with this token"
    probabilities: list[float] = (
        _after_start(network, memory, prompt, prompts)[:, prompts.no_speech].exp().tolist()
    )
    return probabilities


def _after_start(network: HasDecoder, memory: Memory, prompt: Sequence[int], prompts: PromptTokens) -> Tensor:
    """Log-probabilities (B, V) of the token after `prompts.start` in the prompt."""
    known = prompt[: prompt.index(prompts.start) + 1]
    state = network.start(memory, len(known))
    for token in known:
        log_probs = network.step(torch.full_like(memory.lengths, token), state)
    return log_probs


def check_prompt_options(bundle: Bundle[Any], options: DecodingOptions) -> None:
    """Raises AsrError for options that need tokens which the vocabulary lacks."""
    prompts = bundle.tokenizer.prompts if isinstance(bundle.tokenizer, HasPromptTokens) else None
    if options.timestamps and (prompts is None or prompts.first_timestamp is None):
        raise AsrError("timestamps: this model has no tokens for times; omit the option")
    for name in ("initial_prompt", "previous_text"):
        if getattr(options, name) and (prompts is None or prompts.previous is None):
            raise AsrError(f"{name}: this model has no token for earlier text; omit the option")
    if options.no_speech_threshold is not None and (prompts is None or prompts.no_speech is None):
        raise AsrError("no_speech_threshold: this model has no token for silence; omit the option")


class PromptedSearch:
    """The search with the prompt of the options.

    A model of several languages, whose tokenizer names none, detects the language of each utterance; rows of
    one language are decoded together. Raises AsrError for a language or task that the model does not have.
    """

    def __init__(
        self,
        bundle: Bundle[Any],
        options: DecodingOptions,
        search: Search,
        draft_model: Bundle[Any] | None = None,
    ) -> None:
        self.draft_model = draft_model  # its memory must be in `Memory.draft`
        self.in_order = bool(options.previous_text)  # whether `previous` is to be given
        self._bundle, self._options, self._search = bundle, options, search
        tokenizer = bundle.tokenizer
        self._prompts = tokenizer.prompts if isinstance(tokenizer, HasPromptTokens) else None
        languages = self._prompts.languages if self._prompts else {}
        unknown = options.language is None and not getattr(tokenizer, "language", None)
        self._detects = bool(languages) and (options.language == AUTO or unknown)
        text = (options.initial_prompt or "").strip()
        self._initial = tuple(tokenizer.encode(f" {text}")) if text else ()
        self._special(None if self._detects else options.language, self._initial)

    def __call__(self, memory: Memory, previous: Sequence[int] = ()) -> list[list[Hypothesis]]:
        """The hypotheses of every row. `previous` are the tokens of the text before; if empty, those of the
        options."""
        earlier = previous or self._initial
        if not self._detects or self._prompts is None:
            return self._decode(self._special(self._options.language, earlier), memory)
        found: list[list[Hypothesis]] = [[] for _ in memory.lengths]
        detected = detect_languages(self._bundle.network, memory, self._prompts)
        for language in dict.fromkeys(detected):
            rows = [row for row, each in enumerate(detected) if each == language]
            part = memory.select(memory.lengths.new_tensor(rows))
            results = self._decode(self._special(language, earlier), part)
            for row, hypotheses in zip(rows, results, strict=True):
                found[row] = hypotheses
        return found

    def _decode(self, special: SpecialTokens, memory: Memory) -> list[list[Hypothesis]]:
        """The hypotheses of every row, with their prompt where it is not that of the tokenizer."""
        found = self._search(special, memory)
        if special.prompt == self._bundle.special.prompt:
            return found
        return [[replace(each, prompt=special.prompt) for each in row] for row in found]

    def _special(self, language: str | None, previous: Sequence[int]) -> SpecialTokens:
        """The special tokens with the prompt. Earlier text has less than half of the decoder's positions."""
        options, network = self._options, self._bundle.network
        if not (language or options.task or options.timestamps or previous):
            return self._bundle.special
        if isinstance(network, LimitsPositions):
            room = network.max_positions // 2 - 1
            previous = previous[max(0, len(previous) - room) :]
        prompt = self._bundle.tokenizer.prompt(language, options.task, bool(options.timestamps), previous)
        return replace(self._bundle.special, prompt=prompt)
