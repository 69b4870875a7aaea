"""Beam search: equal to greedy, to naive beam search and to exhaustive search, in any batch."""

import math

import pytest
import torch
from beam_references import (
    EOS,
    LENGTHS,
    LONG_PROMPT,
    SPECIAL,
    TOKENIZER,
    A,
    Endless,
    V,
    alone,
    batch,
    exhaustive_search,
    naive_beam,
    network,
    same,
)
from decoding_networks import StepOnly, random_processor
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions, beam_search, greedy
from asr.decoding.hot_words import HotWords
from asr.decoding.max_lengths import compute_max_lengths

networks = st.builds(network, st.integers(0, 10**6), ctc=st.booleans())
hot = st.lists(st.sampled_from(["a", "ab", "b a", "bb", "aab"]), max_size=2, unique=True)


@settings(max_examples=30)
@given(
    networks,
    hot,
    st.sampled_from([None, 0.0, 0.5, 1.0, 2.0]),
    st.integers(1, 4),
    st.integers(1, 80),
    st.sampled_from([SPECIAL, LONG_PROMPT]),
)
def test_a_beam_that_is_wide_enough_finds_the_best_of_all_hypotheses(
    model, phrases, alpha, max_length, frames, special
):
    options = DecodingOptions(
        decoder="beam", beam=600, n_best=4, candidates=V, max_tokens=max_length, length_normalization=alpha
    )
    words = [HotWords(phrases, TOKENIZER, 0.8)] if phrases else []
    memory = model.encode(*batch([frames]))
    (found,) = beam_search(model, memory, special, options, words)
    expected = exhaustive_search(model, memory, special, max_length, options, words)[:4]
    assert [h.tokens for h in found] == [tokens for _, tokens, _ in expected]
    assert [h.finish_reason for h in found] == [reason for _, _, reason in expected]
    assert [h.score for h in found] == pytest.approx([score for score, _, _ in expected], abs=1e-4)


@settings(max_examples=20)
@given(
    networks,
    hot,
    st.sampled_from([None, 1.0]),
    st.integers(1, 5),
    st.integers(1, 7),
    st.sampled_from([SPECIAL, LONG_PROMPT]),
    st.booleans(),
)
def test_it_equals_naive_beam_search_without_batch_caches_candidates_or_early_end(
    model, phrases, alpha, beam, max_length, special, processed
):
    options = DecodingOptions(
        decoder="beam", beam=beam, n_best=min(beam, 3), candidates=V, max_tokens=max_length,
        length_normalization=alpha,
    )  # fmt: skip
    words = [HotWords(phrases, TOKENIZER, 0.8)] if phrases else []
    processors = [narrow(random_processor(beam))] if processed else []
    memory = model.encode(*batch([70, 9, 33]))
    ctc = model.ctc(memory) if hasattr(model, "ctc") else None
    max_lengths = compute_max_lengths(memory, ctc, special, options).tolist()
    for row, found in enumerate(beam_search(model, memory, special, options, words, processors)):
        own = alone(model, memory, row)
        expected = naive_beam(model, own, special, max_lengths[row], options, words, processors)
        assert [(h.tokens, h.finish_reason) for h in found] == [
            (tokens, reason) for _, tokens, reason, _ in expected
        ]
        assert [h.score for h in found] == pytest.approx([e[0] for e in expected], abs=1e-4)
        assert [h.log_prob for h in found] == pytest.approx([e[3] for e in expected], abs=1e-4)


def narrow(processor):
    """The processor of a larger vocabulary, for this one: EOS stays possible, and scores stay below 0."""

    def process(tokens, log_probs):
        wide = torch.zeros(len(tokens), 9, dtype=log_probs.dtype)
        return log_probs + processor(tokens, wide)[:, :V].clamp_max(0)

    return process


@settings(max_examples=25)
@given(
    networks,
    st.sampled_from([None, 0.0]),
    st.sampled_from([None, 3]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([SPECIAL, LONG_PROMPT]),
)
def test_a_beam_of_one_is_greedy(model, weight, candidates, alpha, special):
    memory = model.encode(*batch())
    candidates = None if weight == 0 else candidates
    plain = DecodingOptions(ctc_weight=weight, candidates=candidates)
    options = DecodingOptions(
        decoder="beam", beam=1, ctc_weight=weight, candidates=candidates, length_normalization=alpha
    )
    expected = greedy(model, memory, special, plain)
    found = beam_search(model, memory, special, options)
    for (one,), (other,) in zip(found, expected, strict=True):
        assert (one.tokens, one.finish_reason) == (other.tokens, other.finish_reason)
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)


def test_a_model_that_offers_only_a_decoder_can_do_it():
    model = network(2)
    memory = model.encode(*batch())
    options = DecodingOptions(decoder="beam", beam=3, ctc_weight=0.0)
    same(
        beam_search(StepOnly(model), memory, LONG_PROMPT, options),
        beam_search(model, memory, LONG_PROMPT, options),
    )


def test_ctc_limits_the_length_only_if_it_takes_part():
    model = Endless()
    memory = model.memory(50)

    def length(weight):
        options = DecodingOptions(decoder="beam", beam=2, ctc_weight=weight)
        return len(beam_search(model, memory, SPECIAL, options)[0][0].tokens)

    assert (length(1e-6), length(0.0)) == (8, 58)


@settings(max_examples=8)
@given(networks, hot)
def test_alone_in_a_batch_and_with_more_padding_it_is_the_same(model, phrases):
    options = DecodingOptions(decoder="beam", beam=4, n_best=3)
    words = [HotWords(phrases, TOKENIZER, 0.5)]
    single = [beam_search(model, model.encode(*batch([n])), SPECIAL, options, words)[0] for n in LENGTHS]
    same(beam_search(model, model.encode(*batch()), SPECIAL, options, words), single)
    same(beam_search(model, model.encode(*batch(padding=90)), SPECIAL, options, words), single)
    same(beam_search(model, model.encode(*batch(LENGTHS[::-1])), SPECIAL, options, words), single[::-1])


def test_a_hot_word_is_found_that_was_not_found_before():
    model = network(3)
    memory = model.encode(*batch([60]))
    options = DecodingOptions(decoder="beam", beam=6)
    word = [HotWords(["abba"], TOKENIZER, 6.0)]
    (without,), (with_it,) = (beam_search(model, memory, SPECIAL, options, words)[0] for words in ([], word))
    abba = TOKENIZER.encode("abba")
    assert "abba" not in TOKENIZER.decode(without.tokens) and "abba" in TOKENIZER.decode(with_it.tokens)
    assert list(with_it.tokens).count(abba[0]) >= 2


def test_a_forbidden_token_is_not_decoded_even_by_ctc_alone():
    """With a weight of 1 for CTC, 0 times the decoder's minus infinity must not become a score."""

    def no_a(tokens, log_probs):
        log_probs[:, A] = -math.inf
        return log_probs

    options = DecodingOptions(decoder="beam", beam=4, n_best=4, ctc_weight=1.0, candidates=V)
    decoded = set()
    for seed in range(5):
        model = network(seed)
        memory = model.encode(*batch())
        decoded |= {t for hs in beam_search(model, memory, SPECIAL, options) for h in hs for t in h.tokens}
        for hypotheses in beam_search(model, memory, SPECIAL, options, [], [no_a]):
            for h in hypotheses:
                assert not {A, EOS, *SPECIAL.suppressed} & {*h.tokens} and math.isfinite(h.score)
    assert A in decoded


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_is_the_same():
    model, options = network(5), DecodingOptions(decoder="beam", beam=4, n_best=3)
    words = {device: [HotWords(["ab"], TOKENIZER, 0.5, device)] for device in ("cpu", "cuda")}
    expected = beam_search(model, model.encode(*batch()), SPECIAL, options, words["cpu"])
    features, lengths = batch()
    model.cuda()
    memory = model.encode(features.cuda(), lengths.cuda())
    same(beam_search(model, memory, SPECIAL, options, words["cuda"]), expected)
