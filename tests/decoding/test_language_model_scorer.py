"""A language model as a scorer: the same scores in steps and at once, found by search, or refused."""

import itertools
from dataclasses import replace

import pytest
import torch
from decoding_networks import BOS, EOS, SPECIAL, UNK, VOCABULARY, batch, network
from helpers import sections
from torch.nn.functional import pad

from asr.config import LanguageConfig
from asr.decoding import DecodingOptions
from asr.decoding import language_model as module
from asr.decoding.beam import beam_search
from asr.decoding.language_model import LanguageModelFactory, matching_tokens
from asr.decoding.rescoring import rescore
from asr.errors import AsrError
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.language_model import LanguageModel
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer, load_tokenizer
from asr.tokenizers.special import SpecialTokens
from asr.transcription.recognizer import Recognizer

RECOGNIZER, LANGUAGE = (CharacterTokenizer.from_characters(text) for text in ("abcx", "cba"))


@pytest.fixture(scope="module")
def factory():
    """Of a language model without the recognizer's last character, with confident predictions."""
    torch.manual_seed(5)
    config = LanguageModel.Config(d_model=16, n_heads=2, d_ffn=24, n_layers=2)
    network = LanguageModel(config, len(LANGUAGE)).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.data *= 1.6
    network.decoder.out.bias[EOS] += 1.0
    return LanguageModelFactory(network, LANGUAGE.special, matching_tokens(RECOGNIZER, LANGUAGE), 0.7)


def log_probability(factory, text):
    """The log-probability of one text and EOS, by the definition."""
    ids = [factory.ids[t] for t in text]
    log_probs = factory.network(torch.tensor([[BOS, *ids]])).log_softmax(-1)[0]
    return sum(float(log_probs[i, token]) for i, token in enumerate([*ids, EOS]))


@pytest.mark.parametrize("decoder", ["beam", "rescoring"])
def test_decoding_ends_at_the_last_position_of_the_language_model(decoder):
    positions = {"kind": "learned", "max_length": 6}
    config = LanguageModel.Config(d_model=16, n_heads=2, d_ffn=24, n_layers=1, positions=positions)
    torch.manual_seed(0)
    short = LanguageModel(config, VOCABULARY).eval().requires_grad_(False)
    factory = LanguageModelFactory(short, SPECIAL, torch.arange(VOCABULARY), 0.0)
    model, search = network(3), beam_search if decoder == "beam" else rescore
    memory = model.encode(*batch([150, 64]))
    options = DecodingOptions(decoder, beam=3)
    free = [hypothesis for (hypothesis,) in search(model, memory, SPECIAL, options)]
    found = [hypothesis for (hypothesis,) in search(model, memory, SPECIAL, options, [factory])]
    assert max(len(hypothesis.tokens) for hypothesis in free) > 5
    assert max(len(hypothesis.tokens) for hypothesis in found) == 5


TEXTS = [[4, 5, 6, 6, 5, 4], [], [7, 4], [6], [4, 7, 7, 5]]


def test_whole_texts_are_scored_by_the_definition(factory, monkeypatch):
    tokens = torch.full((5, 6), 99 % len(RECOGNIZER))  # the padding does not matter
    for row, text in zip(tokens, TEXTS, strict=True):
        row[: len(text)] = torch.tensor(text)
    lengths = torch.tensor([len(text) for text in TEXTS])
    expected = [log_probability(factory, text) for text in TEXTS]
    assert factory.score_texts(tokens, lengths).tolist() == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(module, "CHUNK", 8)  # a row or so at a time
    assert factory.score_texts(tokens, lengths).tolist() == pytest.approx(expected, abs=1e-4)


@torch.inference_mode()
def test_a_scorer_adds_up_to_the_score_of_the_whole_text(factory):
    scorer, rows = factory.start(len(TEXTS), 7), torch.arange(len(TEXTS))
    totals, found = [0.0] * len(TEXTS), {}
    for position in range(7):
        tokens = torch.tensor([(TEXTS[i] + [EOS])[position] for i in rows])
        everything = scorer.score(torch.arange(len(RECOGNIZER)).expand(len(rows), -1))
        assert everything.shape == (len(rows), len(RECOGNIZER))
        scores = scorer.score(tokens.unsqueeze(1)).squeeze(1)
        assert torch.equal(scores, everything.gather(1, tokens.unsqueeze(1)).squeeze(1))
        scorer.advance(tokens)
        for row, score, token in zip(rows.tolist(), scores.tolist(), tokens.tolist(), strict=True):
            totals[row] += score
            if token == EOS:
                found[row] = totals[row]
        keep = (tokens != EOS).nonzero().squeeze(1).flip(0)  # the unfinished rows, in another order
        if not len(keep):
            break
        rows, scorer = rows[keep], scorer.select(keep)
    expected = {i: log_probability(factory, text) for i, text in enumerate(TEXTS)}
    assert found == pytest.approx(expected, abs=1e-4)


def recognizer(seed):
    torch.manual_seed(seed)
    sizes = sections(d_model=16, n_heads=2, d_ffn=24, encoder_layers=1, decoder_layers=1, conv_channels=3)
    model = EncoderDecoder(EncoderDecoder.Config.model_validate(sizes), 12, len(RECOGNIZER))
    model = model.eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data *= 1.5
    return model


@pytest.mark.parametrize("seed", range(2))
def test_fused_beam_search_finds_what_exhaustive_search_finds(factory, seed):
    """All texts of up to three characters, with their scores and in order, for two utterances at once."""
    model = recognizer(seed)
    lengths = torch.tensor([40, 23])
    features = torch.randn(2, 40, 12) * (torch.arange(40) < lengths.unsqueeze(1)).unsqueeze(2)
    memory = model.encode(features, lengths)
    characters = range(UNK, len(RECOGNIZER))
    options = DecodingOptions(
        decoder="beam", ctc_weight=0.0, max_tokens=4, candidates=len(RECOGNIZER), beam=4000, n_best=4000
    )
    fused = beam_search(model, memory, RECOGNIZER.special, options, [factory])
    alone = beam_search(model, memory, RECOGNIZER.special, options)
    for row in range(2):
        expected = []
        for n in range(4):
            texts = torch.tensor(list(itertools.product(characters, repeat=n)), dtype=torch.long)  # (N, n)
            same = memory.select(torch.full((len(texts),), row))
            inputs = pad(texts, (1, 0), value=BOS)
            targets = pad(texts, (0, 1), value=EOS)
            language = (
                factory.network(factory.ids[inputs])
                .log_softmax(-1)
                .gather(2, factory.ids[targets][..., None])
            )
            token_log_probs = model.decode(inputs, same).log_softmax(-1).gather(2, targets[..., None])
            scores = (token_log_probs + factory.weight * language).sum((1, 2))
            expected += zip(scores.tolist(), map(tuple, texts.tolist()), strict=True)
        expected.sort(reverse=True)
        found, others = (
            [h for h in each[row] if h.finished and len(h.tokens) < 4] for each in (fused, alone)
        )
        assert [h.tokens for h in found] == [text for _, text in expected]
        assert [h.score for h in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert [h.tokens for h in found] != [h.tokens for h in others]  # the language model has an effect


# ------------------------------------------------------------------------------------ symbols and folders


def test_tokens_match_by_their_symbols():
    ids = matching_tokens(RECOGNIZER, LANGUAGE).tolist()
    assert ids == [0, 1, 2, 3, 4, 5, 6, UNK]  # x is unknown to the language model
    other = matching_tokens(CharacterTokenizer.from_characters("zebra"), CharacterTokenizer(("z", "a", "b")))
    assert other.tolist() == [0, 1, 2, 3, 5, 6, UNK, UNK, 4]


def test_symbols_that_the_recognizer_does_not_know_are_refused():
    with pytest.raises(AsrError, match=r"does not know: 'A' 'B'; train the language model with .*data\.case"):
        matching_tokens(CharacterTokenizer.from_characters("abc"), CharacterTokenizer.from_characters("cAB"))


class Pieces:
    """A tokenizer without an unknown token."""

    def __init__(self, *symbols, eos):
        self.symbols = symbols
        self.special = SpecialTokens((0,), eos, 0, 0, (0,), len(symbols))


def test_eos_matches_by_its_role_and_a_missing_symbol_needs_an_unknown_token():
    ids = matching_tokens(
        Pieces("<s>", "the", "</s>", "cat", eos=2), Pieces("cat", "</s>", "the", "<s>", eos=1)
    )
    assert ids.tolist() == [3, 2, 1, 0]
    recognizer = Pieces("<s>", "the", "</s>", "cat", eos=2)
    other_eos = matching_tokens(recognizer, Pieces("cat", "</s>", "the", "<s>", eos=3))
    assert other_eos.tolist() == [3, 2, 3, 0]
    with pytest.raises(AsrError, match="recognizer has symbols that the language model does not know: 'cat'"):
        matching_tokens(Pieces("<s>", "the", "</s>", "cat", eos=2), Pieces("</s>", "the", "<s>", eos=0))


def test_a_language_model_has_its_own_prompt_and_eos(factory):
    """A prompt of two tokens, another EOS, and the character a in the place of the old one."""
    special = replace(LANGUAGE.special, prompt=(5, BOS), eos=6)
    ids = torch.tensor([0, 1, 6, 3, 4, 5, 2, 3])
    other = LanguageModelFactory(factory.network, special, ids, 0.7)
    text = [4, 6, 5]
    inputs, targets = [5, BOS, 4, 2, 5], [4, 2, 5, 6]
    log_probs = factory.network(torch.tensor([inputs])).log_softmax(-1)[0, 1:]
    expected = sum(float(log_probs[i, t]) for i, t in enumerate(targets))
    tokens = torch.tensor([[*text, 7]])
    assert float(other.score_texts(tokens, torch.tensor([3]))) == pytest.approx(expected, abs=1e-4)
    scorer, total = other.start(1, 4), 0.0
    for token in [*text, EOS]:
        total += float(scorer.score(torch.tensor([[token]])))
        scorer.advance(torch.tensor([token]))
    assert total == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def folder(tmp_path):
    """Writes a language model with the given characters."""

    def write(characters):
        config = LanguageConfig.model_validate({"model": dict(d_model=16, n_heads=2, d_ffn=16, n_layers=1)})
        torch.manual_seed(0)
        Bundle.build(config, CharacterTokenizer.from_characters(characters)).save(tmp_path / "lm")
        return str(tmp_path / "lm")

    return write


def test_the_language_model_of_a_folder_changes_the_transcript(tiny_model, folder):
    """With a weight of a thousand the language model alone decides. With a weight of 0 it has no effect."""
    path = folder("eno tw")
    factory = LanguageModelFactory.load(path, load_tokenizer(tiny_model / "tokenizer.json"), 1.0, "cpu")
    assert not any(p.requires_grad for p in factory.network.parameters())
    samples = torch.randn(16000, generator=torch.Generator().manual_seed(1)).numpy()
    options = dict(decoder="beam", beam=3)
    without = Recognizer(tiny_model, "cpu", options=DecodingOptions(**options)).transcribe(samples, 16000)
    weighed = dict(language_model=path, language_model_weight=1000.0)
    fused = Recognizer(tiny_model, "cpu", options=DecodingOptions(**options | weighed))
    assert fused.transcribe(samples, 16000).text != without.text
    nothing = DecodingOptions(**options | weighed | {"language_model_weight": 0.0})
    assert Recognizer(tiny_model, "cpu", options=nothing).transcribe(samples, 16000).text == without.text


def test_an_unsuitable_language_model_is_refused_before_any_work(tiny_model, folder, tmp_path):
    def refusal(path):
        with pytest.raises(AsrError) as caught:
            Recognizer(tiny_model, "cpu", options=DecodingOptions(decoder="beam", language_model=path))
        return str(caught.value)

    assert "lm: the language model has symbols that the recognizer does not know: 'O'" in refusal(
        folder("One")
    )
    assert "this is a recognizer; name the folder of a language model" in refusal(str(tiny_model))
    assert "nowhere: no such model folder" in refusal(str(tmp_path / "nowhere"))
