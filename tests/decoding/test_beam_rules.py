"""Beam search over networks that follow a rule: when it stops, what it cuts and what it returns."""

import math

import pytest
import torch
from beam_references import EOS, SPECIAL, A, B, Ruled

from asr.decoding import DecodingOptions, FinishReason, beam_search, greedy
from asr.model.interfaces import Memory


def test_a_prefix_with_a_lower_score_can_win():
    def rule(tokens, row):
        if not tokens:
            return {A: 0.55, B: 0.45}
        return {EOS: 0.9 if tokens[0] == B else 0.3, A: 0.1 if tokens[0] == B else 0.7}

    model = Ruled(rule)
    assert greedy(model, model.memory(9), SPECIAL, DecodingOptions())[0][0].tokens[0] == A
    best, second = beam_search(
        model, model.memory(9), SPECIAL, DecodingOptions(decoder="beam", beam=3, n_best=2)
    )[0]
    assert best.tokens == (B,) and best.score == best.log_prob == pytest.approx(math.log(0.45 * 0.9))
    assert second.score <= best.score


def test_search_stops_when_no_live_hypothesis_can_win():
    """After three tokens EOS has 0.9: longer hypotheses have a ninth of that at most, and are dropped."""

    def rule(tokens, row):
        return {A: 0.96, B: 0.02, EOS: 0.02} if len(tokens) < 3 else {A: 0.1, EOS: 0.9}

    model = Ruled(rule)
    (best,) = beam_search(model, model.memory(50), SPECIAL, DecodingOptions(decoder="beam", beam=5))[0]
    assert best.tokens == (A, A, A) and len(model.steps) == 4
    (_, *others) = beam_search(
        model, model.memory(50), SPECIAL, DecodingOptions(decoder="beam", beam=5, n_best=3)
    )[0]
    assert len(others) == 2 and 4 < len(model.steps) < 20


class PointForA:
    """A scorer and its factory: one point for each A."""

    weight = gain = 1.0

    def start(self, rows, capacity):
        return self

    def score(self, candidates):
        return (candidates == A).float()

    def advance(self, tokens):
        pass

    def select(self, rows):
        return self


def test_it_does_not_stop_while_a_gain_can_still_win():
    """Scores above 0, normalized by the square of the length: 0.31 / 4 for one A, 1.31 / 9 for two."""

    def rule(tokens, row):
        return ({A: 1.0}, {A: 0.5, EOS: 0.5}, {EOS: 1.0})[len(tokens)] if len(tokens) < 3 else {EOS: 1.0}

    model = Ruled(rule)
    options = DecodingOptions(decoder="beam", beam=3, length_normalization=2.0)
    (best,) = beam_search(model, model.memory(50), SPECIAL, options, [PointForA()])[0]
    assert best.tokens == (A, A) and best.score == pytest.approx((2 + math.log(0.5)) / 9)


class PointForALastToken(PointForA):
    """One point for EOS after a token, as for a word that ends with the text."""

    tokens = 0

    def score(self, candidates):
        return (candidates == EOS).float() * (self.tokens > 0)

    def advance(self, tokens):
        self.tokens += 1


def test_it_does_not_stop_before_a_gain_at_the_end():
    """The empty text has log 0.6, one A of the maximum length log 0.4 and a point for its EOS."""
    model = Ruled(lambda tokens, row: {EOS: 1.0} if tokens else {A: 0.4, EOS: 0.6})
    options = DecodingOptions(decoder="beam", beam=2, max_tokens=1)
    (best,) = beam_search(model, model.memory(50), SPECIAL, options, [PointForALastToken()])[0]
    assert best.tokens == (A,) and best.score == pytest.approx(math.log(0.4) + 1)


def test_utterances_that_are_finished_leave_the_batch():
    model = Ruled(lambda tokens, row: {A: 0.99, EOS: 0.01} if len(tokens) < 3 * row else {EOS: 0.99, A: 0.01})
    found = beam_search(model, model.memory(*[40] * 8), SPECIAL, DecodingOptions(decoder="beam", beam=2))
    assert [h.tokens for (h,) in found] == [(A,) * (3 * row) for row in range(8)]
    assert model.steps[0] == 8 and model.steps[1] == 16 and model.steps[-1] == 2
    assert sorted(model.steps[1:], reverse=True) == model.steps[1:]


def test_the_maximum_length_cuts_and_the_result_says_so():
    def rule(tokens, row):
        return {A: 0.6, B: 0.3, EOS: 0.1} if row else {A: 0.3, EOS: 0.7}

    model = Ruled(rule)
    options = DecodingOptions(decoder="beam", beam=4, n_best=2, max_tokens=3)
    ended, cut = beam_search(model, model.memory(9, 9), SPECIAL, options)
    assert (ended[0].tokens, ended[0].finish_reason) == ((), FinishReason.end)
    by_text = {h.tokens: h for h in cut}
    assert by_text[(A, A, A)].finish_reason is FinishReason.length
    assert by_text[(A, A, A)].log_prob == pytest.approx(3 * math.log(0.6))
    assert by_text[(A, A, A)].score == pytest.approx(
        4 * math.log(0.6)
    )  # with the token after the maximum length


def test_repetitions_come_last_and_are_cut_after_the_first_copy():
    def rule(tokens, row):
        if tokens[:1] == (B,):
            return {EOS: 1.0}
        return {(A, B, 4)[len(tokens) % 3]: 1.0} if tokens else {A: 0.9, B: 0.1}

    model = Ruled(rule)
    options = DecodingOptions(decoder="beam", beam=3, n_best=3)
    best, last = beam_search(model, model.memory(200, 200), SPECIAL, options)[1]
    assert (best.tokens, best.finish_reason) == ((B,), FinishReason.end)
    assert (last.tokens, last.finish_reason) == (
        (A, B, 4),
        FinishReason.repetition,
    ) and last.score > best.score
    (only,) = beam_search(model, model.memory(200, 200), SPECIAL, DecodingOptions(decoder="beam", beam=1))[0]
    assert (only.tokens, only.finish_reason) == ((A, B, 4), FinishReason.repetition)
    assert only.log_prob == pytest.approx(math.log(0.9))


def test_silence_gives_an_empty_hypothesis_and_an_empty_batch_none():
    model = Ruled(lambda tokens, row: {EOS: 0.99, A: 0.01})
    (best,) = beam_search(model, model.memory(30), SPECIAL, DecodingOptions(decoder="beam"))[0]
    assert (best.tokens, best.finish_reason) == ((), FinishReason.end) and best.confidence == pytest.approx(
        0.99
    )
    assert (
        beam_search(
            model, Memory(torch.zeros(0, 5, 16), torch.zeros(0, dtype=torch.long)), SPECIAL, options=None
        )
        == []
    )
