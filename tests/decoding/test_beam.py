"""Beam search: equal to greedy, to naive beam search and to exhaustive search, in any batch."""

import math
from dataclasses import replace

import pytest
import torch
from decoding_networks import StepOnly, random_processor
from helpers import sections
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions, FinishReason, beam_search, greedy
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.hot_words import HotWords
from asr.decoding.max_lengths import compute_max_lengths
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import Memory
from asr.tokenizers import CharacterTokenizer

MELS = 12
TOKENIZER = CharacterTokenizer(tuple(" ab"))
V = len(TOKENIZER)
SPECIAL = TOKENIZER.special
EOS = SPECIAL.eos
# A prompt of three tokens, and a blank that is not the padding.
LONG_PROMPT = replace(SPECIAL, prompt=(5, 1, 4), blank=3, suppressed=(0, 1, 3))
LENGTHS = [3, 130, 40, 17, 90, 64, 1, 110]  # frames


def batch(lengths=LENGTHS, padding=0):
    features = torch.zeros(len(lengths), max(lengths) + padding, MELS)
    for row, length in zip(features, lengths, strict=True):
        row[:length] = torch.randn(length, MELS, generator=torch.Generator().manual_seed(length))
    return features.double(), torch.tensor(lengths)


def network(seed, **sizes):
    """A small network with confident predictions, in float64: rounding makes no two hypotheses equal."""
    small = dict(d_model=16, n_heads=2, d_ffn=24, encoder_layers=1, decoder_layers=2, conv_channels=3)
    torch.manual_seed(seed)
    model = Exact(EncoderDecoder.Config.model_validate(sections(**(small | sizes))), MELS, V)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter) * (parameter.dim() == 1)
        parameter.data *= 1.6 if parameter.dim() > 1 else 1
    model.decoder.out.weight.data *= 2
    return model.double().eval()


class Exact(EncoderDecoder):
    """A network without rounding to float32."""

    def _step(self, tokens, state):
        return self.decoder.step(tokens, state).log_softmax(-1)

    def _ctc(self, memory):
        return self.ctc_head(memory.states).log_softmax(-1)


@torch.no_grad()
def joint(model, memory, special, tokens, options, words, processors=()):
    """What each token would add to the score of a hypothesis, and the decoder's part of it. No caches."""
    prefix = torch.tensor([[*special.prompt, *tokens]])
    own = model.decode(prefix, memory)[:, -1].log_softmax(-1)  # (1, V)
    for processor in processors:
        own = processor(prefix, own)
    own = own[0]
    own[list(special.suppressed)] = -torch.inf
    weight = options.weight_of_ctc(hasattr(model, "ctc"))
    scorers = [(w.weight, w.start(1, 0)) for w in words]
    if weight:
        scorers.append((weight, CTCPrefixScorer(model.ctc(memory), memory.lengths, special)))
    total = (1 - weight) * own
    for share, scorer in scorers:
        for token in tokens:
            scorer.advance(torch.tensor([token]))
        total = total + share * scorer.score(torch.arange(V).unsqueeze(0))[0]
    return total, own


def exhaustive_search(model, memory, special, max_length, options, words):
    """All hypotheses up to the maximum length: (score, tokens, finish_reason), best first."""
    found, alpha = [], options.length_normalization or 0.0
    live = [((), 0.0)]
    for size in range(max_length + 1):
        longer = []
        for tokens, score in live:
            added, _ = joint(model, memory, special, tokens, options, words)
            ends = [(float(score + added[special.eos]), FinishReason.end)]
            usable = [t for t in range(V) if t != special.eos and t not in special.suppressed]
            others = [((*tokens, t), float(score + added[t])) for t in usable]
            if size == max_length:
                ends = [max(*ends, (max(s for _, s in others), FinishReason.length))]
            found += [(s / (size + 1) ** alpha, tokens, reason) for s, reason in ends]
            longer += others
        live = longer
    return sorted(found, reverse=True)


def naive_beam(model, memory, special, max_length, options, words, processors=()):
    """One utterance, with lists, the whole vocabulary, no caches, and no end before the maximum length."""
    live, found, alpha = [((), 0.0, 0.0)], [], options.length_normalization or 0.0
    for size in range(max_length + 1):
        extended = []
        for tokens, score, log_prob in live:
            added, own = joint(model, memory, special, tokens, options, words, processors)
            extended += [
                (float(score + added[t]), tokens, t, float(log_prob + own[t]), log_prob)
                for t in range(V)
                if t not in special.suppressed and own[t] > -torch.inf
            ]
        kept = sorted(extended, reverse=True)[: options.beam_size]
        live, parents = [], set()
        for score, tokens, token, log_prob, before in kept:
            if token != special.eos and size < max_length:
                live.append(((*tokens, token), score, log_prob))
            elif tokens not in parents:
                parents.add(tokens)
                ended = token == special.eos
                reason, log_prob = (FinishReason.end, log_prob) if ended else (FinishReason.length, before)
                found.append((score / (size + 1) ** alpha, tokens, reason, log_prob))
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


# ------------------------------------------------------------------------------------------ what it finds


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


# -------------------------------------------------------------------- a network that predicts by a rule


class Ruled:
    """Next tokens by a rule (tokens, row) -> {token: probability}. Other tokens have the probability 0.

    `steps` are the numbers of rows of each step.
    """

    def __init__(self, rule):
        self.rule, self.steps = rule, []

    def memory(self, *lengths):
        states = torch.arange(len(lengths)).view(-1, 1, 1).expand(-1, max(lengths), 1)
        return Memory(states, torch.tensor(lengths))

    def start(self, memory, capacity):
        return RuledState(memory.states[:, 0, 0].tolist(), [()] * len(memory.lengths))

    def step(self, tokens, state):
        self.steps.append(len(tokens))
        state.inputs = [(*inputs, int(t)) for inputs, t in zip(state.inputs, tokens, strict=True)]
        log_probs = torch.full((len(tokens), V), -math.inf)
        width = len(tokens) // len(state.rows)
        for row, inputs in enumerate(state.inputs):
            for token, probability in self.rule(inputs[1:], state.rows[row // width]).items():
                log_probs[row, token] = math.log(probability)
        return log_probs

    def decode(self, tokens, memory):
        logits = torch.full((*tokens.shape, V), -math.inf)
        for u in range(tokens.size(1)):
            prefix = tuple(tokens[0, 1 : u + 1].tolist())
            for token, probability in self.rule(prefix, int(memory.states[0, 0, 0])).items():
                logits[0, u, token] = math.log(probability)
        return logits


class RuledState:
    def __init__(self, rows, inputs):
        self.rows, self.inputs = rows, inputs

    def select(self, rows):
        width = len(self.inputs) // len(self.rows)
        chosen = rows.tolist()
        inputs = [self.inputs[r * width + i] for r in chosen for i in range(width)]
        return RuledState([self.rows[r] for r in chosen], inputs)

    def reorder(self, parents):
        width = len(self.inputs) // len(self.rows)
        inputs = [self.inputs[row * width + p] for row, own in enumerate(parents.tolist()) for p in own]
        return RuledState(self.rows, inputs)


A, B = 5, 6


class Endless(Ruled):
    """Never ends and never repeats itself; the output of its CTC head is empty."""

    def __init__(self):
        super().__init__(lambda tokens, row: {A + len(tokens).bit_count() % 2: 1.0})

    def ctc(self, memory):
        log_probs = torch.full((1, memory.states.size(1), V), math.log(0.1))
        log_probs[..., SPECIAL.blank] = math.log(0.4)
        return log_probs


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
