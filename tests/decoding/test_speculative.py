"""Greedy by draft and check: the same as step by step whatever the network, a pass for each correction."""

import importlib
import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_greedy import ENDLESS, HALF, LENGTHS, VOCABULARY, Scripted, batch, network

from asr.decoding import DecodingOptions, FinishReason, greedy
from asr.decoding.ctc import collapse
from asr.decoding.ctc_prefix import CTCPrefixScorer, PrefixesAlong
from asr.decoding.speculative import WIDEST, _Draft, _Trust
from asr.tokenizers import EOS, PAD

module = importlib.import_module("asr.decoding.greedy")


@pytest.fixture(autouse=True)
def never_give_up(monkeypatch):
    """Drafts here are often bad, and are checked to the end all the same."""
    monkeypatch.setattr("asr.decoding.speculative.CHECK", 0.0)


def outcome(network, memory, **options):
    """What is found, each way; with whether the draft was given up because choices were too near."""
    found = greedy(network, memory, DecodingOptions(**options))
    expected = greedy(network, memory, DecodingOptions(**options, draft=False))
    assert [(h.tokens, h.finish_reason) for h in found] == [(h.tokens, h.finish_reason) for h in expected]
    assert [h.log_prob for h in found] == pytest.approx([h.log_prob for h in expected], abs=1e-3)
    return found


def random_outcome(seed):
    """A random network, perhaps with a decided CTC head, decodes random utterances by random options."""
    draw = random.Random(seed)
    model = network(seed, norm=draw.choice(["pre", "post"]), decoder_layers=draw.choice([1, 2]))
    with torch.no_grad():
        model.ctc_head.weight *= draw.choice([1, 3, 6])
        model.ctc_head.bias[PAD] += draw.choice([0, 1, 2])
    memory = model.encode(*batch(draw.sample(LENGTHS, draw.randint(1, 8))))
    weight = draw.choice([0.0, 0.1, 0.3, 0.3, 0.6, 1.0])
    candidates = draw.choice([2, 4, 8]) if weight else None
    return outcome(
        model, memory, ctc_weight=weight, candidates=candidates, max_tokens=draw.choice([None, None, 5])
    )


@settings(max_examples=40)
@given(st.integers(0, 10**9))
def test_it_equals_step_by_step(seed):
    random_outcome(seed)


@pytest.mark.slow
def test_it_equals_step_by_step_for_thousands_of_networks(monkeypatch):
    tried, given_up, token_log_probs = 0, 0, 0
    original = module.decode_speculatively

    def counted(*arguments):
        nonlocal tried, given_up
        texts = original(*arguments)
        tried, given_up = tried + 1, given_up + (texts is None)
        return texts

    monkeypatch.setattr(module, "decode_speculatively", counted)
    for seed in range(3000):
        token_log_probs += sum(len(h.tokens) + 1 for h in random_outcome(seed))
    assert tried == 3000 and given_up < 100 and token_log_probs > 50_000


# --------------------------------------------------------------------------- what CTC hears, and what is decoded

# What CTC hears in each state, _ for a blank; where it errs, what is decoded comes second.
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


def heard(*changes):
    """CTC's log-probabilities with their lengths, and what is decoded."""
    states = [[state.split("/") for state in change.replace("_", "0").split()] for change in changes]
    logits = torch.zeros(len(states), max(map(len, states)), VOCABULARY)
    for row, line in enumerate(states):
        for place, (best, *second) in enumerate(line):
            logits[row, place, [int(s) for s in second]] = 5.0
            logits[row, place, int(best)] = 7.0
    token_log_probs = [[int(state[-1]) for state in line] for line in states]
    texts = [tuple(t for t, _ in itertools.groupby(line) if t != PAD) for line in token_log_probs]
    return logits.log_softmax(-1), [len(line) for line in states], texts


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_a_pass_for_each_correction(change, weight, monkeypatch):
    monkeypatch.setattr("asr.decoding.speculative.PASS_ON_CPU", 10**6)
    ctc, lengths, (text,) = heard(CHANGES[change])
    model = Scripted(text, ctc=ctc)
    (found,) = greedy(model, model.memory(*lengths), DecodingOptions(ctc_weight=weight))
    assert (found.tokens, found.finish_reason) == (text, FinishReason.end)
    assert found.log_prob == pytest.approx((len(text) + 1) * HALF)
    assert len(model.held) == PASSES[change]


def test_each_row_goes_at_its_own_pace_and_leaves_when_it_is_done(monkeypatch):
    monkeypatch.setattr("asr.decoding.speculative.PASS_ON_CPU", 10**6)
    ctc, lengths, texts = heard(*CHANGES.values())
    model = Scripted(*texts, ctc=ctc)
    found = greedy(model, model.memory(*lengths), DecodingOptions(ctc_weight=0.05))
    assert [h.tokens for h in found] == texts
    assert model.held == [7, 5, 1]


def test_where_the_rest_of_the_draft_begins():
    for change, token_log_probs, place in [
        ("5 _ 6 _ 7 _ 8 _", (5, 6), 2),
        ("5 _ 6/8 _ 7 _", (5, 8), 2),
        ("5 _ 6 _/5 7 _", (5, 6, 5), 2),
        ("5/_ _ 6 _ 7 _", (6,), 2),
        ("5 _ 6 _ 7 _", (5, 6, 7), 3),
        ("5 _ 6 _ 7 _/5 _", (5, 6, 7, 5), 3),
        ("5 5 6/8 6 6 _ 7 _", (5, 8), 1),  # then the 6 is decoded again
    ]:
        ctc, lengths, _ = heard(change)
        rows, lengths = torch.tensor([0]), torch.tensor(lengths)
        scorer = CTCPrefixScorer(ctc, lengths)
        for token in token_log_probs:
            scorer.advance(torch.tensor([token]))
        found = _Draft(ctc, lengths).place(rows, scorer.spoken(), torch.tensor(token_log_probs[-1:]))
        assert found.tolist() == [place], change


def test_choices_after_a_wrong_one_change_the_rest_of_the_draft():
    """The first choice that differs is at place 1. Of the others one is of another token, one leaves a token
    out, one puts one in where CTC is sure of its own, one is EOS and one is improbable: these two change
    nothing. The row of the utterance in between is not there any more."""
    paths = "5 _ 6 _ 7 _ 8 _ 6 _ 5 _"
    ctc, lengths, _ = heard(*[paths] * 6)
    draft = _Draft(ctc, torch.tensor(lengths))
    draft._sure[:] = torch.tensor([0.6, 0.6, 0.9, 0.9, 0.6, 0.6]).unsqueeze(1)
    rows = torch.tensor([0, 1, 2, 4, 5])
    heard_ = torch.zeros(5, dtype=torch.long)
    proposed = draft.ahead(rows, heard_, 7)
    chosen, token_log_probs = proposed.clone(), torch.full_like(proposed, 0.9, dtype=torch.float).log()
    chosen[:, 1] = 8
    for row, choice in enumerate((5, 6, 5, EOS, 5)):
        chosen[row, 3] = choice
    token_log_probs[4, 3] = math.log(0.3)
    draft.amend(rows, heard_, torch.ones(5, 1, dtype=torch.long), proposed, chosen, token_log_probs)
    plain = [5, 6, 7, 8, 6, 5]
    changed = [[5, 6, 7, 5, 6, 5], [5, 6, 7, 6, 5], [5, 6, 7, 5, 8, 6, 5], plain, plain, plain]
    texts = [t[:n] for t, n in zip(draft.tokens.tolist(), draft.lengths.tolist(), strict=True)]
    assert texts == changed
    assert all(set(t[n:]) <= {EOS} for t, n in zip(draft.tokens.tolist(), draft.lengths, strict=True))
    # What was changed begins where what it stands for began.
    scorer = CTCPrefixScorer(ctc, torch.tensor(lengths))
    for place, token in enumerate((5, 6, 7), 1):
        scorer.advance(torch.full((6,), token))
        assert draft.place(torch.arange(6), scorer.spoken(), torch.full((6,), token)).tolist() == [place] * 6
    scorer.advance(torch.full((6,), 8))
    places = draft.place(torch.arange(6), scorer.spoken(), torch.full((6,), 8)).tolist()
    assert places == [4, 3, 5, 4, 4, 4]


class Certain(Scripted):
    """Says its script whatever it is given."""

    def forward_cached(self, tokens, state, starts):
        self.held.append(len(state.rows))
        log_probs = torch.full((*tokens.shape, VOCABULARY), math.log(0.5 / (VOCABULARY - 1)))
        for row, (index, start) in enumerate(zip(state.rows.tolist(), starts.tolist(), strict=True)):
            for place in range(tokens.size(1)):
                log_probs[row, place, (*self.scripts[index], *[EOS] * 99)[start + place]] = HALF
        return log_probs


def test_with_a_decoder_that_knows_better_there_are_fewer_passes(monkeypatch):
    monkeypatch.setattr("asr.decoding.speculative.PASS_ON_CPU", 10**6)
    monkeypatch.setattr("asr.decoding.speculative.SURE", 1.0)
    ctc, lengths, (text,) = heard("5 _ 6/8 _ 7 _ 8/5 _ 6 _ 5/7 _ 8 _")
    for likely, passes in ((0.6, 4), (0.4, 2)):
        monkeypatch.setattr("asr.decoding.speculative.LIKELY", likely)
        model = Certain(text, ctc=ctc)
        (found,) = greedy(model, model.memory(*lengths), DecodingOptions(ctc_weight=0.0))
        assert (found.tokens, len(model.held)) == (text, passes)


def test_what_the_head_says_of_padding_is_no_draft():
    ctc, _, _ = heard("5 _ 6 6 6 6", "_ 7 7 7 7 7")  # of which 3 states and 1 are there
    lengths = torch.tensor([3, 1])
    draft, scorer = _Draft(ctc, lengths), CTCPrefixScorer(ctc, lengths)
    assert draft.tokens.tolist() == [[5, 6], [EOS, EOS]]
    for token, places in ((5, [1, 0]), (6, [2, 0]), (7, [2, 0])):
        token_log_probs = torch.tensor([token, token])
        scorer.advance(token_log_probs)
        assert draft.place(torch.arange(2), scorer.spoken(), token_log_probs).tolist() == places


def test_a_choice_that_rounding_could_change_is_left_to_step_by_step(monkeypatch):
    """Two tokens that are equally probable but for a rounding that differs from pass to pass."""
    ctc, lengths, _ = heard("5 _ 6 _ 7")
    model = Scripted((5, 6, 7), ctc=ctc)
    original, passes = model.forward_cached, []

    def forward_cached(tokens, state, starts):
        log_probs = original(tokens, state, starts)
        log_probs[..., 8] = log_probs[..., 6] + (1e-6 if tokens.size(1) == 1 else -1e-6)
        passes.append(tokens.size(1))
        return log_probs

    model.forward_cached = forward_cached
    memory = model.memory(*lengths)
    assert greedy(model, memory, DecodingOptions(ctc_weight=0.0))[0].tokens[:2] == (5, 8)
    assert passes[0] > 1 and set(passes[1:]) == {1}
    monkeypatch.setattr("asr.decoding.hypotheses.NEAR", 0.0)
    assert greedy(model, memory, DecodingOptions(ctc_weight=0.0))[0].tokens == (5, 6, 7)


def test_a_draft_whose_scores_are_not_to_be_trusted_is_left_to_step_by_step(monkeypatch):
    ctc, lengths, (text,) = heard("5 _ 6 _ 7")
    original = PrefixesAlong.__init__

    def underflow(self, scorer, tokens):
        original(self, scorer, tokens)
        self.underflow[:] = True

    monkeypatch.setattr(PrefixesAlong, "__init__", underflow)
    for weight, passes in ((0.05, 1 + 4), (0.0, 1)):  # without CTC's scores there is nothing to distrust
        model = Scripted(text, ctc=ctc)
        found = greedy(model, model.memory(*lengths), DecodingOptions(ctc_weight=weight))
        assert (found[0].tokens, len(model.held)) == (text, passes)


def test_a_draft_that_is_hardly_ever_right_is_given_up(monkeypatch):
    monkeypatch.setattr("asr.decoding.speculative.CHECK", 1.4)
    ctc, lengths, _ = heard(*[" _ ".join("5678" * 5)] * 60)
    model = Scripted(*[ENDLESS[:20]] * 60, ctc=ctc)
    found = greedy(model, model.memory(*lengths), DecodingOptions(ctc_weight=0.0))
    assert [h.tokens for h in found] == [ENDLESS[:20]] * 60
    assert len(model.held) == 1 + 21
    model = Scripted(*[ENDLESS[:20]] * 60, ctc=(0.3 * ctc).log_softmax(-1))
    greedy(model, model.memory(*lengths), DecodingOptions(ctc_weight=0.0))
    assert len(model.held) == 21  # CTC itself is not sure: it is not even tried


def test_the_guard_against_circles_stops_it_where_it_stops_step_by_step():
    round_and_round = (5, 6, 7) * 40
    ctc, lengths, _ = heard(*(" _ ".join(map(str, text)) for text in (round_and_round, ENDLESS[:50])))
    model = Scripted(round_and_round, ENDLESS, ctc=ctc)
    model.decode = lambda tokens, memory: torch.zeros(*tokens.shape, VOCABULARY)
    found = outcome(model, model.memory(*lengths), ctc_weight=0.0)
    assert [h.finish_reason for h in found] == [FinishReason.repetition, FinishReason.length]
    assert len(found[0].tokens) < 32


def test_alone_in_a_batch_and_with_more_padding_it_is_the_same():
    model = network(3)
    with torch.no_grad():
        model.ctc_head.weight *= 4
    options = DecodingOptions()
    alone = [greedy(model, model.encode(*batch([length])), options)[0].tokens for length in LENGTHS]
    for padding in (0, 77):
        together = greedy(model, model.encode(*batch(LENGTHS, padding)), options)
        assert [h.tokens for h in together] == alone


@given(st.integers(1, 40), st.integers(0, 300), st.integers(0, 300))
def test_the_number_of_positions_checked_costs_least(rows, right, wrong):
    trust = _Trust(96, 0.9)
    trust.learn(right + wrong, wrong)
    share = (right + 9) / (right + wrong + 10)
    costs = [(96 + rows * n) / sum(share**i for i in range(n)) for n in range(1, WIDEST + 1)]
    width, gain = trust.width(rows)
    assert costs[width - 1] == pytest.approx(min(costs))
    assert gain == pytest.approx((96 + rows) / min(costs))


@given(st.lists(st.lists(st.sampled_from([PAD, 5, 6]), min_size=1, max_size=12), min_size=1, max_size=4))
def test_what_ctc_paths_say(rows):
    size = max(map(len, rows))
    padded = torch.tensor([[*row, *[5] * (size - len(row))] for row in rows])
    texts, begun = collapse(padded, torch.tensor([len(row) for row in rows]))
    for row, text, counts in zip(rows, texts.tolist(), begun.tolist(), strict=True):
        expected = [t for i, t in enumerate(row) if t != PAD and (i == 0 or row[i - 1] != t)]
        assert text == expected + [EOS] * (len(text) - len(expected))
        assert (
            counts[len(row)] == len(expected) and counts[0] == 0 and math.isclose(counts[-1], len(expected))
        )
