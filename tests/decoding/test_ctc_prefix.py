"""CTC prefix scores against the sum over all alignments."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, product

import pytest
import torch
from decoding_networks import EOS, SPECIAL
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.ctc_draft_scores import CTCDraftScorer
from asr.decoding.ctc_prefix import CTCPrefixScorer

TOKENS = (4, 5)
V = 6


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in groupby(path) if token != 0)


def probability(log_probs: torch.Tensor, prefix: tuple[int, ...], whole: bool) -> float:
    """Of all alignments that produce exactly the prefix (`whole`), or any sequence that begins with it."""
    total = 0.0
    for path in product((0, *TOKENS), repeat=len(log_probs)):
        tokens = collapsed(path)
        if tokens == prefix if whole else tokens[: len(prefix)] == prefix:
            total += float(sum(log_probs[t, token] for t, token in enumerate(path)).exp())
    return total


def random_log_probs(seed: int, states: int) -> torch.Tensor:
    """(states, V), over the blank and TOKENS alone, so that there are few paths."""
    torch.manual_seed(seed)
    logits = torch.full((states, V), -torch.inf, dtype=torch.float64)
    logits[:, [0, *TOKENS]] = 2 * torch.randn(states, 3, dtype=torch.float64)
    return logits.log_softmax(-1)


@given(st.integers(0, 10**6), st.integers(1, 5), st.lists(st.sampled_from(TOKENS), max_size=4))
def test_scores_equal_brute_force_over_all_alignments(seed, states, prefix):
    log_probs = random_log_probs(seed, states)
    scorer = CTCPrefixScorer(log_probs.unsqueeze(0), torch.tensor([states]), SPECIAL)
    total, tokens = 0.0, ()
    for token in [*prefix, EOS]:
        candidates = torch.tensor([[*TOKENS, EOS]])
        scores = scorer.score(candidates)[0]
        for candidate, score in zip(candidates[0].tolist(), scores.tolist(), strict=True):
            whole = candidate == EOS
            expected = probability(log_probs, tokens if whole else (*tokens, candidate), whole)
            if expected > 1e-12 and total > -50:
                assert total + score == pytest.approx(torch.tensor(expected).log().item(), abs=1e-6)
            elif total > -50:
                assert total + score < -20
        if token != EOS:
            total += scores[TOKENS.index(token)].item()
            tokens = (*tokens, token)
            scorer.advance(torch.tensor([token]))


def test_rows_of_different_lengths_and_selected_rows_are_scored_as_alone():
    one, two = random_log_probs(1, 9), random_log_probs(2, 5)
    padded = torch.zeros(2, 9, V, dtype=torch.float64)
    padded[0], padded[1, :5] = one, two
    both = CTCPrefixScorer(padded, torch.tensor([9, 5]), SPECIAL)
    alone = CTCPrefixScorer(two.unsqueeze(0), torch.tensor([5]), SPECIAL)
    candidates = torch.tensor([[4, 5, EOS]])
    for token in (4, 4, 5):
        torch.testing.assert_close(both.score(candidates.expand(2, -1))[1:], alone.score(candidates))
        both.advance(torch.tensor([5, token]))
        alone.advance(torch.tensor([token]))
    torch.testing.assert_close(both.select(torch.tensor([1])).score(candidates), alone.score(candidates))


def test_long_utterances_stay_finite():
    torch.manual_seed(0)
    log_probs = (5 * torch.randn(1, 1500, 30)).log_softmax(-1)
    scorer = CTCPrefixScorer(log_probs, torch.tensor([1500]), SPECIAL)
    for _ in range(60):
        scores = scorer.score(torch.arange(4, 30).unsqueeze(0))
        assert torch.isfinite(scores).all() and (scores < 1e-6).all()
        scorer.advance(4 + scores.argmax(1))


@settings(deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([6, 40]),
    st.sampled_from([0.5, 3.0, 10.0]),
    st.integers(0, 4),
    st.integers(1, 12),
)
def test_all_prefixes_of_a_draft_are_scored_as_one_by_one(seed, vocabulary, sharpness, begun, size):
    torch.manual_seed(seed)
    log_probs = (sharpness * torch.randn(3, 30, vocabulary)).log_softmax(-1)
    scorer = CTCPrefixScorer(log_probs, torch.tensor([30, 21, 12]), SPECIAL).select(torch.tensor([2, 0]))
    tokens = torch.randint(4, 7 if vocabulary > 6 else 6, (2, begun + size))  # with repetitions
    for token in tokens[:, :begun].unbind(1):
        scorer.advance(token)
    draft = CTCDraftScorer(scorer, tokens[:, begun:])
    candidates = torch.cat(
        [torch.randint(4, vocabulary, (2, size + 1, 3)), torch.full((2, size + 1, 1), EOS)], 2
    )
    together = draft.score(candidates.flatten(0, 1)).view_as(candidates)
    close = dict(rtol=1e-6, atol=1e-6)
    for position in range(size + 1):
        reliable = ~draft.underflow[:, position]
        expected = scorer.score(candidates[:, position])[reliable]
        torch.testing.assert_close(together[:, position][reliable], expected, **close)
        advanced = draft.advanced(torch.tensor([position, position]))
        torch.testing.assert_close(advanced.score(candidates[:, position])[reliable], expected, **close)
        if position < size:
            scorer.advance(tokens[:, begun + position])


def test_the_blank_and_eos_can_have_any_id():
    """The ids of blank and EOS are exchanged with those of two tokens; all scores stay the same."""
    other = replace(SPECIAL, blank=5, eos=4)
    new_ids = torch.tensor([5, 1, 4, 3, 2, 0])  # of 0 (blank), 1, 2 (EOS), 3, 4, 5
    log_probs = (2 * torch.randn(2, 20, V, generator=torch.Generator().manual_seed(1))).log_softmax(-1)
    renumbered = torch.empty_like(log_probs)
    renumbered[..., new_ids] = log_probs
    lengths = torch.tensor([20, 11])
    one, two = CTCPrefixScorer(log_probs, lengths, SPECIAL), CTCPrefixScorer(renumbered, lengths, other)
    candidates = torch.tensor([[3, 4, 5, EOS]]).expand(2, -1)
    for token in (4, 4, 5, 3):
        torch.testing.assert_close(one.score(candidates), two.score(new_ids[candidates]))
        draft = torch.tensor([[5, 5, 3]]).expand(2, -1)
        together = [
            CTCDraftScorer(scorer, tokens).score(ids.repeat_interleave(4, 0))
            for scorer, tokens, ids in ((one, draft, candidates), (two, new_ids[draft], new_ids[candidates]))
        ]
        torch.testing.assert_close(*together)
        last = torch.tensor([token, token])
        one.advance(last)
        two.advance(new_ids[last])


def test_a_very_unlikely_prefix_is_reported_as_underflow():
    log_probs = torch.full((1, 200, 6), -60.0)
    log_probs[0, :, 0] = 0.0  # certainly no token
    scorer = CTCPrefixScorer(log_probs, torch.tensor([200]), SPECIAL)
    draft = CTCDraftScorer(scorer, torch.tensor([[4, 5] * 6]))
    assert draft.underflow[0].tolist() == [False] * 7 + [True] * 6


def test_draft_scores_for_minutes_of_noise_are_those_one_by_one():
    torch.manual_seed(0)
    log_probs = torch.randn(1, 3000, 30).log_softmax(-1)  # every path has a probability below e-5000
    scorer = CTCPrefixScorer(log_probs, torch.tensor([3000]), SPECIAL)
    tokens = torch.unique_consecutive(log_probs[0].argmax(1))
    tokens = tokens[tokens > EOS][:40].unsqueeze(0)
    candidates = torch.arange(3, 30).expand(41, -1)
    together = CTCDraftScorer(scorer, tokens).score(candidates)
    for position in range(40):
        expected = scorer.score(candidates[:1])[0]
        torch.testing.assert_close(together[position], expected, rtol=1e-6, atol=1e-6)
        scorer.advance(tokens[:, position])
