"""Greedy decoding: the best token at every step, until EOS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.draft_model import decode_with_draft_model
from asr.decoding.hypotheses import COMPACT_BELOW, GreedyRules, Hypotheses, choose
from asr.decoding.max_lengths import compute_max_lengths
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.decoding.processors import LogitProcessor, LogitProcessors
from asr.decoding.prompts import start_with_prompt
from asr.decoding.repetition import CHECK_INTERVAL, cut_repetitions, is_repeating
from asr.decoding.sampling import Sampling
from asr.decoding.scorers import ScorerFactory
from asr.decoding.speculative import decode_speculatively
from asr.errors import AsrError
from asr.model.interfaces import CachedForward, HasCTC, HasDecoder, Memory
from asr.tokenizers.special import SpecialTokens


@torch.inference_mode()
def greedy(
    network: HasDecoder,
    memory: Memory,
    special: SpecialTokens,
    options: DecodingOptions,
    factories: Sequence[ScorerFactory] = (),
    processors: Sequence[LogitProcessor] = (),
    draft_network: HasDecoder | None = None,
) -> list[list[Hypothesis]]:
    """One hypothesis for every row of the memory.

    The best token has the best weighted sum of the decoder's log-probability and of CTC's prefix score, among
    the decoder's best candidates (Watanabe et al. 2017, with a beam of one). CTC is monotonic, so it corrects
    words that attention skips or repeats. With a `ctc_weight` of 0 the decoder decides alone.

    If the model has a CTC head and can score many positions at once, CTC's output is a draft that the decoder
    checks (`asr.decoding.speculative`), unless `draft` is False. The result is the same as step by step. With
    a `temperature` above 0 tokens are drawn step by step. A `draft_network` writes the drafts in place of
    CTC, where CTC takes no part in the choice (`asr.decoding.draft_model`).

    Raises AsrError when scorer factories are given: use beam search for them. It also does for a
    `draft_network` together with CTC scores.
    """
    if factories:
        raise AsrError("greedy decoding can use no scorer except CTC; use the decoder beam")
    if memory.states.size(0) == 0:
        return []
    ctc = network.ctc(memory) if isinstance(network, HasCTC) else None  # (B, S, V)
    weight = options.weight_of_ctc(ctc is not None)
    if draft_network is not None and weight:
        raise AsrError("draft_model: it cannot be used together with CTC scores; set ctc_weight to 0")
    max_lengths = compute_max_lengths(memory, ctc if weight else None, special, options, network)  # (B,)
    logit_processors = LogitProcessors(special, processors, memory.lengths.device)
    sampling = None
    if options.temperature:
        sampling = Sampling(options.temperature, options.seed or 0, special.vocabulary_size)
    rules = GreedyRules(special, max_lengths, weight, options.candidate_count, logit_processors, sampling)

    hypotheses = None
    drafts = options.draft is not False and sampling is None
    if draft_network is not None and sampling is None:
        hypotheses = decode_with_draft_model(network, draft_network, memory, rules)
    elif ctc is not None and drafts and isinstance(network, CachedForward):
        hypotheses = decode_speculatively(network, memory, ctc, rules)
    if hypotheses is None:
        hypotheses = decode_step_by_step(network, memory, ctc, rules)
    found = [[hypothesis] for hypothesis in hypotheses.finished(options.temperature or 0.0)]
    return cut_repetitions(network, memory, special, logit_processors, found)


def decode_step_by_step(
    network: HasDecoder, memory: Memory, ctc: Tensor | None, rules: GreedyRules
) -> Hypotheses:
    """One decoder pass for each token; `ctc` has the CTC log-probabilities (B, S, V) if there are any.

    Keys and values are cached. Finished rows leave the batch. As this copies the caches, it happens only when
    more than a quarter of the rows are finished.
    """
    hypotheses = Hypotheses(rules)
    scorer = None
    if ctc is not None and rules.ctc_weight:
        scorer = CTCPrefixScorer(ctc, memory.lengths, rules.special)
    rows = torch.arange(len(memory.lengths), device=memory.lengths.device)  # (R,) the utterance of each row
    live = torch.ones_like(rows, dtype=torch.bool)  # (R,) unfinished rows
    state, tokens = start_with_prompt(network, memory, rules.special, hypotheses.capacity)
    for position in range(hypotheses.capacity):
        prefixes = hypotheses.with_prompt[rows, : hypotheses.prompt_size + position]
        log_probs = rules.processors(prefixes, network.step(tokens, state))  # (R, V)
        choice = choose(log_probs, scorer, rules, prefixes)
        tokens = choice.tokens  # (R,)
        if scorer is not None:
            scorer.advance(tokens)
        starts = torch.full_like(rows, position)
        live &= hypotheses.add(rows, starts, tokens.unsqueeze(1), choice.log_probs.unsqueeze(1), live.long())
        if (position + 1) % CHECK_INTERVAL == 0:
            live &= ~is_repeating(hypotheses.tokens[rows, : position + 1])

        live_count = int(live.sum())
        if live_count == 0:
            break
        if live_count < COMPACT_BELOW * len(rows):
            keep = live.nonzero().squeeze(1)
            state, rows, tokens, live = state.select(keep), rows[keep], tokens[keep], live[keep]
            scorer = scorer and scorer.select(keep)
    return hypotheses
