"""Beam search: equal to greedy, to the plain kind and to trying all texts; alone, in a batch, and in time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.config import ModelConfig
from asr.decoding import DecodingOptions, Ending, beam_search, greedy
from asr.decoding.bounds import max_tokens
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.hot_words import HotWords
from asr.decoding.repetition import cut_repetitions
from asr.model import Memory, Transformer
from asr.tokenizer import BEGIN, END, PAD, Tokenizer

MELS = 12
TOKENIZER = Tokenizer(tuple(" ab"))
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
    model = Exact(ModelConfig.model_validate(small | sizes), MELS, V)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter) * (parameter.dim() == 1)
        parameter.data *= 1.6 if parameter.dim() > 1 else 1
    model.decoder.out.weight.data *= 2
    return model.double().eval()


class Exact(Transformer):
    """A network without the rounding to float32."""

    def step(self, tokens, state):
        return self.decoder.step(tokens, state).log_softmax(-1)

    def ctc(self, memory):
        return None if self.ctc_head is None else self.ctc_head(memory.states).log_softmax(-1)


@torch.no_grad()
def joint(model, memory, said, options, words):
    """What each token would add to the score of a text, and the decoder's part of it; nothing is cached."""
    own = model.decode(torch.tensor([[BEGIN, *said]]), memory)[0, -1].log_softmax(-1)  # (V,)
    own[[PAD, BEGIN]] = -torch.inf
    weight = options.weight_of_ctc(model.ctc_head is not None)
    scorers = [(w.weight, w.start(1, 0)) for w in words]
    if weight:
        scorers.append((weight, CTCPrefixScorer(model.ctc(memory), memory.lengths)))
    total = (1 - weight) * own
    for share, scorer in scorers:
        for token in said:
            scorer.advance(torch.tensor([token]))
        total = total + share * scorer.score(torch.arange(V).unsqueeze(0))[0]
    return total, own


def every_text(model, memory, bound, options, words):
    """All texts up to the bound: (score, tokens, ending), best first."""
    found, alpha = [], options.length_normalisation or 0.0
    live = [((), 0.0)]
    for size in range(bound + 1):
        longer = []
        for said, score in live:
            added, _ = joint(model, memory, said, options, words)
            ends = [(float(score + added[END]), Ending.end)]
            others = [((*said, t), float(score + added[t])) for t in range(3, V)]
            if size == bound:
                ends = [max(*ends, (max(s for _, s in others), Ending.length))]
            found += [(s / (size + 1) ** alpha, said, ending) for s, ending in ends]
            longer += others
        live = longer
    return sorted(found, reverse=True)


def plain_beam(model, memory, bound, options, words):
    """Over one utterance with lists, the whole vocabulary, no caches, and no end before the bound."""
    live, found, alpha = [((), 0.0, 0.0)], [], options.length_normalisation or 0.0
    for size in range(bound + 1):
        extended = []
        for said, score, log_prob in live:
            added, own = joint(model, memory, said, options, words)
            extended += [
                (float(score + added[t]), said, t, float(log_prob + own[t]), log_prob) for t in range(2, V)
            ]
        kept = sorted(extended, reverse=True)[: options.beam_size]
        live, left = [], set()
        for score, said, token, log_prob, before in kept:
            if token != END and size < bound:
                live.append(((*said, token), score, log_prob))
            elif said not in left:
                left.add(said)
                ending, log_prob = (Ending.end, log_prob) if token == END else (Ending.length, before)
                found.append((score / (size + 1) ** alpha, said, ending, log_prob))
    return sorted(found, reverse=True)[: options.n_best or 1]


def alone(model, memory, row):
    own = memory.select(torch.tensor([row]))
    return Memory(own.states[:, : int(own.lengths)], own.lengths)


def same(found, expected):
    assert [[(h.tokens, h.ending) for h in hs] for hs in found] == [
        [(h.tokens, h.ending) for h in hs] for hs in expected
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
        decoder="beam", beam=600, n_best=4, candidates=V, max_tokens=bound, length_normalisation=alpha
    )
    words = [HotWords(phrases, TOKENIZER, 0.8)] if phrases else []
    memory = model.encode(*batch([frames]))
    (found,) = beam_search(model, memory, options, words)
    expected = every_text(model, memory, bound, options, words)[:4]
    assert [h.tokens for h in found] == [tokens for _, tokens, _ in expected]
    assert [h.ending for h in found] == [ending for _, _, ending in expected]
    assert [h.score for h in found] == pytest.approx([score for score, _, _ in expected], abs=1e-4)


@settings(max_examples=15)
@given(networks, hot, st.sampled_from([None, 1.0]), st.integers(1, 5), st.integers(1, 7))
def test_it_equals_the_plain_kind_without_batch_caches_candidates_or_early_end(
    model, phrases, alpha, beam, bound
):
    options = DecodingOptions(
        decoder="beam", beam=beam, n_best=min(beam, 3), candidates=V, max_tokens=bound,
        length_normalisation=alpha,
    )  # fmt: skip
    words = [HotWords(phrases, TOKENIZER, 0.8)] if phrases else []
    memory = model.encode(*batch([70, 9, 33]))
    bounds = max_tokens(memory, model.ctc(memory), options).tolist()
    for row, found in enumerate(beam_search(model, memory, options, words)):
        expected = plain_beam(model, alone(model, memory, row), bounds[row], options, words)
        assert [(h.tokens, h.ending) for h in found] == [
            (tokens, ending) for _, tokens, ending, _ in expected
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
        decoder="beam", beam=1, ctc_weight=weight, candidates=candidates, length_normalisation=alpha
    )
    expected = cut_repetitions(model, memory, [[h] for h in greedy(model, memory, plain)])
    for (found,), (wanted,) in zip(beam_search(model, memory, options), expected, strict=True):
        assert (found.tokens, found.ending) == (wanted.tokens, wanted.ending)
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
    """Next tokens by a rule (said, row) -> {token: probability}; what is left goes to no token at all.

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
        state.said = [(*said, int(t)) for said, t in zip(state.said, tokens, strict=True)]
        log_probs = torch.full((len(tokens), V), -math.inf)
        width = len(tokens) // len(state.rows)
        for row, said in enumerate(state.said):
            for token, probability in self.rule(said[1:], state.rows[row // width]).items():
                log_probs[row, token] = math.log(probability)
        return log_probs

    def decode(self, tokens, memory):
        logits = torch.full((*tokens.shape, V), -math.inf)
        for u in range(tokens.size(1)):
            said = tuple(tokens[0, 1 : u + 1].tolist())
            for token, probability in self.rule(said, int(memory.states[0, 0, 0])).items():
                logits[0, u, token] = math.log(probability)
        return logits


class ToldState:
    def __init__(self, rows, said):
        self.rows, self.said = rows, said

    def select(self, rows):
        width = len(self.said) // len(self.rows)
        chosen = rows.tolist()
        said = [self.said[r * width + i] for r in chosen for i in range(width)]
        return ToldState([self.rows[r] for r in chosen], said)

    def branch(self, parents):
        width = len(self.said) // len(self.rows)
        said = [self.said[row * width + p] for row, own in enumerate(parents.tolist()) for p in own]
        return ToldState(self.rows, said)


A, B = 5, 6


def test_it_sees_beyond_a_better_beginning():
    def rule(said, row):
        if not said:
            return {A: 0.55, B: 0.45}
        return {END: 0.9 if said[0] == B else 0.3, A: 0.1 if said[0] == B else 0.7}

    model = Told(rule)
    assert greedy(model, model.memory(9), DecodingOptions())[0].tokens[0] == A
    best, second = beam_search(model, model.memory(9), DecodingOptions(decoder="beam", beam=3, n_best=2))[0]
    assert best.tokens == (B,) and best.score == best.log_prob == pytest.approx(math.log(0.45 * 0.9))
    assert second.score <= best.score


def test_it_ends_as_soon_as_nothing_can_win():
    """After three tokens END has 0.9: what goes on has a tenth of that at most, and is left alone."""

    def rule(said, row):
        return {A: 0.96, B: 0.02, END: 0.02} if len(said) < 3 else {A: 0.1, END: 0.9}

    model = Told(rule)
    (best,) = beam_search(model, model.memory(50), DecodingOptions(decoder="beam", beam=5))[0]
    assert best.tokens == (A, A, A) and len(model.steps) == 4
    (_, *others) = beam_search(model, model.memory(50), DecodingOptions(decoder="beam", beam=5, n_best=3))[0]
    assert len(others) == 2 and 4 < len(model.steps) < 20


def test_utterances_that_are_done_leave_the_batch():
    model = Told(lambda said, row: {A: 0.99, END: 0.01} if len(said) < 3 * row else {END: 0.99, A: 0.01})
    found = beam_search(model, model.memory(*[40] * 8), DecodingOptions(decoder="beam", beam=2))
    assert [h.tokens for (h,) in found] == [(A,) * (3 * row) for row in range(8)]
    assert model.steps[0] == 8 and model.steps[1] == 16 and model.steps[-1] == 2
    assert sorted(model.steps[1:], reverse=True) == model.steps[1:]


def test_a_bound_cuts_off_and_the_result_says_so():
    def rule(said, row):
        return {A: 0.6, B: 0.3, END: 0.1} if row else {A: 0.3, END: 0.7}

    model = Told(rule)
    options = DecodingOptions(decoder="beam", beam=4, n_best=2, max_tokens=3)
    ended, cut = beam_search(model, model.memory(9, 9), options)
    assert (ended[0].tokens, ended[0].ending) == ((), Ending.end)
    by_text = {h.tokens: h for h in cut}
    assert by_text[(A, A, A)].ending is Ending.length
    assert by_text[(A, A, A)].log_prob == pytest.approx(3 * math.log(0.6))
    assert by_text[(A, A, A)].score == pytest.approx(
        4 * math.log(0.6)
    )  # with the character that was too many


def test_what_goes_round_comes_last_and_is_cut_off_after_the_first_round():
    def rule(said, row):
        if said[:1] == (B,):
            return {END: 1.0}
        return {(A, B, 4)[len(said) % 3]: 1.0} if said else {A: 0.9, B: 0.1}

    model = Told(rule)
    options = DecodingOptions(decoder="beam", beam=3, n_best=3)
    best, last = beam_search(model, model.memory(200, 200), options)[1]
    assert (best.tokens, best.ending) == ((B,), Ending.end)
    assert (last.tokens, last.ending) == ((A, B, 4), Ending.repetition) and last.score > best.score
    (only,) = beam_search(model, model.memory(200, 200), DecodingOptions(decoder="beam", beam=1))[0]
    assert (only.tokens, only.ending) == ((A, B, 4), Ending.repetition)
    assert only.log_prob == pytest.approx(math.log(0.9))


def test_silence_is_empty_text_and_an_empty_batch_is_nothing():
    model = Told(lambda said, row: {END: 0.99, A: 0.01})
    (best,) = beam_search(model, model.memory(30), DecodingOptions(decoder="beam"))[0]
    assert (best.tokens, best.ending) == ((), Ending.end) and best.confidence == pytest.approx(0.99)
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
