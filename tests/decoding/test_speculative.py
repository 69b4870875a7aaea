"""Greedy decoding with a draft: the result of step by step for any network, one pass for each correction."""

import importlib
import math
import random

import pytest
import torch
from decoding_networks import (
    ENDLESS,
    EOS,
    HALF,
    LENGTHS,
    LONG_PROMPT,
    PAD,
    SPECIAL,
    VOCABULARY,
    ScriptedWithCTC,
    batch,
    ctc_output,
    network,
    paths,
    random_processor,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions, FinishReason, greedy
from asr.decoding.ctc_draft_scores import CTCDraftScorer
from asr.decoding.draft import Draft

module = importlib.import_module("asr.decoding.greedy")


@pytest.fixture(autouse=True)
def never_give_up(monkeypatch):
    """Drafts here are often bad. They are checked to the end nevertheless."""
    monkeypatch.setattr("asr.decoding.speculative.MIN_GAIN", 0.0)


@pytest.fixture
def cheap_positions(monkeypatch):
    """Checking a whole draft costs no more than checking one token."""
    monkeypatch.setattr("asr.decoding.speculative.PASS_COST_CPU", 10**6)


def outcome(network, memory, special=SPECIAL, processors=(), **options):
    """The hypotheses, after comparing those with a draft and step by step."""
    found, expected = (
        [
            h
            for (h,) in greedy(
                network, memory, special, DecodingOptions(**options, draft=draft), (), processors
            )
        ]
        for draft in (None, False)
    )
    assert [(h.tokens, h.finish_reason) for h in found] == [(h.tokens, h.finish_reason) for h in expected]
    assert [h.log_prob for h in found] == pytest.approx([h.log_prob for h in expected], abs=1e-3)
    return found


def random_outcome(seed):
    """A random network, perhaps with a confident CTC head, decodes random utterances by random options."""
    draw = random.Random(seed)
    special = draw.choice([SPECIAL, LONG_PROMPT])
    model = network(seed, norm=draw.choice(["pre", "post"]), decoder_layers=draw.choice([1, 2]))
    with torch.no_grad():
        model.ctc_head.weight *= draw.choice([1, 3, 6])
        model.ctc_head.bias[special.blank] += draw.choice([0, 1, 2])
    memory = model.encode(*batch(draw.sample(LENGTHS, draw.randint(1, 8))))
    weight = draw.choice([0.0, 0.1, 0.3, 0.3, 0.6, 1.0])
    candidates = draw.choice([2, 4, 8]) if weight else None
    processors = [random_processor(seed)] if draw.random() < 0.4 else []
    max_tokens = draw.choice([None, None, 5])
    return outcome(
        model, memory, special, processors, ctc_weight=weight, candidates=candidates, max_tokens=max_tokens
    )


@settings(max_examples=40)
@given(st.integers(0, 10**9))
def test_it_equals_step_by_step(seed):
    random_outcome(seed)


@pytest.mark.slow
def test_it_equals_step_by_step_for_thousands_of_networks(monkeypatch):
    tried, given_up, tokens = 0, 0, 0
    original = module.decode_speculatively

    def counted(*arguments):
        nonlocal tried, given_up
        hypotheses = original(*arguments)
        tried, given_up = tried + 1, given_up + (hypotheses is None)
        return hypotheses

    monkeypatch.setattr(module, "decode_speculatively", counted)
    for seed in range(3000):
        tokens += sum(len(h.tokens) + 1 for h in random_outcome(seed))
    assert tried == 3000 and given_up < 150 and tokens > 50_000


@pytest.mark.parametrize("special", [SPECIAL, LONG_PROMPT], ids=["BOS", "three tokens"])
def test_a_processor_that_depends_on_the_history_gets_each_position_s_own_prefix(special, monkeypatch):
    """The draft is really used: it is not given up in most cases, and passes are fewer than tokens."""
    monkeypatch.setattr("asr.decoding.speculative.PASS_COST_CPU", 10**6)
    results, original = [], module.decode_speculatively

    def counted(*arguments):
        results.append(original(*arguments))
        return results[-1]

    monkeypatch.setattr(module, "decode_speculatively", counted)
    for seed in range(8):
        model = network(seed)
        memory = model.encode(*batch(LENGTHS[:6]))
        outcome(model, memory, special, [random_processor(seed), random_processor(seed + 50)], ctc_weight=0.1)
    assert sum(result is not None for result in results) >= 6


# --------------------------------------------------------------- CTC's output, and what the decoder chooses

# CTC's output in each state, _ for a blank; where it is wrong, the decoder's token comes second.
CHANGES = {
    "nothing": "5 _ 6 _ 7 _ 8 _ 6 _ 5 _",
    "another": "5 _ 6 _ 7/8 _ 5 _ 6 _ 5 _",
    "one more": "5 _ 6 _/5 7 _ 8 _ 6 _ 5 _",
    "one less": "5 _ 6 _ 7/_ _ 8 _ 6 _ 5 _",
    "two": "5 _ 6/8 _ 7 _ 8 _/5 6 _ 5 _",
    "the last": "5 _ 6 _ 7 _ 8/_ _",
    "one more at last": "5 _ 6 _ 7 _/8 _",
}
PASSES = dict(zip(CHANGES, (1, 2, 2, 2, 3, 1, 2), strict=True))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_one_pass_for_each_correction(change, weight, cheap_positions):
    ctc, lengths, (tokens,) = ctc_output(CHANGES[change])
    model = ScriptedWithCTC(tokens, ctc=ctc)
    ((found,),) = greedy(model, model.memory(*lengths), SPECIAL, DecodingOptions(ctc_weight=weight))
    assert (found.tokens, found.finish_reason) == (tokens, FinishReason.end)
    assert found.log_prob == pytest.approx((len(tokens) + 1) * HALF)
    assert len(model.held) == PASSES[change]


def test_each_row_advances_by_its_own_count_and_leaves_when_it_is_finished(cheap_positions):
    ctc, lengths, expected = ctc_output(*CHANGES.values())
    model = ScriptedWithCTC(*expected, ctc=ctc)
    found = greedy(model, model.memory(*lengths), SPECIAL, DecodingOptions(ctc_weight=0.05))
    assert [h.tokens for (h,) in found] == expected
    assert model.held == [7, 5, 1]


def test_after_a_pass_without_mismatch_the_draft_is_not_aligned_again(cheap_positions, monkeypatch):
    """The position in the draft then follows from the number of tokens."""
    monkeypatch.setattr("asr.decoding.speculative.MAX_LENGTH", 3)  # 4 positions in a pass, with EOS
    monkeypatch.setattr(Draft, "align", lambda draft, rows, paths, tokens: torch.zeros_like(rows))
    ctc, lengths, (tokens,) = ctc_output("5 _ 6 _ 7 _ 8 _ 6 _ 5 _ 7 _")
    model = ScriptedWithCTC(tokens, ctc=ctc)
    ((found,),) = greedy(model, model.memory(*lengths), SPECIAL, DecodingOptions(ctc_weight=0.0))
    assert found.tokens == tokens and len(model.held) == 2


def test_the_maximum_length_inside_a_pass_ends_the_hypothesis(cheap_positions):
    """The pass also decides the tokens after the maximum length and EOS, which must not count."""
    ctc, lengths, (tokens,) = ctc_output("5 _ 6 _ 7 _ 8 _")
    model = ScriptedWithCTC(tokens, ctc=ctc)
    (found,) = outcome(model, model.memory(*lengths), ctc_weight=0.0, max_tokens=2)
    assert (found.tokens, found.finish_reason) == ((5, 6), FinishReason.length)
    assert found.log_prob == pytest.approx(2 * HALF)
    assert model.held == [1] * (1 + 3)  # one pass with the draft, three steps without


class WithTenPositions(ScriptedWithCTC):
    """Writing tokens after the last position is an IndexError."""

    max_positions = 10

    def start(self, memory, capacity):
        return super().start(memory, self.max_positions + len(SPECIAL.prompt))


@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_a_draft_that_is_longer_than_the_positions_of_the_decoder(weight, cheap_positions):
    """No row is read beyond the last position. The first one finishes before the others, and stays."""
    right = [state for token in ENDLESS[:12] for state in (PAD, token)]
    wrong = [*right[:3], 7, *right[4:]]
    model = WithTenPositions(*[ENDLESS[:12]] * 5, ctc=(9 * paths(right, *[wrong] * 4)).log_softmax(-1))
    for hypothesis in outcome(model, model.memory(*[24] * 5), ctc_weight=weight):
        assert (hypothesis.tokens, hypothesis.finish_reason) == (ENDLESS[:10], FinishReason.length)


class Certain(ScriptedWithCTC):
    """Predicts its script for any input."""

    def forward_cached(self, tokens, state, starts):
        self.held.append(len(state.rows))
        log_probs = torch.full((*tokens.shape, VOCABULARY), math.log(0.5 / (VOCABULARY - 1)))
        for row, (index, start) in enumerate(zip(state.rows.tolist(), starts.tolist(), strict=True)):
            for position in range(tokens.size(1)):
                log_probs[row, position, (*self.scripts[index], *[EOS] * 99)[start + position]] = HALF
        return log_probs


def test_a_decoder_that_is_right_after_a_mismatch_saves_passes(cheap_positions, monkeypatch):
    monkeypatch.setattr("asr.decoding.draft.CONFIDENT", 1.0)
    ctc, lengths, (tokens,) = ctc_output("5 _ 6/8 _ 7 _ 8/5 _ 6 _ 5/7 _ 8 _")
    for probability, passes in ((0.6, 4), (0.4, 2)):
        monkeypatch.setattr("asr.decoding.draft.MIN_REVISION_PROB", probability)
        model = Certain(tokens, ctc=ctc)
        ((found,),) = greedy(model, model.memory(*lengths), SPECIAL, DecodingOptions(ctc_weight=0.0))
        assert (found.tokens, len(model.held)) == (tokens, passes)


def test_a_choice_that_rounding_could_change_is_left_to_step_by_step(monkeypatch):
    """Two tokens are equally probable, except for a rounding that differs from pass to pass."""
    ctc, lengths, _ = ctc_output("5 _ 6 _ 7")
    model = ScriptedWithCTC((5, 6, 7), ctc=ctc)
    original, passes = model.forward_cached, []

    def forward_cached(tokens, state, starts):
        log_probs = original(tokens, state, starts)
        log_probs[..., 8] = log_probs[..., 6] + (1e-6 if tokens.size(1) == 1 else -1e-6)
        passes.append(tokens.size(1))
        return log_probs

    model.forward_cached = forward_cached
    memory, options = model.memory(*lengths), DecodingOptions(ctc_weight=0.0)
    assert greedy(model, memory, SPECIAL, options)[0][0].tokens[:2] == (5, 8)
    assert passes[0] > 1 and set(passes[1:]) == {1}
    monkeypatch.setattr("asr.decoding.hypotheses.TIE_TOLERANCE", 0.0)
    assert greedy(model, memory, SPECIAL, options)[0][0].tokens == (5, 6, 7)


def test_a_candidate_that_rounding_could_exchange_is_left_to_step_by_step(cheap_positions):
    """The last candidate that CTC scores and the first that it does not score are equally probable."""
    ctc, lengths, _ = ctc_output("5 _ 7")
    model = ScriptedWithCTC((5, 7), ctc=ctc)
    original, passes = model.forward_cached, []

    def forward_cached(tokens, state, starts):
        log_probs = original(tokens, state, starts)
        log_probs[..., 6] = log_probs[..., 5] - (1e-6 if tokens.size(1) == 1 else -1e-6)
        passes.append(tokens.size(1))
        return log_probs

    model.forward_cached = forward_cached
    greedy(model, model.memory(*lengths), SPECIAL, DecodingOptions(ctc_weight=0.05, candidates=1))
    assert passes[0] > 1 and passes[1] == 1


def test_a_draft_whose_scores_underflow_is_left_to_step_by_step(monkeypatch):
    ctc, lengths, (tokens,) = ctc_output("5 _ 6 _ 7")
    original = CTCDraftScorer.__init__

    def underflow(self, scorer, draft):
        original(self, scorer, draft)
        self.underflow[:] = True

    monkeypatch.setattr(CTCDraftScorer, "__init__", underflow)
    for weight, passes in ((0.05, 1 + 4), (0.0, 1)):  # attention alone does not use CTC's scores
        model = ScriptedWithCTC(tokens, ctc=ctc)
        ((found,),) = greedy(model, model.memory(*lengths), SPECIAL, DecodingOptions(ctc_weight=weight))
        assert (found.tokens, len(model.held)) == (tokens, passes)


def test_a_draft_that_is_mostly_wrong_is_given_up(monkeypatch):
    monkeypatch.setattr("asr.decoding.speculative.MIN_GAIN", 1.4)
    ctc, lengths, _ = ctc_output(*[" _ ".join("5678" * 5)] * 60)
    options = DecodingOptions(ctc_weight=0.0, max_tokens=20)
    model = ScriptedWithCTC(*[ENDLESS[:20]] * 60, ctc=ctc)
    found = greedy(model, model.memory(*lengths), SPECIAL, options)
    assert [h.tokens for (h,) in found] == [ENDLESS[:20]] * 60
    assert len(model.held) == 1 + 21
    model = ScriptedWithCTC(*[ENDLESS[:20]] * 60, ctc=(0.3 * ctc).log_softmax(-1))
    greedy(model, model.memory(*lengths), SPECIAL, options)
    assert len(model.held) == 21  # CTC is not confident: the draft is not even tried


def test_the_repetition_guard_stops_where_it_stops_step_by_step():
    repetition = (5, 6, 7) * 40
    ctc, lengths, _ = ctc_output(*(" _ ".join(map(str, tokens)) for tokens in (repetition, ENDLESS[:50])))
    model = ScriptedWithCTC(repetition, ENDLESS, ctc=ctc)
    model.decode = lambda tokens, memory: torch.zeros(*tokens.shape, VOCABULARY)
    found = outcome(model, model.memory(*lengths), ctc_weight=0.0)
    assert [h.finish_reason for h in found] == [FinishReason.repetition, FinishReason.length]
    assert len(found[0].tokens) < 32


@pytest.mark.parametrize("special", [SPECIAL, LONG_PROMPT], ids=["BOS", "three tokens"])
def test_alone_in_a_batch_and_with_more_padding_it_is_the_same(special):
    model = network(3)
    with torch.no_grad():
        model.ctc_head.weight *= 4
    options = DecodingOptions()
    alone = [greedy(model, model.encode(*batch([n])), special, options)[0][0].tokens for n in LENGTHS]
    for padding in (0, 77):
        together = greedy(model, model.encode(*batch(LENGTHS, padding)), special, options)
        assert [h.tokens for (h,) in together] == alone


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("special", [SPECIAL, LONG_PROMPT], ids=["BOS", "three tokens"])
def test_on_a_gpu_it_is_the_same(special):
    model = network(3).double()
    features, lengths = batch()
    memory = model.encode(features.double(), lengths)
    expected = {
        options: [h.tokens for (h,) in greedy(model, memory, special, options)]
        for options in (DecodingOptions(), DecodingOptions(draft=False), DecodingOptions(ctc_weight=0.0))
    }
    model.cuda()
    memory = model.encode(features.double().cuda(), lengths.cuda())
    for options, tokens in expected.items():
        assert [h.tokens for (h,) in greedy(model, memory, special, options)] == tokens
