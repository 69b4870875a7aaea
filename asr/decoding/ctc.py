"""Decoding with the CTC head alone: the best path, and prefix beam search."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss, pad

from asr.decoding.options import DecodingOptions, Hypothesis
from asr.model.interfaces import Memory, Network
from asr.tokenizers import BOS, EOS, PAD

CHARACTERS = 64  # the likeliest of each state that may be appended; in a small vocabulary these are all
_FACTOR = 6364136223846793005  # of the hash of texts (Knuth, MMIX)


@torch.inference_mode()
def ctc_decode(network: Network, memory: Memory, options: DecodingOptions) -> list[list[Hypothesis]]:
    """The `n_best` texts of every row of the memory by CTC: the best path, or, with a beam, the best texts.

    `log_prob` is the logarithm of the probability of the text: of all its alignments.
    """
    if memory.states.size(0) == 0:
        return []
    log_probs = speakable(network.ctc(memory))
    if options.beam_size == 1:
        texts, begun = collapse(log_probs.argmax(2), memory.lengths)
        texts, sizes = texts.unsqueeze(1), begun[:, -1:]  # (B, 1, U), (B, 1)
    else:
        texts, sizes = prefix_beam_search(log_probs, memory.lengths, options.beam_size)
    scores = text_scores(log_probs, memory.lengths, texts, sizes)  # (B, N)
    return ranked(texts, sizes, scores, scores, options.n_best or 1)


def speakable(log_probs: Tensor | None) -> Tensor:
    """CTC's log-probabilities (B, S, V) without those of BOS and EOS, which no head was taught."""
    assert log_probs is not None, "a model without a CTC head is refused before"
    log_probs = log_probs.clone()
    log_probs[..., [BOS, EOS]] = -torch.inf
    return log_probs


def collapse(paths: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What CTC paths (B, S) say: repeated tokens once, blanks not at all.

    Returns texts (B, U), filled up with EOS, and how many of its tokens each row has begun after so many
    states: (B, S + 1).
    """
    valid = torch.arange(paths.size(1), device=paths.device) < lengths.unsqueeze(1)
    begins = (paths != PAD) & (paths != pad(paths[:, :-1], (1, 0), value=PAD)) & valid
    begun = pad(begins.cumsum(1), (1, 0))  # (B, S + 1)
    texts = torch.full_like(paths[:, :1], EOS).expand(-1, int(begun.max()) + 1).clone()
    # What begins nothing goes to a last place, which is then dropped.
    texts.scatter_(1, torch.where(begins, begun[:, :-1], texts.size(1) - 1), paths)
    return texts[:, :-1], begun


def prefix_beam_search(log_probs: Tensor, lengths: Tensor, beam: int) -> tuple[Tensor, Tensor]:
    """The `beam` texts that CTC thinks likeliest, best first (Hannun et al. 2014, algorithm 1).

    log_probs (B, S, V), lengths (B,) -> texts (B, W, U), filled up with EOS, and their lengths (B, W); -1 is
    the length of what is no text, where there are fewer than `beam`. All utterances and texts move on
    together, state by state. Hypotheses are known by their hashes, so that one that is reached in two ways, as
    itself and as the continuation of a shorter one, is found.
    """
    device, (batch, states, vocabulary) = log_probs.device, log_probs.shape
    valid = torch.arange(states, device=device) < lengths.unsqueeze(1)
    log_probs = log_probs.double() if device.type != "mps" else log_probs
    log_probs = log_probs.masked_fill(~valid.unsqueeze(2), -torch.inf)
    log_probs[..., PAD].masked_fill_(~valid, 0.0)  # beyond its end a row has blanks, for sure
    spoken = log_probs.clone()
    spoken[..., PAD] = -torch.inf
    likely, letters = spoken.topk(min(CHARACTERS, vocabulary - 1), dim=2)  # (B, S, K) each

    blank = log_probs.new_zeros(batch, 1)  # (B, W) of the paths that say a text and end in a blank
    voiced = torch.full_like(blank, -torch.inf)  # ... and end in its last token
    last = torch.full((batch, 1), PAD, device=device)
    hashes, parents = torch.ones_like(last), torch.zeros_like(last)  # of the text, and without its last token
    sizes = torch.zeros_like(last)
    texts = torch.full((batch, 1, states + 1), EOS, device=device)
    for state in range(states):
        emit, tokens = likely[:, state], letters[:, state].unsqueeze(1)  # (B, K), (B, 1, K)
        either = torch.logaddexp(blank, voiced)
        # (B, W, K) of a text with one more token; one that repeats its last token needs a blank between.
        before = torch.where(tokens == last.unsqueeze(2), blank.unsqueeze(2), either.unsqueeze(2))
        longer = before + emit.unsqueeze(1)
        # Which text, by its last token, is the continuation of another in the beam: (B, W longer, W shorter).
        follows = parents.unsqueeze(2) == hashes.unsqueeze(1)
        repeats = (last.unsqueeze(2) == last.unsqueeze(1)) & follows
        reached = torch.where(repeats, blank.unsqueeze(1), either.unsqueeze(1)).masked_fill(
            ~follows, -torch.inf
        )
        own = log_probs[:, state].gather(1, last).masked_fill(last == PAD, -torch.inf)
        voiced = torch.logaddexp(voiced, reached.logsumexp(2)) + own
        blank = either + log_probs[:, state, PAD].unsqueeze(1)
        there = (follows.unsqueeze(3) & (last.unsqueeze(2) == tokens).unsqueeze(2)).any(1)  # (B, W, K)
        longer = longer.masked_fill(there, -torch.inf)

        width, count = longer.shape[1:]
        kept = torch.logaddexp(blank, voiced)
        totals = torch.cat([kept, longer.flatten(1)], 1)
        totals, chosen = totals.topk(min(beam, totals.size(1)))  # (B, W), with a new W
        grown = chosen >= width
        place = (chosen - width).clamp_min(0)
        origin = torch.where(grown, place // count, chosen)
        added = torch.where(grown, tokens.squeeze(1).gather(1, place % count), PAD)
        blank, voiced, last, hashes, parents, sizes = (
            each.gather(1, origin) for each in (blank, voiced, last, hashes, parents, sizes)
        )
        blank = blank.masked_fill(grown, -torch.inf)
        voiced = torch.where(grown, totals, voiced)
        last = torch.where(grown, added, last)
        parents = torch.where(grown, hashes, parents)
        hashes = torch.where(grown, hashes * _FACTOR + added, hashes)
        texts = texts.gather(1, origin.unsqueeze(2).expand(-1, -1, texts.size(2)))
        # A text that stays writes beyond its end, where EOS is.
        texts.scatter_(2, sizes.unsqueeze(2), torch.where(grown, added, EOS).unsqueeze(2))
        sizes = sizes + grown.long()
        # What is impossible is not another way to a text.
        dead = totals == -torch.inf
        parents, hashes = parents.masked_fill(dead, 0), hashes.masked_fill(dead, -1)
    sizes = sizes.masked_fill(dead, -1)
    return texts[:, :, : max(1, int(sizes.max()))], sizes


def text_scores(log_probs: Tensor, lengths: Tensor, texts: Tensor, sizes: Tensor) -> Tensor:
    """Log-probability of all alignments of texts (B, N, U) of sizes (B, N), by CTC's (B, S, V): (B, N).

    Of what is no text, of size -1, it is minus infinity.
    """
    spread = (log_probs.double() if log_probs.device.type != "mps" else log_probs).transpose(0, 1)
    found = [
        -ctc_loss(spread, text, lengths, size, blank=PAD, reduction="none")
        for text, size in zip(texts.unbind(1), sizes.clamp_min(0).unbind(1), strict=True)
    ]
    return torch.stack(found, 1).masked_fill(sizes < 0, -torch.inf)


def ranked(
    texts: Tensor, sizes: Tensor, log_probs: Tensor, scores: Tensor, count: int
) -> list[list[Hypothesis]]:
    """The best `count` of texts (B, N, U) with their sizes, log-probabilities and scores, each (B, N)."""
    best, order = scores.topk(min(count, scores.size(1)))
    texts = texts.gather(1, order.unsqueeze(2).expand(-1, -1, texts.size(2)))
    facts = zip(
        texts.tolist(),
        sizes.gather(1, order).tolist(),
        log_probs.gather(1, order).tolist(),
        best.tolist(),
        strict=True,
    )
    return [
        [
            Hypothesis(tuple(text[:size]), log_prob, score=score)
            for text, size, log_prob, score in zip(*each, strict=True)
            if size >= 0
        ]
        for each in facts
    ]
