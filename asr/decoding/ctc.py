"""Decoding with the CTC head alone: the best path, and prefix beam search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss, pad

from asr.decoding.fusion import FusedScores
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.decoding.scorers import ScorerFactory
from asr.masks import length_mask
from asr.model.interfaces import HasCTC, Memory
from asr.tokenizers.special import SpecialTokens

SURE_BLANK = 0.999
MAX_CANDIDATES = 64  # most likely tokens of each state that can be appended; all tokens of a small vocabulary
FUSED_CANDIDATES = 16  # the same, with other scorers
_HASH_FACTOR = 6364136223846793005  # multiplier of the polynomial hash of prefixes (Knuth, MMIX)


@torch.inference_mode()
def ctc_decode(
    network: HasCTC,
    memory: Memory,
    special: SpecialTokens,
    options: DecodingOptions,
    factories: Sequence[ScorerFactory] = (),
) -> list[list[Hypothesis]]:
    """The `n_best` hypotheses of every row of the memory: of the best path, or of a beam search.

    `log_prob` is the log-probability of the token sequence, the sum over all its alignments. With
    scorers, which need a beam, the hypotheses are ranked by the sum of `log_prob` and the weighted scores
    (shallow fusion).
    """
    assert not factories or options.beam_size > 1, "build_decoder refuses scorers without a beam"
    if memory.states.size(0) == 0:
        return []
    log_probs = mask_untrained(network.ctc(memory), special)
    if options.beam_size == 1:
        tokens, begun = collapse_paths(log_probs.argmax(2), memory.lengths, special)
        tokens, sizes = tokens.unsqueeze(1), begun[:, -1:]  # (B, 1, U), (B, 1)
        added: Tensor | float = 0.0
    else:
        fused = FusedScores(factories, special, *log_probs.shape[:2]) if factories else None
        tokens, sizes = prefix_beam_search(log_probs, memory.lengths, special, options.beam_size, fused)
        added = fused.final() if fused else 0.0
    found = sequence_log_probs(log_probs, memory.lengths, special, tokens, sizes)  # (B, N)
    return n_best(tokens, sizes, found, found + added, options.n_best or 1)


def mask_untrained(log_probs: Tensor, special: SpecialTokens) -> Tensor:
    """CTC's log-probabilities (B, S, V), with minus infinity for tokens that are never its targets.

    These are EOS and the suppressed tokens, except the blank.
    """
    untrained = sorted({special.eos, *special.suppressed} - {special.blank})
    return log_probs.index_fill(-1, torch.tensor(untrained, device=log_probs.device), -torch.inf)


def collapse_paths(paths: Tensor, lengths: Tensor, special: SpecialTokens) -> tuple[Tensor, Tensor]:
    """The token sequences of CTC paths (B, S): repeated tokens are merged, then blanks are removed.

    Returns the sequences (B, U), padded with EOS, and the number of tokens that have begun in the first t
    states, for t from 0 to S: (B, S + 1).
    """
    begins = (paths != special.blank) & (paths != pad(paths[:, :-1], (1, 0), value=special.blank))
    begins &= length_mask(lengths, paths.size(1))
    begun = pad(begins.cumsum(1), (1, 0))  # (B, S + 1)
    tokens = torch.full_like(paths[:, :1], special.eos).expand(-1, int(begun.max()) + 1).clone()
    # States in which no token begins write to an additional last column, which is dropped.
    tokens.scatter_(1, torch.where(begins, begun[:, :-1], tokens.size(1) - 1), paths)
    return tokens[:, :-1], begun


@dataclass
class _Prefixes:
    """The beam of prefix beam search: W prefixes for each of B utterances. All but `tokens` are (B, W)."""

    blank: Tensor  # log-probability of the paths that produce the prefix and end in a blank
    token: Tensor  # ... and end in its last token
    last: Tensor  # the last token; the blank for the empty prefix
    hashes: Tensor  # hash of the prefix
    parents: Tensor  # hash of the prefix without its last token
    sizes: Tensor
    tokens: Tensor  # (B, W, S + 1), padded with EOS


def prefix_beam_search(
    log_probs: Tensor,
    lengths: Tensor,
    special: SpecialTokens,
    beam: int,
    fused: FusedScores | None = None,
) -> tuple[Tensor, Tensor]:
    """The `beam` most likely token sequences, best first (Hannun et al. 2014, algorithm 1).

    log_probs (B, S, V), lengths (B,) -> sequences (B, W, U), padded with EOS, and their lengths (B, W). If
    there are fewer than `beam` sequences, the length of the others is -1.

    All utterances and prefixes advance together, state by state. Prefixes are compared by their hashes: a
    prefix can be reached both as itself and as the continuation of a shorter one.

    With `fused` the beam is ranked by the sum of its scores and CTC's. Then each state has fewer candidates,
    and consecutive states that are almost certainly blank count as one.
    """
    if fused:
        log_probs, lengths = merge_blanks(log_probs, lengths, special)
    device, (batch, states, vocabulary) = log_probs.device, log_probs.shape
    valid = length_mask(lengths, states)
    log_probs = log_probs.double() if device.type != "mps" else log_probs
    log_probs = log_probs.masked_fill(~valid.unsqueeze(2), -torch.inf)
    log_probs[..., special.blank].masked_fill_(~valid, 0.0)  # after its end a row has only blanks
    without_blank = log_probs.clone()
    without_blank[..., special.blank] = -torch.inf
    likely, candidates = without_blank.topk(
        min(FUSED_CANDIDATES if fused else MAX_CANDIDATES, vocabulary - 1), dim=2
    )  # (B, S, K) each

    blank = log_probs.new_zeros(batch, 1)
    last = torch.full((batch, 1), special.blank, device=device)
    prefixes = _Prefixes(
        blank=blank,
        token=torch.full_like(blank, -torch.inf),
        last=last,
        hashes=torch.ones_like(last),
        parents=torch.zeros_like(last),
        sizes=torch.zeros_like(last),
        tokens=torch.full((batch, 1, states + 1), special.eos, device=device),
    )
    for state in range(states):
        longer = _advance(prefixes, log_probs[:, state], special, candidates[:, state], likely[:, state])
        impossible = _keep_best(prefixes, longer, candidates[:, state], special, beam, fused)
    sizes = prefixes.sizes.masked_fill(impossible, -1)
    return prefixes.tokens[:, :, : max(1, int(sizes.max()))], sizes


def _advance(
    prefixes: _Prefixes, log_probs: Tensor, special: SpecialTokens, candidates: Tensor, likely: Tensor
) -> Tensor:
    """Update the path probabilities of all prefixes for the next state.

    log_probs (B, V) of the state, candidates (B, K) with their log-probabilities likely (B, K). Returns the
    log-probabilities (B, W, K) of the prefixes with one more token that are not in the beam.
    """
    last = prefixes.last
    either = torch.logaddexp(prefixes.blank, prefixes.token)
    # A token that repeats the last one needs a blank between the two.
    repeats = candidates.unsqueeze(1) == last.unsqueeze(2)  # (B, W, K)
    longer = torch.where(repeats, prefixes.blank.unsqueeze(2), either.unsqueeze(2)) + likely.unsqueeze(1)

    # Which prefix of the beam continues another one of the beam by a token: (B, W longer, W shorter).
    continues = prefixes.parents.unsqueeze(2) == prefixes.hashes.unsqueeze(1)
    same_token = continues & (last.unsqueeze(2) == last.unsqueeze(1))
    from_shorter = torch.where(same_token, prefixes.blank.unsqueeze(1), either.unsqueeze(1))
    from_shorter = from_shorter.masked_fill(~continues, -torch.inf)
    emission = log_probs.gather(1, last).masked_fill(last == special.blank, -torch.inf)
    prefixes.token = torch.logaddexp(prefixes.token, from_shorter.logsumexp(2)) + emission
    prefixes.blank = either + log_probs[:, special.blank, None]
    in_beam = continues.unsqueeze(3) & (last.unsqueeze(2) == candidates.unsqueeze(1)).unsqueeze(2)
    return longer.masked_fill(in_beam.any(1), -torch.inf)


def _keep_best(
    prefixes: _Prefixes,
    longer: Tensor,
    candidates: Tensor,
    special: SpecialTokens,
    beam: int,
    fused: FusedScores | None,
) -> Tensor:
    """Keep the best of the prefixes and of the longer ones (B, W, K), which append candidates (B, K).

    Returns which prefixes of the new beam are impossible, (B, W).
    """
    width, count = longer.shape[1:]
    totals = torch.cat([torch.logaddexp(prefixes.blank, prefixes.token), longer.flatten(1)], 1)
    ranks = totals + fused.extend(candidates) if fused else totals
    chosen = ranks.topk(min(beam, totals.size(1))).indices  # (B, W), with a new W
    totals = totals.gather(1, chosen)
    grown = chosen >= width
    index = (chosen - width).clamp_min(0)  # in `longer`
    origin = torch.where(grown, index // count, chosen)
    added = torch.where(grown, candidates.gather(1, index % count), special.blank)

    if fused:
        fused.follow(chosen, origin, grown, added)
    blank, token, last, hashes, parents, sizes = (
        each.gather(1, origin)
        for each in (
            prefixes.blank, prefixes.token, prefixes.last, prefixes.hashes, prefixes.parents, prefixes.sizes,
        )
    )  # fmt: skip
    tokens = prefixes.tokens.gather(1, origin.unsqueeze(2).expand(-1, -1, prefixes.tokens.size(2)))
    # A prefix that does not grow writes EOS after its end. There is an EOS already, so this changes nothing.
    tokens.scatter_(2, sizes.unsqueeze(2), torch.where(grown, added, special.eos).unsqueeze(2))
    impossible = totals == -torch.inf
    prefixes.blank = blank.masked_fill(grown, -torch.inf)
    prefixes.token = torch.where(grown, totals, token)
    prefixes.last = torch.where(grown, added, last)
    # An impossible prefix must not be found as the continuation of another one.
    prefixes.parents = torch.where(grown, hashes, parents).masked_fill(impossible, 0)
    prefixes.hashes = torch.where(grown, hashes * _HASH_FACTOR + added, hashes)
    prefixes.sizes = sizes + grown.long()
    prefixes.tokens = tokens
    return impossible


def merge_blanks(log_probs: Tensor, lengths: Tensor, special: SpecialTokens) -> tuple[Tensor, Tensor]:
    """Keep one of each run of states whose blank has a probability above 0.999.

    log_probs (B, S, V), lengths (B,) -> the same, shorter. One blank separates equal tokens as well as many
    blanks do.
    """
    sure = log_probs[..., special.blank] > math.log(SURE_BLANK)
    kept = length_mask(lengths, sure.size(1)) & ~(sure & pad(sure[:, :-1], (1, 0)))
    lengths = kept.sum(1)
    order = (~kept).to(torch.uint8).sort(dim=1, stable=True).indices[:, : max(1, int(lengths.max()))]
    return log_probs.gather(1, order.unsqueeze(2).expand(-1, -1, log_probs.size(2))), lengths


def sequence_log_probs(
    log_probs: Tensor, lengths: Tensor, special: SpecialTokens, tokens: Tensor, sizes: Tensor
) -> Tensor:
    """Log-probabilities (B, N) of token sequences (B, N, U) of sizes (B, N), the sum over all alignments.

    log_probs (B, S, V) are CTC's, lengths (B,). A sequence of size -1 gets minus infinity.
    """
    by_state = (log_probs.double() if log_probs.device.type != "mps" else log_probs).transpose(0, 1)
    found = [
        -ctc_loss(by_state, sequence, lengths, size, blank=special.blank, reduction="none")
        for sequence, size in zip(tokens.unbind(1), sizes.clamp_min(0).unbind(1), strict=True)
    ]
    return torch.stack(found, 1).masked_fill(sizes < 0, -torch.inf)


def n_best(
    tokens: Tensor, sizes: Tensor, log_probs: Tensor, scores: Tensor, count: int
) -> list[list[Hypothesis]]:
    """The `count` best of tokens (B, N, U) with their sizes, log-probabilities and scores, each (B, N)."""
    best, order = scores.topk(min(count, scores.size(1)))
    tokens = tokens.gather(1, order.unsqueeze(2).expand(-1, -1, tokens.size(2)))
    rows = zip(
        tokens.tolist(),
        sizes.gather(1, order).tolist(),
        log_probs.gather(1, order).tolist(),
        best.tolist(),
        strict=True,
    )
    return [
        [
            Hypothesis(tuple(sequence[:size]), log_prob, score=score)
            for sequence, size, log_prob, score in zip(*row, strict=True)
            if size >= 0
        ]
        for row in rows
    ]
