"""The prompt of a text: its language and task, and detection of the language by the decoder itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from asr.decoding.options import DecodingOptions, Hypothesis
from asr.model.interfaces import HasDecoder, Memory
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
    start = torch.full_like(memory.lengths, prompts.start)
    log_probs = network.step(start, network.start(memory, 1))  # (B, V)
    codes = list(prompts.languages)
    tokens = memory.lengths.new_tensor([prompts.languages[code] for code in codes])
    return [codes[i] for i in log_probs[:, tokens].argmax(1).tolist()]


def with_prompt_of_options(
    bundle: Bundle[Any], options: DecodingOptions, search: Search
) -> Callable[[Memory], list[list[Hypothesis]]]:
    """The search with the prompt that the options ask for.

    A model of several languages whose tokenizer names none detects that of each utterance; rows of one
    language are decoded together. Raises AsrError for a language or task that the model does not have.
    """
    tokenizer, network = bundle.tokenizer, bundle.network

    def special_of(language: str | None) -> SpecialTokens:
        return replace(bundle.special, prompt=tokenizer.prompt(language, options.task))

    prompts = tokenizer.prompts if isinstance(tokenizer, HasPromptTokens) else None
    languages = prompts.languages if prompts else {}
    detects = options.language == AUTO or (
        options.language is None and not getattr(tokenizer, "language", None)
    )
    if prompts is None or not (languages and detects):
        special = special_of(options.language) if options.language or options.task else bundle.special
        return lambda memory: search(special, memory)
    specials = {language: special_of(language) for language in languages}

    def decode(memory: Memory) -> list[list[Hypothesis]]:
        found: list[list[Hypothesis]] = [[] for _ in memory.lengths]
        detected = detect_languages(network, memory, prompts)
        for language in dict.fromkeys(detected):
            rows = [row for row, each in enumerate(detected) if each == language]
            part = memory.select(memory.lengths.new_tensor(rows))
            for row, hypotheses in zip(rows, search(specials[language], part), strict=True):
                found[row] = hypotheses
        return found

    return decode
