"""Decoding by CTC and rescoring, against the sum over all alignments and naive implementations."""

import math
from dataclasses import replace
from itertools import groupby, product

import pytest
import torch
from decoding_networks import (
    BOS,
    EOS,
    LENGTHS,
    LONG_PROMPT,
    PAD,
    SPECIAL,
    ScriptedWithCTC,
    StepOnlyWithCTC,
    batch,
    network,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions
from asr.decoding.ctc import ctc_decode, prefix_beam_search, sequence_log_probs
from asr.decoding.hot_words import HotWords
from asr.decoding.rescoring import rescore
from asr.tokenizers import CharacterTokenizer

TOKENS = (4, 5)
# Other ids with the same roles: the blank is not the padding.
RENUMBERED = replace(SPECIAL, prompt=(0,), eos=3, pad=0, blank=8, suppressed=(0, 8))
NEW_IDS = (8, 0, 3, 1, 2, 4, 5, 6, 7)  # the new id of each token of SPECIAL


def random_log_probs(seed, states, vocabulary=6):
    torch.manual_seed(seed)
    return (2 * torch.randn(states, vocabulary, dtype=torch.float64)).log_softmax(-1)


def all_sequences(log_probs):
    """Every token sequence with its probability, the sum over all its alignments. UNK is ordinary."""
    found: dict[tuple[int, ...], float] = {}
    for path in product((PAD, 3, *TOKENS), repeat=len(log_probs)):
        tokens = tuple(token for token, _ in groupby(path) if token != PAD)
        probability = float(sum(log_probs[t, token] for t, token in enumerate(path)).exp())
        found[tokens] = found.get(tokens, 0.0) + probability
    return found


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_prefix_beam_search_equals_brute_force_over_all_alignments(seed, states):
    log_probs = random_log_probs(seed, states)
    model = ScriptedWithCTC(ctc=log_probs.unsqueeze(0))
    expected = all_sequences(log_probs)
    options = DecodingOptions("ctc", beam=400, n_best=400)
    (found,) = ctc_decode(model, model.memory(states), SPECIAL, options)
    assert {h.tokens for h in found} == set(expected) and len(found) == len(expected)
    for h in found:
        assert h.log_prob == h.score == pytest.approx(math.log(expected[h.tokens]))
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 6))
def test_a_narrow_beam_has_each_hypothesis_once_and_the_best_first(seed, states, beam):
    log_probs = random_log_probs(seed, states)
    model = ScriptedWithCTC(ctc=log_probs.unsqueeze(0))
    options = DecodingOptions("ctc", beam=beam, n_best=beam)
    (found,) = ctc_decode(model, model.memory(states), SPECIAL, options)
    expected = all_sequences(log_probs)
    assert len({h.tokens for h in found}) == len(found) == min(beam, len(expected))
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for h in found:
        assert h.log_prob == pytest.approx(math.log(expected[h.tokens]))


def naive_prefix_beam_search(log_probs, beam):
    """One utterance, with a dictionary of prefixes (Hannun et al. 2014)."""
    live = {(): (1.0, 0.0)}
    for probabilities in log_probs.exp().tolist():
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (in_blank, in_token) in live.items():
            own = grown.setdefault(prefix, [0.0, 0.0])
            own[0] += (in_blank + in_token) * probabilities[PAD]
            if prefix:
                own[1] += in_token * probabilities[prefix[-1]]
            for token, probability in enumerate(probabilities):
                if token not in (PAD, BOS, EOS):
                    longer = grown.setdefault((*prefix, token), [0.0, 0.0])
                    before = in_blank if prefix[-1:] == (token,) else in_blank + in_token
                    longer[1] += before * probability
        best = sorted(grown, key=lambda prefix: -sum(grown[prefix]))[:beam]
        live = {prefix: tuple(grown[prefix]) for prefix in best}
    return list(live)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 8))
def test_prefix_beam_search_equals_the_naive_one_for_each_row_of_a_batch(seed, lengths, beam):
    rows = [random_log_probs(seed + i, length, 9) for i, length in enumerate(lengths)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1.0)
    padded = torch.nn.functional.pad(padded, (0, 0, 0, 3), value=-0.5)
    padded[..., [BOS, EOS]] = -torch.inf
    tokens, sizes = prefix_beam_search(padded, torch.tensor(lengths), SPECIAL, beam)
    for row, sequences, counts in zip(rows, tokens.tolist(), sizes.tolist(), strict=True):
        found = [
            tuple(sequence[:count]) for sequence, count in zip(sequences, counts, strict=True) if count >= 0
        ]
        assert found == naive_prefix_beam_search(row, beam)


def test_the_best_path_and_the_probability_of_its_tokens():
    log_probs = random_log_probs(7, 5)
    log_probs[:, [BOS, EOS]] = 0.0  # the head's output for these tokens is not used
    model = ScriptedWithCTC(ctc=log_probs.unsqueeze(0))
    ((found,),) = ctc_decode(model, model.memory(5), SPECIAL, DecodingOptions("ctc"))
    path = log_probs[:, [PAD, 3, *TOKENS]].argmax(1).tolist()
    tokens = tuple((PAD, 3, *TOKENS)[i] for i, _ in groupby(path) if i)
    assert found.tokens == tokens and found.finished
    assert found.log_prob == pytest.approx(math.log(all_sequences(log_probs)[tokens]))


@pytest.mark.parametrize("beam", [1, 5])
def test_the_blank_can_have_any_id(beam):
    log_probs = (2 * torch.randn(2, 30, 9, generator=torch.Generator().manual_seed(3))).log_softmax(-1)
    log_probs[..., PAD] += 1
    options = DecodingOptions("ctc", beam=beam, n_best=beam)
    memory = ScriptedWithCTC(ctc=None).memory(30, 17)
    expected = ctc_decode(ScriptedWithCTC(ctc=log_probs), memory, SPECIAL, options)
    renumbered = torch.empty_like(log_probs)
    renumbered[..., list(NEW_IDS)] = log_probs
    found = ctc_decode(ScriptedWithCTC(ctc=renumbered), memory, RENUMBERED, options)
    for row, other in zip(found, expected, strict=True):
        assert [h.tokens for h in row] == [tuple(NEW_IDS[t] for t in h.tokens) for h in other]
        assert [h.score for h in row] == pytest.approx([h.score for h in other])
    assert len(expected[0][0].tokens) > 5


@pytest.mark.parametrize("special", [SPECIAL, LONG_PROMPT], ids=["BOS", "three tokens"])
@pytest.mark.parametrize("decoder", ["ctc", "rescoring"])
@pytest.mark.parametrize("beam", [1, 5])
def test_alone_in_a_batch_and_with_more_padding_it_is_the_same(decoder, beam, special):
    model = network(5)
    with torch.no_grad():
        model.ctc_head.weight *= 3
    options = DecodingOptions(decoder, beam=beam, n_best=beam)
    decode = ctc_decode if decoder == "ctc" else rescore
    alone = [decode(model, model.encode(*batch([length])), special, options)[0] for length in LENGTHS]
    assert len({found[0].tokens for found in alone}) > 5
    for padding in (0, 77):
        together = decode(model, model.encode(*batch(LENGTHS, padding)), special, options)
        for found, expected in zip(together, alone, strict=True):
            assert [h.tokens for h in found] == [h.tokens for h in expected]
            assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-3)


def test_rescoring_cuts_texts_for_which_the_decoder_has_no_positions():
    model = network(5)
    with torch.no_grad():
        model.ctc_head.weight *= 3
    memory = model.encode(*batch([130, 3]))
    options = DecodingOptions("rescoring", beam=5, n_best=5)
    longest = max(len(h.tokens) for h in rescore(model, memory, SPECIAL, options)[0])
    model.max_positions = longest - 1
    most = model.max_positions - len(SPECIAL.prompt)
    cut, short = rescore(model, memory, SPECIAL, options)
    assert max(len(h.tokens) for h in cut) == most
    assert all((h.finish_reason == "length") == (len(h.tokens) == most) for h in [*cut, *short])


@pytest.mark.parametrize("special", [SPECIAL, LONG_PROMPT], ids=["BOS", "three tokens"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("normalization", [None, 0.7])
def test_rescoring_equals_the_naive_one(weight, normalization, special):
    tokenizer = CharacterTokenizer(tuple("abcd "))
    words = HotWords(["ab", "c d"], tokenizer, 2.5)
    words.eos = special.eos
    model = network(11)
    with torch.no_grad():
        model.ctc_head.weight *= 2
        memory = model.encode(*batch([90, 40, 130]))
    options = DecodingOptions(
        "rescoring", ctc_weight=weight, beam=6, n_best=4, length_normalization=normalization
    )
    original, passes = model.forward_cached, []
    model.forward_cached = lambda *arguments: passes.append(1) or original(*arguments)
    found = rescore(model, memory, special, options, [words])
    assert len(passes) == 1
    without_cache = rescore(StepOnlyWithCTC(model), memory, special, options, [words])

    by_ctc = ctc_decode(model, memory, special, DecodingOptions("ctc", beam=6, n_best=6))
    for row, hypotheses in enumerate(by_ctc):
        own = memory.select(torch.tensor([row]))
        scored = []
        for h in hypotheses:
            inputs = torch.tensor([[*special.prompt, *h.tokens]])
            with torch.no_grad():
                log_probs = model.decode(inputs, own)[0, len(special.prompt) - 1 :].log_softmax(-1)
            total = float(log_probs.gather(1, torch.tensor([[*h.tokens, special.eos]]).T).sum())
            tokens = torch.tensor([h.tokens], dtype=torch.long)
            bonus = words.score_texts(tokens, torch.tensor([len(h.tokens)]))
            score = (1 - weight) * total + weight * h.log_prob + 2.5 * float(bonus)
            scored.append((score / (len(h.tokens) + 1) ** (normalization or 0), total, h.tokens))
        best = sorted(scored, reverse=True)[:4]
        for rescored in (found[row], without_cache[row]):
            assert [h.tokens for h in rescored] == [tokens for _, _, tokens in best]
            assert [h.score for h in rescored] == pytest.approx([score for score, _, _ in best], abs=1e-3)
            assert [h.log_prob for h in rescored] == pytest.approx([t for _, t, _ in best], abs=1e-3)


def test_a_sequence_that_does_not_fit_into_the_states_is_impossible():
    log_probs = random_log_probs(3, 2).unsqueeze(0)
    tokens = torch.tensor([[[4, 4], [4, 5], [4, EOS]]])
    scores = sequence_log_probs(log_probs, torch.tensor([2]), SPECIAL, tokens, torch.tensor([[2, 2, -1]]))
    assert scores[0].isfinite().tolist() == [False, True, False]


def test_an_empty_batch():
    empty = network(0).encode(*batch([30])).select(torch.zeros(0, dtype=torch.long))
    assert ctc_decode(None, empty, SPECIAL, DecodingOptions("ctc")) == []
    assert rescore(None, empty, SPECIAL, DecodingOptions("rescoring")) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("decode", [ctc_decode, rescore])
def test_on_a_gpu_it_is_the_same(decode):
    model = network(5)
    features, lengths = batch()
    options = DecodingOptions("ctc" if decode is ctc_decode else "rescoring", beam=5, n_best=5)
    expected = decode(model, model.encode(features, lengths), LONG_PROMPT, options)
    model.cuda()
    found = decode(model, model.encode(features.cuda(), lengths.cuda()), LONG_PROMPT, options)
    for row, other in zip(found, expected, strict=True):
        assert [h.score for h in row] == pytest.approx([h.score for h in other], abs=1e-2)
