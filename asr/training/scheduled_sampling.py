"""Scheduled sampling: in training, some of the decoder's input tokens are its own predictions.

A decoder that was trained on the true text only has never read its own errors, but in decoding it must
continue after them. Bengio et al. 2015, "Scheduled sampling for sequence prediction with recurrent neural
networks".
"""

from __future__ import annotations

import torch
from torch import Tensor

from asr.model.drawing import draw_tokens
from asr.model.interfaces import HasDecoder, Memory, ReadsOwnPredictions


def decode_sampled(
    network: HasDecoder, tokens: Tensor, memory: Memory, prompt_size: int, share: float
) -> Tensor:
    """Teacher forcing in which a share of the tokens is drawn from the network's own predictions.

    tokens (B, U), each row from the prompt on -> logits (B, U, V). The prompt is never replaced. A decoder
    that works step by step reads its own predictions in one pass. Others make two passes (Mihaylova and
    Martins 2019, "Scheduled sampling for Transformers"): the first one reads the true tokens, and its
    predictions replace a share of them in the second one. The first pass has no gradient.
    """
    sampled = torch.rand(tokens.shape, device=tokens.device) < share  # (B, U)
    sampled[:, :prompt_size] = False
    if isinstance(network, ReadsOwnPredictions):
        return network.decode_sampled(tokens, memory, sampled)
    with torch.no_grad():
        logits = network.decode(tokens, memory)[:, :-1]  # (B, U - 1, V)
        drawn = draw_tokens(logits.flatten(0, 1)).view(len(tokens), -1)
        predictions = torch.cat((tokens[:, :1], drawn), 1)  # (B, U): of the token at each position
    return network.decode(torch.where(sampled, predictions, tokens), memory)
