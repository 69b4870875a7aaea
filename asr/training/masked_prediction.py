"""The loss of decoders that fill masked positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss

from asr.masks import length_mask
from asr.model.interfaces import FillsMasks, Memory, PredictsLength


def masked_loss(
    network: FillsMasks,
    memory: Memory,
    decoder_input: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    label_smoothing: float,
    has_text: Tensor,
    random: bool,
) -> Tensor:
    """Cross-entropy of masked tokens, summed over a batch: tokens (B, U), lengths (B,).

    In training (`random`) a row's number of masks is uniform from 1 to its length, and their places are
    random (Ghazvininejad et al. 2019, section 3.1). The loss of a row is divided by the share of its tokens
    that are masked. It is then an estimate of the loss of predicting all tokens one by one in random order
    (Uria et al. 2014), and so of the size of other decoders' losses. In validation all tokens are masked, as
    in the first pass of decoding, so that the loss of a text is one number. `decoder_input` (B, U) are the
    tokens that are seen where there is no mask. For a network that predicts lengths, the length counts as one
    more token, and one above its limit as the limit. Rows for which `has_text` (B,) is false have no loss.
    """
    valid = length_mask(lengths, tokens.size(1)) & has_text.unsqueeze(1)  # (B, U)
    masked = random_masks(valid) if random else valid
    logits = network.fill(decoder_input, masked, lengths, memory)  # (B, U, V)
    each = cross_entropy(
        logits.float().transpose(1, 2), tokens, label_smoothing=label_smoothing, reduction="none"
    )  # (B, U)
    share = masked.sum(1) / valid.sum(1).clamp_min(1)
    loss = ((each * masked).sum(1) / share.clamp_min(1e-9)).sum()
    if isinstance(network, PredictsLength):
        log_probs = network.predict_lengths(memory)
        limited = lengths.clamp_max(log_probs.size(1) - 1)
        loss = loss + (nll_loss(log_probs, limited, reduction="none") * has_text).sum()
    return loss


def random_masks(valid: Tensor) -> Tensor:
    """Masks (B, U) of at least one and at most all of the valid (B, U) positions of each row."""
    lengths = valid.sum(1, keepdim=True)
    counts = 1 + (torch.rand(len(valid), 1, device=valid.device) * lengths).long()  # 1 to the length
    order = torch.rand(valid.shape, device=valid.device).masked_fill(~valid, torch.inf).argsort(1)
    return valid & (order.argsort(1) < counts)
