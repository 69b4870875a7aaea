"""Attention rescoring: CTC finds texts, the decoder chooses among them, in one parallel pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from asr.decoding.ctc import prefix_beam_search, ranked, speakable, text_scores
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.decoding.scorers import ScorerFactory
from asr.model.interfaces import Memory, Network
from asr.tokenizers import BOS, EOS


@torch.inference_mode()
def rescore(
    network: Network, memory: Memory, options: DecodingOptions, factories: Sequence[ScorerFactory] = ()
) -> list[list[Hypothesis]]:
    """The `n_best` of CTC's `beam` likeliest texts for every row of the memory, best first.

    Scored as beam search scores (`asr.decoding.beam`): by the decoder's and CTC's log-probabilities and by
    further factories, over (number of characters + 1) ** length_normalization; but of whole texts, so that the
    decoder goes through all texts of all utterances at once, and reads the audio of each utterance once
    (Sainath et al. 2019, "Two-pass end-to-end speech recognition").
    """
    if memory.states.size(0) == 0:
        return []
    ctc = speakable(network.ctc(memory))
    texts, sizes = prefix_beam_search(ctc, memory.lengths, options.beam_size)  # (B, N, U), (B, N)
    batch, count, size = texts.shape
    heard = text_scores(ctc, memory.lengths, texts, sizes)  # (B, N)

    tokens = texts.flatten(0, 1)  # (B * N, U)
    state = network.start(memory, size + 1).reorder(sizes.new_zeros(batch, count))
    given = pad(tokens, (1, 0), value=BOS)  # (B * N, U + 1)
    log_probs = network.forward_cached(given, state, sizes.new_zeros(batch * count))  # (B * N, U + 1, V)
    token_log_probs = log_probs.gather(2, pad(tokens, (0, 1), value=EOS).unsqueeze(2)).squeeze(2)
    within = torch.arange(size + 1, device=tokens.device) <= sizes.view(-1, 1)  # EOS is the last
    own = torch.where(within, token_log_probs, 0.0).sum(1).view(batch, count)

    weight = options.weight_of_ctc(True)
    scores = (1 - weight) * own + (weight * heard if weight else 0)
    for factory in factories:
        lengths = sizes.clamp_min(0).flatten()
        scores = scores + factory.weight * factory.score_texts(tokens, lengths).view(batch, count)
    scores = scores / (sizes + 1.0).clamp_min(1) ** (options.length_normalization or 0.0)
    return ranked(texts, sizes, own, scores.masked_fill(sizes < 0, -torch.inf), options.n_best or 1)
