"""Beam search: equal to greedy, to the plain kind and to trying all texts; alone, in a batch, and in time."""

import math

import pytest
import torch
from helpers import sections
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions, FinishReason, beam_search, greedy
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.hot_words import HotWords
from asr.decoding.max_lengths import compute_max_lengths
from asr.decoding.repetition import cut_repetitions
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import Memory
from asr.tokenizers import BOS, EOS, PAD, CharacterTokenizer

MELS = 12
TOKENIZER = CharacterTokenizer(tuple(" ab"))
V = len(TOKENIZER)
LENGTHS = [3, 130, 40, 17, 90, 64, 1, 110]  # frames


def batch(lengths=LENGTHS, padding=0):
    features = torch.zeros(len(lengths), max(lengths) + padding, MELS)
    for row, length in zip(features, lengths, strict=True):
        row[:length] = torch.randn(length, MELS, generator=torch.Generator().manual_seed(length))
    return features.double(), torch.tensor(lengths)


def network(seed, **sizes):
    """A small network with opinions, in float64: no two texts are equally probable by rounding."""
    small = dict(d_model=16, n_heads=2, d_ffn=24, encoder_layers=1, decoder_layers=2, conv_channels=3)
    torch.manual_seed(seed)
    model = Exact(EncoderDecoder.Config.model_validate(sections(**small | sizes)), MELS, V)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter) * (parameter.dim() == 1)
        parameter.data *= 1.6 if parameter.dim() > 1 else 1
    model.decoder.out.weight.data *= 2
    return model.double().eval()


class Exact(EncoderDecoder):
    """A network without the rounding to float32."""

    def _step(self, tokens, state):
        return self.decoder.step(tokens, state).log_softmax(-1)

    def _ctc(self, memory):
        return self.ctc_head(memory.states).log_softmax(-1)


@torch.no_grad()
def joint(model, memory, token_log_probs, options, words):
    """What each token would add to the score of a text, and the decoder's part of it; nothing is cached."""
    own = model.decode(torch.tensor([[BOS, *token_log_probs]]), memory)[0, -1].log_softmax(-1)  # (V,)
    own[[PAD, BOS]] = -torch.inf
    weight = options.weight_of_ctc(hasattr(model, "ctc"))
    scorers = [(w.weight, w.start(1, 0)) for w in words]
    if weight:
        scorers.append((weight, CTCPrefixScorer(model.ctc(memory), memory.lengths)))
    total = (1 - weight) * own
    for share, scorer in scorers:
        for token in token_log_probs:
            scorer.advance(torch.tensor([token]))
        total = total + share * scorer.score(torch.arange(V).unsqueeze(0))[0]
    return total, own


def every_text(model, memory, bound, options, words):
    """All texts up to the bound: (score, tokens, finish_reason), best first."""
    found, alpha = [], options.length_normalization or 0.0
    live = [((), 0.0)]
    for size in range(bound + 1):
        longer = []
        for token_log_probs, score in live:
            added, _ = joint(model, memory, token_log_probs, options, words)
            ends = [(float(score + added[EOS]), FinishReason.end)]
            others = [((*token_log_probs, t), float(score + added[t])) for t in range(3, V)]
            if size == bound:
                ends = [max(*ends, (max(s for _, s in others), FinishReason.length))]
            found += [(s / (size + 1) ** alpha, token_log_probs, finish_reason) for s, finish_reason in ends]
            longer += others
        live = longer
    return sorted(found, reverse=True)


def plain_beam(model, memory, bound, options, words):
    """Over one utterance with lists, the whole vocabulary, no caches, and no end before the bound."""
    live, found, alpha = [((), 0.0, 0.0)], [], options.length_normalization or 0.0
    for size in range(bound + 1):
        extended = []
        for token_log_probs, score, log_prob in live:
            added, own = joint(model, memory, token_log_probs, options, words)
            extended += [
                (float(score + added[t]), token_log_probs, t, float(log_prob + own[t]), log_prob)
                for t in range(2, V)
            ]
        kept = sorted(extended, reverse=True)[: options.beam_size]
        live, left = [], set()
        for score, token_log_probs, token, log_prob, before in kept:
            if token != EOS and size < bound:
                live.append(((*token_log_probs, token), score, log_prob))
            elif token_log_probs not in left:
                left.add(token_log_probs)
                finish_reason, log_prob = (
                    (FinishReason.end, log_prob) if token == EOS else (FinishReason.length, before)
                )
                found.append((score / (size + 1) ** alpha, token_log_probs, finish_reason, log_prob))
    return sorted(found, reverse=True)[: options.n_best or 1]


def alone(model, memory, row):
    own = memory.select(torch.tensor([row]))
    return Memory(own.states[:, : int(own.lengths)], own.lengths)


def same(found, expected):
    assert [[(h.tokens, h.finish_reason) for h in hs] for hs in found] == [
        [(h.tokens, h.finish_reason) for h in hs] for hs in expected
    ]
    for name in ("score", "log_prob"):
        numbers = [[getattr(h, name) for hs in each for h in hs] for each in (found, expected)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)


networks = st.builds(network, st.integers(0, 10**6), ctc=st.booleans())
hot = st.lists(st.sampled_from(["a", "ab", "b a", "bb", "aab"]), max_size=2, unique=True)


# ---------------------------------------------------------------------------------------------- what it finds


@settings(max_examples=30)
@given(networks, hot, st.sampled_from([None, 0.0, 0.5, 1.0, 2.0]), st.integers(1, 4), st.integers(1, 80))
def test_with_room_for_all_it_finds_the_best_of_all_texts(model, phrases, alpha, bound, frames):
    options = DecodingOptions(
        decoder="beam", beam=600, n_best=4, candidates=V, max_tokens=bound, length_normalization=alpha
    )
    words = [HotWords(phrases, TOKENIZER, 0.8)] if phrases else []
    memory = model.encode(*batch([frames]))
    (found,) = beam_search(model, memory, options, words)
    expected = every_text(model, memory, bound, options, words)[:4]
    assert [h.tokens for h in found] == [tokens for _, tokens, _ in expected]
    assert [h.finish_reason for h in found] == [finish_reason for _, _, finish_reason in expected]
    assert [h.score for h in found] == pytest.approx([score for score, _, _ in expected], abs=1e-4)


@settings(max_examples=15)
@given(networks, hot, st.sampled_from([None, 1.0]), st.integers(1, 5), st.integers(1, 7))
def test_it_equals_the_plain_kind_without_batch_caches_candidates_or_early_end(
    model, phrases, alpha, beam, bound
):
    options = DecodingOptions(
        decoder="beam", beam=beam, n_best=min(beam, 3), candidates=V, max_tokens=bound,
        length_normalization=alpha,
    )  # fmt: skip
    words = [HotWords(phrases, TOKENIZER, 0.8)] if phrases else []
    memory = model.encode(*batch([70, 9, 33]))
    max_lengths = compute_max_lengths(memory, model.ctc(memory), options).tolist()
    for row, found in enumerate(beam_search(model, memory, options, words)):
        expected = plain_beam(model, alone(model, memory, row), max_lengths[row], options, words)
        assert [(h.tokens, h.finish_reason) for h in found] == [
            (tokens, finish_reason) for _, tokens, finish_reason, _ in expected
        ]
        assert [h.score for h in found] == pytest.approx([e[0] for e in expected], abs=1e-4)
        assert [h.log_prob for h in found] == pytest.approx([e[3] for e in expected], abs=1e-4)


@settings(max_examples=25)
@given(networks, st.sampled_from([None, 0.0]), st.sampled_from([None, 3]), st.sampled_from([0.0, 1.0]))
def test_a_beam_of_one_is_greedy(model, weight, candidates, alpha):
    memory = model.encode(*batch())
    candidates = None if weight == 0 else candidates
    plain = DecodingOptions(ctc_weight=weight, candidates=candidates)
    options = DecodingOptions(
        decoder="beam", beam=1, ctc_weight=weight, candidates=candidates, length_normalization=alpha
    )
    expected = cut_repetitions(model, memory, [[h] for h in greedy(model, memory, plain)])
    for (found,), (wanted,) in zip(beam_search(model, memory, options), expected, strict=True):
        assert (found.tokens, found.finish_reason) == (wanted.tokens, wanted.finish_reason)
        assert found.log_prob == pytest.approx(wanted.log_prob, abs=1e-4)


@settings(max_examples=8)
@given(networks, hot)
def test_alone_in_a_batch_and_with_more_padding_it_is_the_same(model, phrases):
    options = DecodingOptions(decoder="beam", beam=4, n_best=3)
    words = [HotWords(phrases, TOKENIZER, 0.5)]
    single = [beam_search(model, model.encode(*batch([n])), options, words)[0] for n in LENGTHS]
    same(beam_search(model, model.encode(*batch()), options, words), single)
    same(beam_search(model, model.encode(*batch(padding=90)), options, words), single)
    same(beam_search(model, model.encode(*batch(LENGTHS[::-1])), options, words), single[::-1])


def test_a_hot_word_is_found_that_was_not():
    model = network(3)
    memory = model.encode(*batch([60]))
    options = DecodingOptions(decoder="beam", beam=6)
    word = [HotWords(["abba"], TOKENIZER, 6.0)]
    (without,), (with_it,) = (beam_search(model, memory, options, words)[0] for words in ([], word))
    abba = TOKENIZER.encode("abba")
    assert "abba" not in TOKENIZER.decode(without.tokens) and "abba" in TOKENIZER.decode(with_it.tokens)
    assert list(with_it.tokens).count(abba[0]) >= 2


# ------------------------------------------------------------------------ a network that says what it is told


class Told:
    """Next tokens by a rule (decoded, row) -> {token: probability}; what is left goes to no token at all.

    `steps` are the numbers of rows of each step.
    """

    def __init__(self, rule):
        self.rule, self.steps = rule, []

    def memory(self, *lengths):
        return Memory(
            torch.arange(len(lengths)).view(-1, 1, 1).expand(-1, max(lengths), 1), torch.tensor(lengths)
        )

    def ctc(self, memory):
        return None

    def start(self, memory, capacity):
        return ToldState(memory.states[:, 0, 0].tolist(), [()] * len(memory.lengths))

    def step(self, tokens, state):
        self.steps.append(len(tokens))
        state.token_log_probs = [
            (*token_log_probs, int(t))
            for token_log_probs, t in zip(state.token_log_probs, tokens, strict=True)
        ]
        log_probs = torch.full((len(tokens), V), -math.inf)
        width = len(tokens) // len(state.rows)
        for row, token_log_probs in enumerate(state.token_log_probs):
            for token, probability in self.rule(token_log_probs[1:], state.rows[row // width]).items():
                log_probs[row, token] = math.log(probability)
        return log_probs

    def decode(self, tokens, memory):
        logits = torch.full((*tokens.shape, V), -math.inf)
        for u in range(tokens.size(1)):
            token_log_probs = tuple(tokens[0, 1 : u + 1].tolist())
            for token, probability in self.rule(token_log_probs, int(memory.states[0, 0, 0])).items():
                logits[0, u, token] = math.log(probability)
        return logits


class ToldState:
    def __init__(self, rows, token_log_probs):
        self.rows, self.token_log_probs = rows, token_log_probs

    def select(self, rows):
        width = len(self.token_log_probs) // len(self.rows)
        chosen = rows.tolist()
        token_log_probs = [self.token_log_probs[r * width + i] for r in chosen for i in range(width)]
        return ToldState([self.rows[r] for r in chosen], token_log_probs)

    def reorder(self, parents):
        width = len(self.token_log_probs) // len(self.rows)
        token_log_probs = [
            self.token_log_probs[row * width + p] for row, own in enumerate(parents.tolist()) for p in own
        ]
        return ToldState(self.rows, token_log_probs)


A, B = 5, 6


def test_it_sees_beyond_a_better_beginning():
    def rule(token_log_probs, row):
        if not token_log_probs:
            return {A: 0.55, B: 0.45}
        return {EOS: 0.9 if token_log_probs[0] == B else 0.3, A: 0.1 if token_log_probs[0] == B else 0.7}

    model = Told(rule)
    assert greedy(model, model.memory(9), DecodingOptions())[0].tokens[0] == A
    best, second = beam_search(model, model.memory(9), DecodingOptions(decoder="beam", beam=3, n_best=2))[0]
    assert best.tokens == (B,) and best.score == best.log_prob == pytest.approx(math.log(0.45 * 0.9))
    assert second.score <= best.score


def test_it_ends_as_soon_as_nothing_can_win():
    """After three tokens EOS has 0.9: what goes on has a tenth of that at most, and is left alone."""

    def rule(token_log_probs, row):
        return {A: 0.96, B: 0.02, EOS: 0.02} if len(token_log_probs) < 3 else {A: 0.1, EOS: 0.9}

    model = Told(rule)
    (best,) = beam_search(model, model.memory(50), DecodingOptions(decoder="beam", beam=5))[0]
    assert best.tokens == (A, A, A) and len(model.steps) == 4
    (_, *others) = beam_search(model, model.memory(50), DecodingOptions(decoder="beam", beam=5, n_best=3))[0]
    assert len(others) == 2 and 4 < len(model.steps) < 20


def test_utterances_that_are_done_leave_the_batch():
    model = Told(
        lambda token_log_probs, row: (
            {A: 0.99, EOS: 0.01} if len(token_log_probs) < 3 * row else {EOS: 0.99, A: 0.01}
        )
    )
    found = beam_search(model, model.memory(*[40] * 8), DecodingOptions(decoder="beam", beam=2))
    assert [h.tokens for (h,) in found] == [(A,) * (3 * row) for row in range(8)]
    assert model.steps[0] == 8 and model.steps[1] == 16 and model.steps[-1] == 2
    assert sorted(model.steps[1:], reverse=True) == model.steps[1:]


def test_a_bound_cuts_off_and_the_result_says_so():
    def rule(token_log_probs, row):
        return {A: 0.6, B: 0.3, EOS: 0.1} if row else {A: 0.3, EOS: 0.7}

    model = Told(rule)
    options = DecodingOptions(decoder="beam", beam=4, n_best=2, max_tokens=3)
    ended, cut = beam_search(model, model.memory(9, 9), options)
    assert (ended[0].tokens, ended[0].finish_reason) == ((), FinishReason.end)
    by_text = {h.tokens: h for h in cut}
    assert by_text[(A, A, A)].finish_reason is FinishReason.length
    assert by_text[(A, A, A)].log_prob == pytest.approx(3 * math.log(0.6))
    assert by_text[(A, A, A)].score == pytest.approx(
        4 * math.log(0.6)
    )  # with the character that was too many


def test_what_goes_round_comes_last_and_is_cut_off_after_the_first_round():
    def rule(token_log_probs, row):
        if token_log_probs[:1] == (B,):
            return {EOS: 1.0}
        return {(A, B, 4)[len(token_log_probs) % 3]: 1.0} if token_log_probs else {A: 0.9, B: 0.1}

    model = Told(rule)
    options = DecodingOptions(decoder="beam", beam=3, n_best=3)
    best, last = beam_search(model, model.memory(200, 200), options)[1]
    assert (best.tokens, best.finish_reason) == ((B,), FinishReason.end)
    assert (last.tokens, last.finish_reason) == (
        (A, B, 4),
        FinishReason.repetition,
    ) and last.score > best.score
    (only,) = beam_search(model, model.memory(200, 200), DecodingOptions(decoder="beam", beam=1))[0]
    assert (only.tokens, only.finish_reason) == ((A, B, 4), FinishReason.repetition)
    assert only.log_prob == pytest.approx(math.log(0.9))


def test_silence_is_empty_text_and_an_empty_batch_is_nothing():
    model = Told(lambda token_log_probs, row: {EOS: 0.99, A: 0.01})
    (best,) = beam_search(model, model.memory(30), DecodingOptions(decoder="beam"))[0]
    assert (best.tokens, best.finish_reason) == ((), FinishReason.end) and best.confidence == pytest.approx(
        0.99
    )
    assert (
        beam_search(model, Memory(torch.zeros(0, 5, 16), torch.zeros(0, dtype=torch.long)), options=None)
        == []
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_is_the_same():
    model, options = network(5), DecodingOptions(decoder="beam", beam=4, n_best=3)
    words = {device: [HotWords(["ab"], TOKENIZER, 0.5, device)] for device in ("cpu", "cuda")}
    expected = beam_search(model, model.encode(*batch()), options, words["cpu"])
    features, lengths = batch()
    model.cuda()
    memory = model.encode(features.cuda(), lengths.cuda())
    same(beam_search(model, memory, options, words["cuda"]), expected)
