"""Attention rescoring: CTC finds hypotheses, and the decoder ranks them in one parallel pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr.decoding.ctc import mask_untrained, n_best, prefix_beam_search, sequence_log_probs
from asr.decoding.max_lengths import most_tokens
from asr.decoding.options import DecodingOptions, FinishReason, Hypothesis
from asr.decoding.prompts import teacher_forced_log_probs, with_prompt
from asr.decoding.scorers import ScorerFactory
from asr.masks import length_mask
from asr.model.interfaces import CachedForward, HasCTC, HasDecoder, Memory
from asr.tokenizers.special import SpecialTokens


@torch.inference_mode()
def rescore(
    network: HasDecoder,
    memory: Memory,
    special: SpecialTokens,
    options: DecodingOptions,
    factories: Sequence[ScorerFactory] = (),
) -> list[list[Hypothesis]]:
    """The `n_best` of CTC's `beam` most likely hypotheses for every row of the memory, best first.

    The score is that of beam search (`asr.decoding.beam`): the weighted sum of the log-probabilities of the
    decoder and of CTC and of the scores of the factories, divided by
    (number of tokens + 1) ** length_normalization. All hypotheses are scored as a whole and at once
    (Sainath et al. 2019, "Two-pass end-to-end speech recognition").
    """
    if memory.states.size(0) == 0:
        return []
    assert isinstance(network, HasCTC), "build_decoder refuses a model without a CTC head"
    ctc = mask_untrained(network.ctc(memory), special)
    tokens, sizes = prefix_beam_search(ctc, memory.lengths, special, options.beam_size)  # (B, N, U), (B, N)
    if (most := most_tokens(network, special, factories)) is not None:
        sizes, tokens = sizes.clamp_max(most), tokens[..., :most]
    ctc_scores = sequence_log_probs(ctc, memory.lengths, special, tokens, sizes)  # (B, N)
    attention_scores = decoder_log_probs(network, memory, special, tokens, sizes)  # (B, N)

    weight = options.weight_of_ctc(True)
    scores = (1 - weight) * attention_scores
    if weight:  # a missing hypothesis has a score of minus infinity, and 0 times that is not a number
        scores = scores + weight * ctc_scores
    lengths = sizes.clamp_min(0)
    for factory in factories:
        added = factory.score_texts(tokens.flatten(0, 1), lengths.flatten()).view_as(scores)
        scores = scores + factory.weight * added
    scores = scores / (lengths + 1.0) ** (options.length_normalization or 0.0)
    scores = scores.masked_fill(sizes < 0, -torch.inf)
    found = n_best(tokens, sizes, attention_scores, scores, options.n_best or 1)
    return [
        [replace(h, finish_reason=FinishReason.length) if len(h.tokens) == most else h for h in row]
        for row in found
    ]


def decoder_log_probs(
    network: HasDecoder, memory: Memory, special: SpecialTokens, tokens: Tensor, sizes: Tensor
) -> Tensor:
    """The decoder's log-probabilities (B, N) of token sequences (B, N, U) of sizes (B, N), EOS included."""
    batch, count, size = tokens.shape
    sequences = tokens.flatten(0, 1)  # (B * N, U)
    if isinstance(network, CachedForward):  # the N sequences of an utterance share what depends on the memory
        inputs = with_prompt(sequences, special)  # (B * N, P + U)
        state = network.start(memory, inputs.size(1)).reorder(sizes.new_zeros(batch, count))
        log_probs = network.forward_cached(inputs, state, sizes.new_zeros(batch * count))
        log_probs = log_probs[:, len(special.prompt) - 1 :]  # (B * N, U + 1, V)
    else:
        rows = torch.arange(batch, device=sizes.device).repeat_interleave(count)
        log_probs = teacher_forced_log_probs(network, memory.select(rows), sequences, special)
    targets = pad(sequences, (0, 1), value=special.eos).unsqueeze(2)  # (B * N, U + 1, 1)
    token_log_probs = log_probs.gather(2, targets).squeeze(2)
    until_eos = length_mask(sizes.flatten() + 1, size + 1)
    return torch.where(until_eos, token_log_probs, 0.0).sum(1).view(batch, count)
