"""Decoding in parallel: the unlikely tokens of a text are masked and predicted again in a few passes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asr.decoding.ctc import collapse_paths, mask_untrained
from asr.decoding.options import DecodingOptions, FinishReason, Hypothesis
from asr.errors import AsrError
from asr.masks import length_mask
from asr.model.interfaces import FillsMasks, HasCTC, LimitsPositions, Memory, PredictsLength
from asr.tokenizers.special import SpecialTokens

SURE = 0.999  # CTC's tokens of at least this probability stay (Higuchi et al. 2020)


@torch.inference_mode()
def mask_predict(
    network: FillsMasks, memory: Memory, special: SpecialTokens, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """One hypothesis for every row of the memory, in `iterations` decoder passes for a text of any length.

    A network that predicts lengths begins with masks alone, as many as its most probable length
    (Ghazvininejad et al. 2019). For others, the length and the sure tokens are those of CTC's best path
    (Mask-CTC, Higuchi et al. 2020). The other tokens are masked and filled, and the least probable of them
    are masked again: in pass t of T the share (T - t) / T of them, counted from 0 (Ghazvininejad et al. 2019,
    section 4). `log_prob` is the sum over the tokens of the log-probability with which each was chosen last,
    by the decoder or by CTC.

    Raises AsrError for a network that neither predicts lengths nor has a CTC head.
    """
    if memory.states.size(0) == 0:
        return []
    if isinstance(network, PredictsLength):
        tokens, scores, lengths = _masks_of_predicted_lengths(network.predict_lengths(memory))
    elif isinstance(network, HasCTC):
        tokens, scores, lengths = _text_of_ctc(network.ctc(memory), memory.lengths, special)
    else:
        raise AsrError(
            "mask-predict needs the length of a text, but this model has neither a length head nor a CTC "
            "head; use a model that has one"
        )
    finished = torch.ones_like(lengths, dtype=torch.bool)
    if isinstance(network, LimitsPositions):
        finished = lengths <= network.max_positions
        lengths = lengths.clamp_max(network.max_positions)
        tokens, scores = tokens[:, : network.max_positions], scores[:, : network.max_positions]

    valid = length_mask(lengths, tokens.size(1))  # (B, U)
    open_ = valid & (scores < math.log(SURE))  # the positions that are predicted
    counts = open_.sum(1, keepdim=True)  # (B, 1)
    never = torch.tensor(
        sorted({special.eos, special.blank, *special.suppressed}), device=memory.lengths.device
    )
    passes, masked = options.pass_count, open_
    for number in range(passes):
        if not masked.any():
            break
        logits = network.fill(tokens, masked, lengths, memory)  # (B, U, V)
        log_probs = logits.float().log_softmax(-1).index_fill(-1, never, -torch.inf)
        best, ids = log_probs.max(-1)
        tokens, scores = torch.where(masked, ids, tokens), torch.where(masked, best, scores)
        again = counts * (passes - 1 - number) // passes
        order = scores.masked_fill(~open_, torch.inf).argsort(dim=1, stable=True)
        masked = order.argsort(dim=1) < again  # tokens that stay have an infinite score and are last
    totals = torch.where(valid, scores, 0.0).sum(1)  # after a text, masks have probability 0
    rows = zip(tokens.tolist(), lengths.tolist(), totals.tolist(), finished.tolist(), strict=True)
    return [
        [Hypothesis(tuple(row[:length]), log_prob, FinishReason.end if whole else FinishReason.length)]
        for row, length, log_prob, whole in rows
    ]


def _masks_of_predicted_lengths(log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Arbitrary tokens (B, U) of probability 0 (B, U), so that all are masked, and the best lengths (B,)."""
    lengths = log_probs.argmax(1)
    shape = len(lengths), int(lengths.max())
    return lengths.new_zeros(shape), log_probs.new_full(shape, -torch.inf), lengths


def _text_of_ctc(
    log_probs: Tensor, state_lengths: Tensor, special: SpecialTokens
) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens (B, U) of CTC's best path, the log-probability of each (B, U), and lengths (B,).

    The probability of a token is its highest among the states of the path that belong to it.
    """
    best, paths = mask_untrained(log_probs, special).max(-1)  # (B, S) each
    tokens, begun = collapse_paths(paths, state_lengths, special)
    inside = length_mask(state_lengths, paths.size(1)) & (paths != special.blank)
    places = torch.where(inside, begun[:, 1:] - 1, tokens.size(1))  # the token of each state
    scores = torch.full((len(tokens), tokens.size(1) + 1), -torch.inf, device=best.device)
    scores = scores.scatter_reduce(1, places, best, "amax")[:, :-1]
    return tokens, scores.masked_fill(~length_mask(begun[:, -1], tokens.size(1)), 0.0), begun[:, -1]
