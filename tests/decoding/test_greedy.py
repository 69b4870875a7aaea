"""Greedy decoding equals naive decoding, alone and in any batch, and always ends."""

import functools
import importlib
import itertools
import math
from dataclasses import replace

import pytest
import torch
from decoding_networks import (
    BOS,
    ENDLESS,
    EOS,
    HALF,
    LENGTHS,
    LONG_PROMPT,
    MELS,
    PAD,
    SPECIAL,
    UNK,
    VOCABULARY,
    Scripted,
    ScriptedWithCTC,
    StepOnly,
    StepOnlyWithCTC,
    batch,
    naive_greedy,
    network,
    network_config,
    paths,
    random_processor,
    same,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions, FinishReason, Hypothesis
from asr.decoding import greedy as decode
from asr.decoding.max_lengths import compute_max_lengths
from asr.errors import AsrError
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import Memory

PLAIN = DecodingOptions(ctc_weight=0.0)  # attention alone
JOINT = DecodingOptions(candidates=VOCABULARY)  # with CTC, and every token is a candidate


def greedy(network, memory, options, special=SPECIAL, processors=()):
    """Decode step by step, and with a draft if there can be one: the results must be the same."""
    found = decode(network, memory, special, replace(options, draft=False), (), processors)
    if hasattr(network, "ctc"):
        same(decode(network, memory, special, options, (), processors), found)
    return found


def found_alone(model, options=PLAIN, lengths=LENGTHS):
    return [greedy(model, model.encode(*batch([length])), options)[0] for length in lengths]


@functools.cache
def talkative(norm, special=SPECIAL):
    """Networks whose hypotheses for the 16 utterances have many lengths, and do not always end with EOS."""
    chosen = []
    for seed in itertools.count():
        model = network(seed, norm=norm)
        found = [h for (h,) in decode(model, model.encode(*batch()), special, replace(PLAIN, draft=False))]
        different = len({h.tokens for h in found}) >= 8
        if different and 3 <= sum(h.finished for h in found) <= 13:
            chosen.append(model)
        if len(chosen) == 2:
            return chosen
        assert seed < 200, "no network has hypotheses of different lengths: change the weights in network()"


# ------------------------------------------------------------------------------ random networks, any batch


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("special", [SPECIAL, LONG_PROMPT], ids=["BOS", "three tokens"])
def test_with_caches_equals_naive_decoding(norm, special):
    for model, options, weight in zip(talkative(norm, special), (PLAIN, JOINT), (0.0, 0.3), strict=True):
        features, lengths = batch()
        memory = model.encode(features, lengths)
        ctc = model.ctc(memory) if weight else None
        max_lengths = compute_max_lengths(memory, ctc, special, options).tolist()
        expected = naive_greedy(model, features, lengths, max_lengths, special, weight)
        same(greedy(model, memory, options, special), expected)


@settings(max_examples=15)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.integers(0, 10**6),
    st.integers(1, 12),
    st.sampled_from([SPECIAL, LONG_PROMPT]),
)
def test_with_caches_equals_naive_decoding_for_any_network(lengths, seed, max_tokens, special):
    model = network(seed, ctc=False).double()  # in float64 no two tokens are equally probable by rounding
    features, frames = batch(lengths)
    features = features.double()
    found = greedy(model, model.encode(features, frames), DecodingOptions(max_tokens=max_tokens), special)
    max_lengths = [min(max_tokens, -(-n // 4) + 8) for n in lengths]
    same(found, naive_greedy(model, features, frames, max_lengths, special))


@pytest.mark.parametrize("special", [SPECIAL, LONG_PROMPT], ids=["BOS", "three tokens"])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_logit_processors_see_each_prefix_and_decide(special, weight):
    """One prefers other tokens after other histories, the other forbids a token after itself."""

    def no_double(tokens, log_probs):
        return log_probs.scatter(1, tokens[:, -1:], -math.inf)

    options = DecodingOptions(ctc_weight=weight, candidates=VOCABULARY if weight else None)
    without, different = 0, 0
    for seed in range(4):
        model = network(seed)
        processors = (random_processor(seed), no_double)
        features, lengths = batch(LENGTHS[:8])
        memory = model.encode(features, lengths)
        ctc = model.ctc(memory) if weight else None
        max_lengths = compute_max_lengths(memory, ctc, special, options).tolist()
        found = greedy(model, memory, options, special, processors)
        same(found, naive_greedy(model, features, lengths, max_lengths, special, weight, processors))
        for (h,), (plain,) in zip(found, decode(model, memory, special, options), strict=True):
            assert all(a != b for a, b in itertools.pairwise(h.tokens))
            without += len(h.tokens)
            different += h.tokens != plain.tokens
    assert without > 30 and different > 10  # the processors had something to decide


def test_a_forbidden_token_is_not_decoded_even_by_ctc_alone():
    rows = [[5, PAD, 6, PAD, 7]]
    model = ScriptedWithCTC((5, 6, 7), ctc=3 * paths(*rows))

    def no_six(tokens, log_probs):
        log_probs[:, 6] = -math.inf
        return log_probs

    options = DecodingOptions(ctc_weight=1.0)
    assert greedy(model, model.memory(5), options)[0][0].tokens == (5, 6, 7)
    assert 6 not in greedy(model, model.memory(5), options, SPECIAL, [no_six])[0][0].tokens


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_alone_in_a_batch_and_with_more_padding_it_is_the_same(norm):
    for model, options in zip(talkative(norm), (PLAIN, JOINT), strict=True):
        alone = found_alone(model, options)
        same(greedy(model, model.encode(*batch()), options), alone)
        same(greedy(model, model.encode(*batch(padding=101)), options), alone)
        same(greedy(model, model.encode(*batch(LENGTHS[::-1])), options), alone[::-1])


def test_results_do_not_depend_on_when_finished_rows_leave_the_batch(monkeypatch):
    for model in talkative("pre"):
        expected = found_alone(model)
        for share in (0.0, 0.5, 1.0):
            monkeypatch.setattr(importlib.import_module("asr.decoding.greedy"), "COMPACT_BELOW", share)
            same(greedy(model, model.encode(*batch()), PLAIN), expected)
        monkeypatch.undo()


def test_decoding_changes_neither_the_memory_nor_the_next_result():
    model = talkative("pre")[0]
    memory = model.encode(*batch())
    states = memory.states.clone()
    first = greedy(model, memory, PLAIN)
    assert torch.equal(memory.states, states)
    assert greedy(model, memory, PLAIN) == first


# ----------------------------------------------------------------------------- models that lack operations


def test_a_model_without_cached_scoring_decodes_step_by_step():
    model = network(3)
    memory = model.encode(*batch())
    for special in (SPECIAL, LONG_PROMPT):
        same(decode(StepOnlyWithCTC(model), memory, special, JOINT), decode(model, memory, special, JOINT))
        same(decode(StepOnly(model), memory, special, PLAIN), decode(model, memory, special, PLAIN))
    with pytest.raises(AsrError, match="no CTC head"):
        decode(StepOnly(model), memory, SPECIAL, DecodingOptions(ctc_weight=0.3))


def test_a_weight_for_ctc_is_refused_without_ctc():
    model = network(0, ctc=False)
    with pytest.raises(AsrError, match="no CTC head"):
        greedy(model, model.encode(*batch([30])), DecodingOptions(ctc_weight=0.3))
    with pytest.raises(AsrError, match="ctc_weight"):
        DecodingOptions(ctc_weight=1.5)


def test_other_scorers_are_refused():
    with pytest.raises(AsrError, match="decoder beam"):
        decode(None, None, SPECIAL, PLAIN, factories=[object()])


# -------------------------------------------------------------------------------------- a scripted network


def test_tokens_scores_and_ends():
    model = Scripted((5, 6, 7), (), ENDLESS, (8,) * 12)
    found = [h for (h,) in greedy(model, model.memory(20, 9, 4, 4), PLAIN)]
    assert [h.tokens for h in found] == [(5, 6, 7), (), ENDLESS[:12], (8,) * 12]
    assert [h.finished for h in found] == [True, True, False, True]  # EOS right after 4 + 8 tokens counts
    assert [h.log_prob for h in found] == pytest.approx([4 * HALF, HALF, 12 * HALF, 13 * HALF])
    assert [h.confidence for h in found] == pytest.approx([0.5] * 4)


def test_an_option_limits_the_tokens():
    model = Scripted((5, 6, 7), ENDLESS, (5,) * 4)
    found = [h for (h,) in greedy(model, model.memory(90, 90, 90), DecodingOptions(max_tokens=3))]
    assert [len(h.tokens) for h in found] == [3, 3, 3]
    assert [h.finished for h in found] == [True, False, False]
    assert [h.log_prob for h in found] == pytest.approx([4 * HALF, 3 * HALF, 3 * HALF])
    assert len(model.held) == 4
    for wrong in (0, -1):
        with pytest.raises(AsrError, match="max_tokens"):
            DecodingOptions(max_tokens=wrong)


def test_ctc_limits_the_tokens_only_if_it_takes_part():
    blank, a, b = PAD, 5, 6
    rows = [[blank] * 50, [a] * 50, [a, b] * 10 + [blank] * 30, [a, blank, a] + [blank] * 47]
    model = ScriptedWithCTC(*[ENDLESS] * 4, ctc=paths(*rows))
    memory = model.memory(50, 50, 50, 50)

    def lengths(**options):
        found = greedy(model, memory, DecodingOptions(**options))
        assert not any(h.finished for (h,) in found)
        return [len(h.tokens) for (h,) in found]

    assert lengths(ctc_weight=1e-6) == [8, 2 + 8, 40 + 8, 4 + 8]
    assert lengths(ctc_weight=1e-6, max_tokens=11) == [8, 10, 11, 11]
    assert lengths(ctc_weight=0.0) == [58] * 4  # attention alone: only the duration limits it
    assert lengths(ctc_weight=0.0, max_tokens=57) == [57] * 4


def test_suppressed_tokens_are_never_decoded_but_unk_can_be():
    model = Scripted((8,), (8,), (UNK,))
    original = model.forward_cached

    def forward_cached(tokens, state, starts):
        log_probs = original(tokens, state, starts)
        log_probs[state.rows == 0, :, PAD] = log_probs[state.rows == 1, :, BOS] = math.log(0.9)
        return log_probs

    model.forward_cached = forward_cached
    found = [h for (h,) in greedy(model, model.memory(9, 9, 9), PLAIN)]
    assert [h.tokens for h in found] == [(8,), (8,), (UNK,)]
    assert [h.log_prob for h in found] == pytest.approx([2 * HALF] * 3)
    found = greedy(model, model.memory(9, 9, 9), PLAIN, replace(SPECIAL, suppressed=(PAD, BOS, UNK)))
    assert UNK not in found[2][0].tokens


def test_finished_rows_leave_the_batch_and_the_last_one_ends_it():
    scripts = [(5 + i % 3,) * i for i in range(16)]
    model = Scripted(*scripts)
    found = [h for (h,) in greedy(model, model.memory(*[20] * 16), PLAIN)]
    assert [h.tokens for h in found] == scripts and all(h.finished for h in found)
    assert len(model.held) == 16  # 15 tokens and EOS
    unfinished = [sum(len(script) >= position for script in scripts) for position in range(16)]
    assert model.held[0] == 16 and model.held == sorted(model.held, reverse=True)
    assert all(live <= held <= live / 0.75 + 1 for live, held in zip(unfinished, model.held, strict=True))


def test_an_empty_batch_needs_no_network():
    assert greedy(None, Memory(torch.zeros(0, 5, 16), torch.zeros(0, dtype=torch.long)), PLAIN) == []


def test_confidence_of_empty_and_unfinished_hypotheses():
    assert Hypothesis((), 0.0, FinishReason.length).confidence == 1.0
    assert Hypothesis((5, 6), 3 * HALF, FinishReason.end).confidence == pytest.approx(0.5)
    assert Hypothesis((5, 6), 2 * HALF, FinishReason.length).confidence == pytest.approx(0.5)


def test_ctc_corrects_what_attention_repeats():
    """A decoder that cannot stop repeating a token, and a CTC head whose output has the token once."""

    class Stutter(EncoderDecoder):
        def _step(self, tokens, state):
            return self._forward_cached(tokens.unsqueeze(1), state, None).squeeze(1)

        def _forward_cached(self, tokens, state, starts):
            log_probs = torch.full((*tokens.shape, VOCABULARY), -9.0)
            log_probs[..., 5], log_probs[..., EOS] = -0.6, -0.8
            return log_probs

        def _ctc(self, memory):
            log_probs = torch.full((len(memory.lengths), memory.states.size(1), VOCABULARY), -9.0)
            log_probs[..., PAD] = -0.01
            log_probs[:, 3, 5], log_probs[:, 3, PAD] = -0.01, -9.0
            return log_probs

    model = Stutter(network_config(), MELS, VOCABULARY).eval()
    memory = model.encode(*batch([60]))
    assert len(greedy(model, memory, PLAIN)[0][0].tokens) > 5
    assert greedy(model, memory, JOINT)[0][0].tokens == (5,)
