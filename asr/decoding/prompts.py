"""Every token sequence begins with a prompt: BOS alone, or several tokens such as Whisper's four."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.model.interfaces import HasDecoder, Memory, State
from asr.tokenizers.special import SpecialTokens


def with_prompt(tokens: Tensor, special: SpecialTokens) -> Tensor:
    """The prompt (P tokens) before each row: tokens (R, U) -> (R, P + U)."""
    prompt = torch.tensor(special.prompt, dtype=tokens.dtype, device=tokens.device)
    return torch.cat([prompt.expand(len(tokens), -1), tokens], 1)


def start_with_prompt(
    network: HasDecoder, memory: Memory, special: SpecialTokens, capacity: int
) -> tuple[State, Tensor]:
    """A state that has read all prompt tokens except the last, with capacity for it and later tokens.

    Returns the state and the last prompt token of each row, (B,). It is the first input of decoding: the
    decoder's output for it predicts the first token. `capacity` counts it and the positions after it.
    """
    tokens = memory.lengths.new_tensor(special.prompt).unsqueeze(1).expand(-1, len(memory.lengths))  # (P, B)
    state = network.start(memory, len(tokens) - 1 + capacity)
    for token in tokens[:-1]:
        network.step(token, state)
    return state, tokens[-1]


def teacher_forced_log_probs(
    network: HasDecoder, memory: Memory, tokens: Tensor, special: SpecialTokens
) -> Tensor:
    """The decoder's log-probabilities for given token sequences, all positions at once and without a cache.

    tokens (B, U) without the prompt -> log-probabilities (B, U + 1, V), float32, of each token and of the
    one after the last.
    """
    logits = network.decode(with_prompt(tokens, special), memory)
    return logits[:, len(special.prompt) - 1 :].float().log_softmax(-1)
