"""Greedy decoding equals the naive kind, alone and in any company, and always ends."""

import functools
import importlib
import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch
from helpers import sections
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions, FinishReason, Hypothesis
from asr.decoding import greedy as decode
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.max_lengths import compute_max_lengths, ctc_lengths
from asr.decoding.repetition import first_round
from asr.errors import AsrError
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import Memory
from asr.tokenizers import BOS, EOS, PAD, UNK

MELS, VOCABULARY = 12, 9
LENGTHS = [3, 130, 40, 17, 90, 64, 1, 110, 33, 77, 150, 8, 50, 125, 28, 99]  # frames of 16 utterances
PLAIN = DecodingOptions(ctc_weight=0.0)  # attention alone
JOINT = DecodingOptions(candidates=VOCABULARY)  # with CTC, and every character is a candidate


def greedy(network, memory, options):
    """Step by step, and with a draft where there can be one: they must be the same."""
    found = decode(network, memory, replace(options, draft=False))
    if hasattr(network, "ctc"):
        same(decode(network, memory, options), found)
    return found


def batch(lengths=LENGTHS, padding=0):
    """Features (B, T, MELS), zero beyond the lengths, with their lengths."""
    features = torch.zeros(len(lengths), max(lengths) + padding, MELS)
    for row, length in zip(features, lengths, strict=True):
        row[:length] = torch.randn(length, MELS, generator=torch.Generator().manual_seed(length))
    return features, torch.tensor(lengths)


def network_config(**sizes):
    small = dict(d_model=16, n_heads=2, d_ffn=24, encoder_layers=1, decoder_layers=2, conv_channels=3)
    return EncoderDecoder.Config.model_validate(sections(**small | sizes))


def network(seed, **sizes):
    """A small network that has strong opinions, though no sense."""
    torch.manual_seed(seed)
    model = EncoderDecoder(network_config(**sizes), MELS, VOCABULARY)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= 1.5
        else:
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.decoder.out.weight.data *= 3
    return model.eval()


def found_alone(model, options=PLAIN, lengths=LENGTHS):
    return [greedy(model, model.encode(*batch([length])), options)[0] for length in lengths]


@functools.cache
def talkative(norm):
    """Networks that say texts of many lengths to the 16 utterances, and do not always come to an end."""
    chosen = []
    for seed in itertools.count():
        model = network(seed, norm=norm)
        found = decode(model, model.encode(*batch()), replace(PLAIN, draft=False))
        different = len({h.tokens for h in found}) >= 8
        if different and 3 <= sum(h.finished for h in found) <= 13:
            chosen.append(model)
        if len(chosen) == 2:
            return chosen
        assert seed < 200, "no network says anything of interest: scale the weights in network() anew"


def same(found, expected):
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert [h.finish_reason for h in found] == [h.finish_reason for h in expected]
    assert [h.log_prob for h in found] == pytest.approx([h.log_prob for h in expected], abs=1e-4)


@torch.no_grad()
def naive(model, features, lengths, max_lengths, ctc_weight=0.0):
    """No cache and no batch: every prefix is decoded anew, and each token is scored by CTC."""
    hypotheses = []
    for row, bound in enumerate(max_lengths):
        memory = model.encode(features[row : row + 1, : int(lengths[row])], lengths[row : row + 1])
        scorer = CTCPrefixScorer(model.ctc(memory), memory.lengths) if ctc_weight else None
        token_log_probs, steps, finished = [], [], False
        while (kept := first_round(tuple(token_log_probs))) is None:
            log_probs = (
                model.decode(torch.tensor([[BOS, *token_log_probs]]), memory)[0, -1].float().log_softmax(-1)
            )
            joint = log_probs
            if scorer is not None:
                heard = scorer.score(torch.arange(VOCABULARY).unsqueeze(0))[0]
                joint = (1 - ctc_weight) * log_probs + ctc_weight * heard
            joint[[PAD, BOS]] = -math.inf
            best = int(joint.argmax())
            if best != EOS and len(token_log_probs) == bound:
                break
            steps.append(float(log_probs[best]))
            if best == EOS:
                finished = True
                break
            token_log_probs.append(best)
            if scorer is not None:
                scorer.advance(torch.tensor([best]))
        finish_reason = (
            FinishReason.end if finished else FinishReason.length if kept is None else FinishReason.repetition
        )
        hypotheses.append(Hypothesis(tuple(token_log_probs[:kept]), sum(steps[:kept]), finish_reason))
    return hypotheses


# ------------------------------------------------------------------------------- real networks in any company


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_with_caches_equals_the_naive_kind(norm):
    for model in talkative(norm):
        features, lengths = batch()
        memory = model.encode(features, lengths)
        max_lengths = compute_max_lengths(memory, model.ctc(memory), PLAIN).tolist()
        same(greedy(model, memory, PLAIN), naive(model, features, lengths, max_lengths))
        same(greedy(model, memory, JOINT), naive(model, features, lengths, max_lengths, ctc_weight=0.3))


@settings(max_examples=15)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(0, 10**6), st.integers(1, 12))
def test_with_caches_equals_the_naive_kind_whatever_the_network(lengths, seed, bound):
    model = network(seed, ctc=False).double()  # so that no two tokens are equally probable by rounding
    features, frames = batch(lengths)
    features = features.double()
    found = greedy(model, model.encode(features, frames), DecodingOptions(max_tokens=bound))
    same(found, naive(model, features, frames, [min(bound, -(-n // 4) + 8) for n in lengths]))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_alone_in_a_batch_and_with_more_padding_it_is_the_same(norm):
    for model in talkative(norm):
        for options in (PLAIN, JOINT):
            alone = found_alone(model, options)
            same(greedy(model, model.encode(*batch()), options), alone)
            same(greedy(model, model.encode(*batch(padding=101)), options), alone)
            same(greedy(model, model.encode(*batch(LENGTHS[::-1])), options), alone[::-1])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_when_finished_rows_leave_makes_no_difference(monkeypatch, share):
    for model in talkative("pre"):
        expected = found_alone(model)
        monkeypatch.setattr(importlib.import_module("asr.decoding.greedy"), "COMPACT_BELOW", share)
        same(greedy(model, model.encode(*batch()), PLAIN), expected)
        monkeypatch.undo()


def test_decoding_changes_neither_the_memory_nor_what_is_decoded_next():
    model = talkative("pre")[0]
    memory = model.encode(*batch())
    states = memory.states.clone()
    first = greedy(model, memory, PLAIN)
    assert torch.equal(memory.states, states)
    assert greedy(model, memory, PLAIN) == first


# ------------------------------------------------------------------------ a network that says what is written

HALF = math.log(0.5)


@dataclass
class ScriptedState:
    rows: torch.Tensor
    fed: torch.Tensor
    position: int = 0

    def select(self, rows):
        return ScriptedState(self.rows[rows], self.fed[rows], self.position)


class Scripted:
    """Says each row's script with probability 1/2 a token, and then EOS for ever; `held` counts its rows.

    It has the seams and nothing else, so decoders need nothing else. After what is not in the script it says
    that it does not know.
    """

    def __init__(self, *scripts, ctc=None):
        self.scripts, self.log_probs, self.held = scripts, ctc, []

    def memory(self, *lengths):
        states = torch.zeros(len(lengths), max(lengths), 1)
        states[:, 0, 0] = torch.arange(len(lengths))
        return Memory(states, torch.tensor(lengths))

    def start(self, memory, capacity):
        rows = memory.states[:, 0, 0].long()
        return ScriptedState(rows, torch.zeros(len(rows), capacity, dtype=torch.long))

    def step(self, tokens, state):
        starts = torch.full_like(state.rows, state.position)
        state.position += 1
        return self.forward_cached(tokens.unsqueeze(1), state, starts).squeeze(1)

    def forward_cached(self, tokens, state, starts):
        self.held.append(len(state.rows))
        log_probs = torch.full((*tokens.shape, VOCABULARY), math.log(0.5 / (VOCABULARY - 1)))
        for row, (index, start) in enumerate(zip(state.rows.tolist(), starts.tolist(), strict=True)):
            line = (BOS, *self.scripts[index], *[EOS] * 99)
            for place, token in enumerate(tokens[row].tolist(), start):
                state.fed[row, place] = token
                known = tuple(state.fed[row, : place + 1].tolist()) == line[: place + 1]
                log_probs[row, place - start, line[place + 1] if known else UNK] = HALF
        return log_probs

    def ctc(self, memory):
        return self.log_probs


ENDLESS = tuple(5 + i.bit_count() % 2 for i in range(1000))  # goes on and on, but not in circles


def test_tokens_scores_and_ends():
    model = Scripted((5, 6, 7), (), ENDLESS, (8,) * 12)
    found = greedy(model, model.memory(20, 9, 4, 4), PLAIN)
    assert [h.tokens for h in found] == [(5, 6, 7), (), ENDLESS[:12], (8,) * 12]
    assert [h.finished for h in found] == [True, True, False, True]  # EOS right at the bound of 4 + 8 counts
    assert [h.log_prob for h in found] == pytest.approx([4 * HALF, HALF, 12 * HALF, 13 * HALF])
    assert [h.confidence for h in found] == pytest.approx([0.5] * 4)


def test_an_option_bounds_the_tokens():
    model = Scripted((5, 6, 7), ENDLESS, (5,) * 4)
    found = greedy(model, model.memory(90, 90, 90), DecodingOptions(max_tokens=3))
    assert [len(h.tokens) for h in found] == [3, 3, 3]
    assert [h.finished for h in found] == [True, False, False]
    assert [h.log_prob for h in found] == pytest.approx([4 * HALF, 3 * HALF, 3 * HALF])
    assert len(model.held) == 4
    for wrong in (0, -1):
        with pytest.raises(AsrError, match="max_tokens"):
            DecodingOptions(max_tokens=wrong)


def paths(*rows):
    """CTC log-probabilities (B, S, V) with these best paths."""
    size = max(map(len, rows))
    best = torch.tensor([[*row, *[5] * (size - len(row))] for row in rows])  # padding that is not blank
    return torch.nn.functional.one_hot(best, VOCABULARY).float().log_softmax(-1)


def test_the_ctc_path_bounds_the_tokens_too():
    blank, a, b = PAD, 5, 6
    rows = [[blank] * 50, [a] * 50, [a, b] * 10 + [blank] * 30, [a, blank, a] + [blank] * 47]
    model = Scripted(*[ENDLESS] * 4, ctc=paths(*rows))
    found = greedy(model, model.memory(50, 50, 50, 50), PLAIN)
    assert [len(h.tokens) for h in found] == [8, 2 + 8, 40 + 8, 4 + 8]
    assert not any(h.finished for h in found)
    found = greedy(model, model.memory(50, 50, 50, 50), DecodingOptions(max_tokens=11))
    assert [len(h.tokens) for h in found] == [8, 10, 11, 11]


@given(st.lists(st.lists(st.sampled_from([PAD, 5, 6]), min_size=1, max_size=12), min_size=1, max_size=4))
def test_the_length_of_a_ctc_path(rows):
    expected = [sum(token != PAD for token, _ in itertools.groupby(row)) for row in rows]
    assert ctc_lengths(paths(*rows), torch.tensor([len(row) for row in rows])).tolist() == expected


def test_pad_and_begin_are_never_said_but_unk_may_be():
    model = Scripted((8,), (8,), (UNK,))
    original = model.forward_cached

    def forward_cached(tokens, state, starts):
        log_probs = original(tokens, state, starts)
        log_probs[0, :, PAD] = log_probs[1, :, BOS] = math.log(0.9)
        return log_probs

    model.forward_cached = forward_cached
    found = greedy(model, model.memory(9, 9, 9), PLAIN)
    assert [h.tokens for h in found] == [(8,), (8,), (UNK,)]
    assert [h.log_prob for h in found] == pytest.approx([2 * HALF] * 3)


def test_finished_rows_leave_the_batch_and_the_last_one_ends_it():
    scripts = [(5 + i % 3,) * i for i in range(16)]
    model = Scripted(*scripts)
    found = greedy(model, model.memory(*[20] * 16), PLAIN)
    assert [h.tokens for h in found] == scripts and all(h.finished for h in found)
    assert len(model.held) == 16  # 15 tokens and EOS
    speaking = [sum(len(script) >= position for script in scripts) for position in range(16)]
    assert model.held[0] == 16 and model.held == sorted(model.held, reverse=True)
    assert all(live <= held <= live / 0.75 + 1 for live, held in zip(speaking, model.held, strict=True))


def test_an_empty_batch_needs_no_network():
    assert greedy(None, Memory(torch.zeros(0, 5, 16), torch.zeros(0, dtype=torch.long)), PLAIN) == []


def test_confidence_of_nothing_said_and_nothing_finished():
    assert Hypothesis((), 0.0, FinishReason.length).confidence == 1.0
    assert Hypothesis((5, 6), 3 * HALF, FinishReason.end).confidence == pytest.approx(0.5)
    assert Hypothesis((5, 6), 2 * HALF, FinishReason.length).confidence == pytest.approx(0.5)


def test_a_weight_for_ctc_is_refused_where_there_is_no_ctc():
    model = network(0, ctc=False)
    with pytest.raises(AsrError, match="no CTC head"):
        greedy(model, model.encode(*batch([30])), DecodingOptions(ctc_weight=0.3))
    with pytest.raises(AsrError, match="ctc_weight"):
        DecodingOptions(ctc_weight=1.5)


def test_ctc_mends_what_attention_says_twice():
    """A decoder that cannot stop repeating itself, and a CTC head that heard the character once."""

    class Stutter(EncoderDecoder):
        def step(self, tokens, state):
            return self.forward_cached(tokens.unsqueeze(1), state, None).squeeze(1)

        def forward_cached(self, tokens, state, starts):
            log_probs = torch.full((*tokens.shape, VOCABULARY), -9.0)
            log_probs[..., 5], log_probs[..., EOS] = -0.6, -0.8
            return log_probs

        def ctc(self, memory):
            log_probs = torch.full((len(memory.lengths), memory.states.size(1), VOCABULARY), -9.0)
            log_probs[..., PAD] = -0.01
            log_probs[:, 3, 5], log_probs[:, 3, PAD] = -0.01, -9.0
            return log_probs

    model = Stutter(network_config(), MELS, VOCABULARY).eval()
    memory = model.encode(*batch([60]))
    assert len(greedy(model, memory, PLAIN)[0].tokens) > 5
    assert greedy(model, memory, JOINT)[0].tokens == (5,)
