"""Word n-gram models as scorers of characters, and in the beam search of CTC."""

import math
from itertools import groupby, product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from decoding_networks import ScriptedWithCTC

from asr.decoding import DecodingOptions, build_decoder
from asr.decoding import words as module
from asr.decoding.ctc import ctc_decode, merge_blanks
from asr.decoding.hot_words import HotWords
from asr.decoding.ngram import estimate_ngram, write_arpa
from asr.decoding.words import IMPOSSIBLE, WordModel
from asr.errors import AsrError
from asr.tokenizers import CharacterTokenizer

TOKENIZER = CharacterTokenizer.from_characters("abc '")
SPECIAL = TOKENIZER.special
LINES = ["a ab b", "ab ab c a", "cab b a", "ab b", "a", "c' c", "b ab b"]
NGRAMS = estimate_ngram(LINES * 2, 3, 6, (1, 1, 1, 1))
PLAIN = dict(word_bonus=0.0, unknown_penalty=0.0)
CHARACTERS = [TOKENIZER.encode(f"a{c}")[1] if c != " " else TOKENIZER.encode("a a")[1] for c in "abc' "]
SPACE = CHARACTERS[-1]


def score(factory, text):
    tokens = torch.tensor([TOKENIZER.encode(text)], dtype=torch.long).view(1, -1)
    return float(factory.score_texts(tokens, torch.tensor([tokens.size(1)])))


def random_texts(count, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abc' "), size=rng.integers(0, 12))) for _ in range(count)]


def test_continuations_sum_to_one_for_known_and_unknown_words():
    factory = WordModel(NGRAMS, TOKENIZER, 1.0, **PLAIN)
    for text in random_texts(60):
        tokens = TOKENIZER.encode(text)
        if not all(a != SPACE or b != SPACE for a, b in zip([SPACE, *tokens], tokens, strict=False)):
            continue
        scorer = factory.start(1, 20)
        for token in tokens:
            scorer.advance(torch.tensor([token]))
        shares = scorer.score(torch.tensor([[*CHARACTERS, SPECIAL.eos]])).exp()
        assert float(shares.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("text", ["ab b", "a", "cab", "c' c a ab", "b ab c a a"])
def test_a_text_of_known_words_has_the_probability_of_the_word_model(text):
    # A large penalty leaves no share to unknown words that are spelled like known ones.
    factory = WordModel(NGRAMS, TOKENIZER, 1.0, word_bonus=0.0, unknown_penalty=200.0)
    assert score(factory, text) == pytest.approx(NGRAMS.log_probs(text.split()).sum(), abs=1e-4)


def test_the_bonus_counts_words_and_the_penalty_unknown_ones():
    plain, bonus, penalty = (
        WordModel(NGRAMS, TOKENIZER, 0.5, *settings) for settings in ((0.0, 20.0), (0.7, 20.0), (0.0, 23.0))
    )
    for text, words, unknown in (("ab c' b", 3, 0), ("a bbb ab ccaa", 4, 2), ("", 0, 0)):
        assert 0.5 * score(bonus, text) == pytest.approx(0.5 * score(plain, text) + 0.7 * words, abs=1e-4)
        assert score(penalty, text) == pytest.approx(score(plain, text) - 3 * unknown, abs=1e-4)
    assert bonus.gain == pytest.approx(1.4) and plain.gain == 0


def test_a_partial_word_has_the_share_of_all_words_that_it_begins():
    factory = WordModel(NGRAMS, TOKENIZER, 1.0, word_bonus=0.0, unknown_penalty=200.0)
    scores = factory.start(1, 5).score(torch.tensor([CHARACTERS[:3]]))[0].exp()
    ids = np.arange(len(NGRAMS.words))
    probs = NGRAMS.probability(np.full(len(ids), NGRAMS.start), ids)
    for letter, share in zip("abc", scores.tolist(), strict=True):
        expected = sum(p for p, w in zip(probs, NGRAMS.words, strict=True) if w.startswith(letter))
        assert share == pytest.approx(expected, rel=1e-4)


def test_a_space_needs_a_word_before_it():
    factory = WordModel(NGRAMS, TOKENIZER, 1.0, **PLAIN)
    scorer = factory.start(1, 5)
    assert float(scorer.score(torch.tensor([[SPACE]]))) == IMPOSSIBLE
    assert float(scorer.score(torch.tensor([[SPECIAL.eos]]))) > IMPOSSIBLE  # an empty text
    scorer.advance(torch.tensor([CHARACTERS[0]]))
    scorer.advance(torch.tensor([SPACE]))
    assert scorer.score(torch.tensor([[SPACE, SPECIAL.eos]])).tolist() == [[IMPOSSIBLE, IMPOSSIBLE]]


def test_rows_are_independent_and_follow_a_reordering(monkeypatch):
    factory = WordModel(NGRAMS, TOKENIZER, 1.0)
    texts = [t for t in random_texts(40, seed=1) if t == " ".join(t.split())]
    alone = [score(factory, text) for text in texts]
    tables = factory.tables
    assert factory.start(1, 9) and factory.tables is tables
    monkeypatch.setattr(module, "MAX_STATES", 5)
    assert factory.start(1, 9) and factory.tables is not tables
    tokens = [torch.tensor(TOKENIZER.encode(text), dtype=torch.long) for text in texts]
    lengths = torch.tensor([len(each) for each in tokens])
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    assert factory.score_texts(padded, lengths).tolist() == pytest.approx(alone, abs=1e-5)
    scorer = factory.start(2, 9)
    factory.start(1, 9)
    scorer.advance(torch.tensor(CHARACTERS[:2]))
    candidates = torch.tensor([[*CHARACTERS, SPECIAL.eos]]).repeat(2, 1)
    first, second = scorer.score(candidates).tolist()
    reordered = scorer.select(torch.tensor([1, 0, 1]))
    assert reordered.score(candidates[[0, 0, 0]]).tolist() == [second, first, second]
    reordered.advance_some(torch.tensor([SPACE] * 3), torch.tensor([False, True, False]))
    found = reordered.score(candidates[[0, 0, 0]]).tolist()
    assert found[0] == found[2] == second and found[1] != first


def test_words_that_the_recognizer_cannot_write_are_refused():
    for tokenizer, message in (
        (CharacterTokenizer.from_characters("ABC '"), "lacks the letters of 100%"),
        (CharacterTokenizer.from_characters("abc'"), "must be a space and"),
    ):
        with pytest.raises(AsrError, match=message):
            WordModel(NGRAMS, tokenizer, 1.0)
    # A rare word with a foreign letter is no reason; it is never written.
    rare = estimate_ngram([*LINES * 30, "cäb"], 2, 20, (1, 1, 1, 1))
    assert not WordModel(rare, TOKENIZER, 1.0).tree.reachable.all()


def random_ctc(seed, states):
    torch.manual_seed(seed)
    log_probs = 2 * torch.randn(states, len(TOKENIZER), dtype=torch.float64)
    log_probs[:, [1, 2, 3]] = -torch.inf
    return log_probs.log_softmax(-1)


@pytest.mark.parametrize("seed", range(4))
def test_fusion_equals_brute_force_over_all_texts(seed):
    log_probs = random_ctc(seed, 4)
    expected: dict[tuple[int, ...], float] = {}
    for path in product([SPECIAL.blank, *CHARACTERS], repeat=4):
        tokens = tuple(token for token, _ in groupby(path) if token != SPECIAL.blank)
        p = math.exp(sum(float(log_probs[t, token]) for t, token in enumerate(path)))
        expected[tokens] = expected.get(tokens, 0.0) + p
    factories = [WordModel(NGRAMS, TOKENIZER, 0.6, 0.8), HotWords(["cab", "b"], TOKENIZER, 0.5)]
    rows = [torch.tensor(tokens, dtype=torch.long) for tokens in expected]
    padded, lengths = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([*map(len, rows)])
    further = sum(factory.weight * factory.score_texts(padded, lengths).double() for factory in factories)
    scores = dict(zip(expected, (further + torch.tensor([*expected.values()]).log()).tolist(), strict=True))
    model = ScriptedWithCTC(ctc=log_probs.unsqueeze(0))
    options = DecodingOptions("ctc", beam=1000, n_best=1000)
    (found,) = ctc_decode(model, model.memory(4), SPECIAL, options, factories)
    assert len(found) == len(scores)
    for h in found:
        assert h.score == pytest.approx(scores[h.tokens], abs=1e-3)
        assert h.log_prob == pytest.approx(math.log(expected[h.tokens]), abs=1e-4)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_fusion_in_a_batch_is_fusion_alone():
    factory = WordModel(NGRAMS, TOKENIZER, 0.6, 0.8)
    options = DecodingOptions("ctc", beam=5, n_best=5)
    ctc = torch.stack([random_ctc(seed, 9) for seed in range(5)])
    lengths = torch.tensor([9, 3, 0, 7, 1])
    model = ScriptedWithCTC(ctc=ctc)
    memory = model.memory(9).select(torch.zeros(5, dtype=torch.long))
    memory = type(memory)(memory.states, lengths)
    for row, together in enumerate(ctc_decode(model, memory, SPECIAL, options, [factory])):
        length = int(lengths[row])
        alone = ScriptedWithCTC(ctc=ctc[row : row + 1, : max(1, length)])
        single = type(memory)(memory.states[:1, : max(1, length)], lengths[row : row + 1])
        (expected,) = ctc_decode(alone, single, SPECIAL, options, [factory])
        assert [h.tokens for h in together] == [h.tokens for h in expected]
        assert [h.score for h in together] == pytest.approx([h.score for h in expected], abs=1e-4)


def test_words_repair_a_noisy_spelling():
    # Every letter of the true text is as probable as another one, except that the last is certain.
    text = "ab b c' c cab"
    log_probs = torch.full((2 * len(text), len(TOKENIZER)), -12.0)
    rng = np.random.default_rng(3)
    for i, token in enumerate(TOKENIZER.encode(text)):
        log_probs[2 * i, token] = math.log(0.45)
        log_probs[2 * i, rng.choice([t for t in CHARACTERS if t != token])] = math.log(0.5)
        log_probs[2 * i + 1, SPECIAL.blank] = 0.0
    model = ScriptedWithCTC(ctc=log_probs.log_softmax(-1).unsqueeze(0))
    memory = model.memory(len(log_probs))
    options = DecodingOptions("ctc", beam=30)
    ((without,),) = ctc_decode(model, memory, SPECIAL, options)
    ((found,),) = ctc_decode(model, memory, SPECIAL, options, [WordModel(NGRAMS, TOKENIZER, 1.0)])
    assert TOKENIZER.decode(without.tokens) != text
    assert not {*TOKENIZER.decode(without.tokens).split()} <= {*NGRAMS.words}
    assert {*TOKENIZER.decode(found.tokens).split()} <= {*NGRAMS.words}


def test_runs_of_sure_blanks_become_one():
    log_probs = torch.full((2, 6, 5), -20.0)
    for row, tokens in enumerate(("000100", "100001")):
        for state, token in enumerate(tokens):
            log_probs[row, state, 3 if token == "1" else SPECIAL.blank] = 0.0
    found, lengths = merge_blanks(log_probs, torch.tensor([6, 5]), SPECIAL)
    assert lengths.tolist() == [3, 2]
    assert found.argmax(-1)[0].tolist() == [0, 3, 0] and found.argmax(-1)[1, :2].tolist() == [3, 0]


@pytest.mark.parametrize("name", ["m.safetensors", "m.arpa.gz"])
def test_a_file_is_the_language_model_of_the_decoder(name, tmp_path):
    path = tmp_path / name
    NGRAMS.save(path) if name.endswith("safetensors") else write_arpa(NGRAMS, path)
    log_probs = random_ctc(5, 8)
    model = ScriptedWithCTC(ctc=log_probs.unsqueeze(0))
    bundle = SimpleNamespace(network=model, tokenizer=TOKENIZER, special=SPECIAL, device="cpu", metadata={})
    options = DecodingOptions("ctc", beam=8, language_model=str(path), language_model_weight=0.9)
    ((found,),) = build_decoder(bundle, options)(model.memory(8))
    factory = WordModel(NGRAMS, TOKENIZER, 0.9)
    ((expected,),) = ctc_decode(model, model.memory(8), SPECIAL, options, [factory])
    assert found.tokens == expected.tokens and found.score == pytest.approx(expected.score, abs=0.1)
    ((without,),) = ctc_decode(model, model.memory(8), SPECIAL, DecodingOptions("ctc", beam=8))
    assert without.tokens != found.tokens
    with pytest.raises(AsrError, match="lacks the letters"):
        WordModel.load(path, CharacterTokenizer.from_characters("ABC "), 1.0)
