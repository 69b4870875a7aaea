"""CTC prefix scores against the sum over all alignments."""

from __future__ import annotations

from itertools import groupby, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.tokenizers import EOS

TOKENS = (4, 5)
V = 6


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in groupby(path) if token != 0)


def probability(log_probs: torch.Tensor, prefix: tuple[int, ...], whole: bool) -> float:
    """Of all alignments that say the prefix and nothing more (`whole`), or anything that begins with it."""
    total = 0.0
    for path in product((0, *TOKENS), repeat=len(log_probs)):
        token_log_probs = collapsed(path)
        if token_log_probs == prefix if whole else token_log_probs[: len(prefix)] == prefix:
            total += float(sum(log_probs[t, token] for t, token in enumerate(path)).exp())
    return total


def random_log_probs(seed: int, states: int) -> torch.Tensor:
    """Over blank and TOKENS alone, so that the paths can be counted; (states, V)."""
    torch.manual_seed(seed)
    logits = torch.full((states, V), -torch.inf, dtype=torch.float64)
    logits[:, [0, *TOKENS]] = 2 * torch.randn(states, 3, dtype=torch.float64)
    return logits.log_softmax(-1)


@given(st.integers(0, 10**6), st.integers(1, 5), st.lists(st.sampled_from(TOKENS), max_size=4))
def test_scores_equal_brute_force_over_all_alignments(seed, states, prefix):
    log_probs = random_log_probs(seed, states)
    scorer = CTCPrefixScorer(log_probs.unsqueeze(0), torch.tensor([states]))
    total, token_log_probs = 0.0, ()
    for token in [*prefix, EOS]:
        candidates = torch.tensor([[*TOKENS, EOS]])
        scores = scorer.score(candidates)[0]
        for candidate, score in zip(candidates[0].tolist(), scores.tolist(), strict=True):
            whole = candidate == EOS
            expected = probability(
                log_probs, token_log_probs if whole else (*token_log_probs, candidate), whole
            )
            if expected > 1e-12 and total > -50:
                assert total + score == pytest.approx(torch.tensor(expected).log().item(), abs=1e-6)
            elif total > -50:
                assert total + score < -20
        if token != EOS:
            total += scores[TOKENS.index(token)].item()
            token_log_probs = (*token_log_probs, token)
            scorer.advance(torch.tensor([token]))


def test_rows_of_other_lengths_and_selected_rows_are_scored_as_alone():
    one, two = random_log_probs(1, 9), random_log_probs(2, 5)
    padded = torch.zeros(2, 9, V, dtype=torch.float64)
    padded[0], padded[1, :5] = one, two
    both = CTCPrefixScorer(padded, torch.tensor([9, 5]))
    alone = CTCPrefixScorer(two.unsqueeze(0), torch.tensor([5]))
    candidates = torch.tensor([[4, 5, EOS]])
    for token in (4, 4, 5):
        torch.testing.assert_close(both.score(candidates.expand(2, -1))[1:], alone.score(candidates))
        both.advance(torch.tensor([5, token]))
        alone.advance(torch.tensor([token]))
    torch.testing.assert_close(both.select(torch.tensor([1])).score(candidates), alone.score(candidates))


def test_long_utterances_stay_finite():
    torch.manual_seed(0)
    log_probs = (5 * torch.randn(1, 1500, 30)).log_softmax(-1)
    scorer = CTCPrefixScorer(log_probs, torch.tensor([1500]))
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
def test_all_prefixes_along_a_text_are_scored_as_one_by_one(seed, vocabulary, sharpness, begun, size):
    torch.manual_seed(seed)
    log_probs = (sharpness * torch.randn(3, 30, vocabulary)).log_softmax(-1)
    scorer = CTCPrefixScorer(log_probs, torch.tensor([30, 21, 12])).select(torch.tensor([2, 0]))
    texts = torch.randint(4, 7 if vocabulary > 6 else 6, (2, begun + size))  # with repetitions
    for token in texts[:, :begun].unbind(1):
        scorer.advance(token)
    along = scorer.along(texts[:, begun:])
    candidates = torch.cat(
        [torch.randint(4, vocabulary, (2, size + 1, 3)), torch.full((2, size + 1, 1), EOS)], 2
    )
    together = along.score(candidates.flatten(0, 1)).view_as(candidates)
    for place in range(size + 1):
        known = ~along.underflow[:, place]
        expected = scorer.score(candidates[:, place])
        torch.testing.assert_close(together[:, place][known], expected[known], rtol=1e-6, atol=1e-6)
        there = along.at(torch.tensor([place, place]))
        torch.testing.assert_close(
            there.score(candidates[:, place])[known], expected[known], rtol=1e-6, atol=1e-6
        )
        if place < size:
            scorer.advance(texts[:, begun + place])


def test_a_text_that_is_out_of_the_question_is_called_faint():
    log_probs = torch.full((1, 200, 6), -60.0)
    log_probs[0, :, 0] = 0.0  # nothing is decoded, for sure
    along = CTCPrefixScorer(log_probs, torch.tensor([200])).along(torch.tensor([[4, 5] * 6]))
    assert along.underflow[0].tolist() == [False] * 7 + [True] * 6


def test_along_a_text_of_minutes_of_noise_scores_are_those_one_by_one():
    torch.manual_seed(0)
    log_probs = torch.randn(1, 3000, 30).log_softmax(-1)  # any path has a probability of e-5000 and less
    text = CTCPrefixScorer(log_probs, torch.tensor([3000]))
    best = log_probs[0].argmax(1)
    token_log_probs = torch.unique_consecutive(best)
    token_log_probs = token_log_probs[token_log_probs > EOS][:40].unsqueeze(0)
    along = text.along(token_log_probs)
    candidates = torch.arange(3, 30).expand(41, -1)
    together = along.score(candidates)
    for place in range(40):
        torch.testing.assert_close(together[place], text.score(candidates[:1])[0], rtol=1e-6, atol=1e-6)
        text.advance(token_log_probs[:, place])
