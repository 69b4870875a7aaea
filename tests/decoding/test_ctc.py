"""CTC's own texts, and their rescoring, against all alignments and the plain way."""

import math
from itertools import groupby, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_greedy import LENGTHS, Scripted, batch, network

from asr.config import Config
from asr.decoding import DecodingOptions, build_decoder
from asr.decoding.ctc import ctc_decode, prefix_beam_search, text_scores
from asr.decoding.hot_words import HotWords
from asr.decoding.rescoring import rescore
from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.tokenizers import BOS, EOS, PAD, CharacterTokenizer

TOKENS = (4, 5)


def random_log_probs(seed, states, vocabulary=6):
    torch.manual_seed(seed)
    return (2 * torch.randn(states, vocabulary, dtype=torch.float64)).log_softmax(-1)


def all_texts(log_probs):
    """Every text with its probability: the sum over all its alignments. UNK is one of the characters."""
    found: dict[tuple[int, ...], float] = {}
    for path in product((PAD, 3, *TOKENS), repeat=len(log_probs)):
        text = tuple(token for token, _ in groupby(path) if token != PAD)
        chance = float(sum(log_probs[t, token] for t, token in enumerate(path)).exp())
        found[text] = found.get(text, 0.0) + chance
    return found


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_prefix_beam_search_equals_brute_force_over_all_alignments(seed, states):
    log_probs = random_log_probs(seed, states)
    model = Scripted(ctc=log_probs.unsqueeze(0))
    expected = all_texts(log_probs)
    options = DecodingOptions("ctc", beam=400, n_best=400)
    (found,) = ctc_decode(model, model.memory(states), options)
    assert {h.tokens for h in found} == set(expected) and len(found) == len(expected)
    for h in found:
        assert h.log_prob == h.score == pytest.approx(math.log(expected[h.tokens]))
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 6))
def test_what_a_narrow_beam_keeps_it_keeps_once_and_best_first(seed, states, beam):
    log_probs = random_log_probs(seed, states)
    model = Scripted(ctc=log_probs.unsqueeze(0))
    (found,) = ctc_decode(model, model.memory(states), DecodingOptions("ctc", beam=beam, n_best=beam))
    expected = all_texts(log_probs)
    assert len({h.tokens for h in found}) == len(found) == min(beam, len(expected))
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for h in found:
        assert h.log_prob == pytest.approx(math.log(expected[h.tokens]))


def plain_prefix_beam_search(log_probs, beam):
    """One utterance, a dictionary of texts (Hannun et al. 2014)."""
    live = {(): (1.0, 0.0)}
    for probabilities in log_probs.exp().tolist():
        grown: dict[tuple[int, ...], list[float]] = {}
        for text, (blank, voiced) in live.items():
            here = grown.setdefault(text, [0.0, 0.0])
            here[0] += (blank + voiced) * probabilities[PAD]
            if text:
                here[1] += voiced * probabilities[text[-1]]
            for token, probability in enumerate(probabilities):
                if token not in (PAD, BOS, EOS):
                    longer = grown.setdefault((*text, token), [0.0, 0.0])
                    longer[1] += (blank if text[-1:] == (token,) else blank + voiced) * probability
        best = sorted(grown, key=lambda text: -sum(grown[text]))[:beam]
        live = {text: tuple(grown[text]) for text in best}
    return list(live)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 8))
def test_prefix_beam_search_equals_the_plain_kind_for_each_row_of_a_batch(seed, lengths, beam):
    rows = [random_log_probs(seed + i, length, 9) for i, length in enumerate(lengths)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1.0)
    padded = torch.nn.functional.pad(padded, (0, 0, 0, 3), value=-0.5)
    padded[..., [BOS, EOS]] = -torch.inf
    texts, sizes = prefix_beam_search(padded, torch.tensor(lengths), beam)
    for row, found, counts in zip(rows, texts.tolist(), sizes.tolist(), strict=True):
        token_log_probs = [
            tuple(text[:count]) for text, count in zip(found, counts, strict=True) if count >= 0
        ]
        assert token_log_probs == plain_prefix_beam_search(row, beam)


def test_the_best_path_and_the_probability_of_its_text():
    log_probs = random_log_probs(7, 5)
    log_probs[:, [BOS, EOS]] = 0.0  # whatever the head says of them
    model = Scripted(ctc=log_probs.unsqueeze(0))
    ((found,),) = ctc_decode(model, model.memory(5), DecodingOptions("ctc"))
    path = log_probs[:, [PAD, 3, *TOKENS]].argmax(1).tolist()
    text = tuple((PAD, 3, *TOKENS)[i] for i, _ in groupby(path) if i)
    assert found.tokens == text and found.finished
    assert found.log_prob == pytest.approx(math.log(all_texts(log_probs)[text]))


@pytest.mark.parametrize("decoder", ["ctc", "rescoring"])
@pytest.mark.parametrize("beam", [1, 5])
def test_alone_in_a_batch_and_with_more_padding_it_is_the_same(decoder, beam):
    model = network(5)
    with torch.no_grad():
        model.ctc_head.weight *= 3
    options = DecodingOptions(decoder, beam=beam, n_best=beam)
    decode = ctc_decode if decoder == "ctc" else rescore
    alone = [decode(model, model.encode(*batch([length])), options)[0] for length in LENGTHS]
    assert len({found[0].tokens for found in alone}) > 5
    for padding in (0, 77):
        together = decode(model, model.encode(*batch(LENGTHS, padding)), options)
        for found, expected in zip(together, alone, strict=True):
            assert [h.tokens for h in found] == [h.tokens for h in expected]
            assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-3)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("normalization", [None, 0.7])
def test_rescoring_equals_the_plain_way(weight, normalization):
    tokenizer = CharacterTokenizer(tuple("abcd "))
    words = HotWords(["ab", "c d"], tokenizer, 2.5)
    model = network(11)
    with torch.no_grad():
        model.ctc_head.weight *= 2
        memory = model.encode(*batch([90, 40, 130]))
    options = DecodingOptions(
        "rescoring", ctc_weight=weight, beam=6, n_best=4, length_normalization=normalization
    )
    original, passes = model.forward_cached, []
    model.forward_cached = lambda *arguments: passes.append(1) or original(*arguments)
    found = rescore(model, memory, options, [words])
    assert len(passes) == 1

    texts = ctc_decode(model, memory, DecodingOptions("ctc", beam=6, n_best=6))
    for row, (rescored, heard) in enumerate(zip(found, texts, strict=True)):
        own = memory.select(torch.tensor([row]))
        scored = []
        for h in heard:
            given = torch.tensor([[BOS, *h.tokens]])
            with torch.no_grad():
                log_probs = model.decode(given, own)[0].log_softmax(-1)
            total = float(log_probs.gather(1, torch.tensor([[*h.tokens, EOS]]).T).sum())
            bonus = words.score_texts(given[:, 1:], torch.tensor([len(h.tokens)]))
            score = (1 - weight) * total + weight * h.log_prob + 2.5 * float(bonus)
            scored.append((score / (len(h.tokens) + 1) ** (normalization or 0), total, h.tokens))
        scored.sort(reverse=True)
        assert [h.tokens for h in rescored] == [tokens for _, _, tokens in scored[:4]]
        assert [h.score for h in rescored] == pytest.approx([score for score, _, _ in scored[:4]], abs=1e-3)
        assert [h.log_prob for h in rescored] == pytest.approx([t for _, t, _ in scored[:4]], abs=1e-3)


def test_a_text_that_does_not_fit_into_the_states_is_impossible():
    log_probs = random_log_probs(3, 2).unsqueeze(0)
    texts = torch.tensor([[[4, 4], [4, 5], [4, EOS]]])
    scores = text_scores(log_probs, torch.tensor([2]), texts, torch.tensor([[2, 2, -1]]))
    assert scores[0].isfinite().tolist() == [False, True, False]


def test_an_empty_batch_and_a_model_without_ctc():
    empty = network(0).encode(*batch([30])).select(torch.zeros(0, dtype=torch.long))
    assert ctc_decode(None, empty, DecodingOptions("ctc")) == []
    assert rescore(None, empty, DecodingOptions("rescoring")) == []
    tokenizer = CharacterTokenizer(tuple("abcde"))
    bundle = Bundle.build(
        Config.model_validate({"model": dict(ctc=False), "train": dict(ctc_weight=0)}), tokenizer
    )
    for options in (
        DecodingOptions("ctc"),
        DecodingOptions("rescoring"),
        DecodingOptions(draft=True),
    ):
        with pytest.raises(AsrError, match="no CTC head"):
            build_decoder(bundle, options)
