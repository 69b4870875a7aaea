"""Units learned from texts: every text is written, and language models and hot words work on units."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.hot_words import HotWords
from asr.decoding.language_model import matching_tokens
from asr.decoding.ngram import estimate_ngram
from asr.decoding.words import WordModel
from asr.errors import AsrError
from asr.tokenizers import CharacterTokenizer, load_tokenizer, normalize_text

pytest.importorskip("tokenizers.models")
from asr.tokenizers.byte_level_bpe import ByteLevelBPE
from asr.tokenizers.unigram import Unigram

LINES = ["the quick brown fox", "the lazy dog", "a quicker fox", "the dog's fox", "größer als klein"] * 4
CHINESE = ["设定二十九度", "设定三十度", "二十度"] * 4
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])
TEXTS = st.one_of(st.text(CHARACTERS, max_size=30), st.lists(st.sampled_from(LINES)).map(" ".join))


class Lines(list):
    def characters(self):
        return sorted(set("".join(self)))

    def sentences(self):
        return iter(self)


UNITS = {
    "bpe": ByteLevelBPE.train(Lines(LINES), 300),
    "unigram": Unigram.train(Lines(LINES), 300),
    "bpe zh": ByteLevelBPE.train(Lines(CHINESE), 280),
    "unigram zh": Unigram.train(Lines(CHINESE), 280),
}
BPE = UNITS["bpe"]
SPACED = [UNITS["bpe"], UNITS["unigram"]]


def test_nothing_is_learned_from_empty_texts():
    for kind in (ByteLevelBPE, Unigram):
        with pytest.raises(AsrError, match="the training texts are all empty"):
            kind.train(Lines(["", ""]), 300)


@given(text=TEXTS)
@settings(deadline=None, max_examples=100)
def test_every_text_is_written_and_read_back(text):
    for tokenizer in UNITS.values():
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == normalize_text(text)
        assert tokenizer.unknown(text) == []
        spelled = b"".join(tokenizer.token_bytes[i] for i in ids).decode()
        assert spelled.removeprefix(" ") == normalize_text(text)


@pytest.mark.parametrize("name", UNITS)
def test_special_tokens_follow_the_units_and_have_no_text(name):
    tokenizer = UNITS[name]
    special = tokenizer.special
    assert len(tokenizer) == special.vocabulary_size <= 300
    assert tokenizer.symbols[-3:] == ("<|pad|>", "<|begin|>", "<|end|>")
    assert (special.pad, *special.prompt, special.eos) == tuple(range(len(tokenizer) - 3, len(tokenizer)))
    assert special.blank == special.pad and special.suppressed == (special.pad, *special.prompt)
    assert tokenizer.decode([*special.prompt, *tokenizer.encode("fox"), special.pad, special.eos]) == "fox"
    assert tokenizer.words_are_spaced == ("zh" not in name)


def test_frequent_words_are_units_that_are_the_same_everywhere():
    for tokenizer in SPACED:
        fox, text = tokenizer.encode("fox"), tokenizer.encode("fox the fox")
        assert text[: len(fox)] == text[-len(fox) :] == fox
    assert len(BPE.encode("quick")) == 1
    assert len(UNITS["bpe zh"].encode("设定")) < len("设定".encode())


@pytest.mark.parametrize("text", ["<|a|>", "<|>", "<||>", "<|end|>"])
def test_a_text_never_becomes_a_special_token(text):
    tokenizer = ByteLevelBPE.train(Lines([text, f"x{text} x"] * 50), 300)
    for each in (text, f"x{text}"):  # without a space before it
        assert tokenizer.decode(tokenizer.encode(each)) == each


@pytest.mark.parametrize("name", UNITS)
def test_stored_units_are_equal(name, tmp_path):
    UNITS[name].save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded == UNITS[name] and type(loaded) is type(UNITS[name])
    assert all(loaded != other for key, other in UNITS.items() if key != name)


def test_equal_texts_give_equal_bpe_units_and_at_most_size():
    assert ByteLevelBPE.learn(ByteLevelBPE.Config(size=300), Lines(LINES)) == BPE
    assert len(ByteLevelBPE.train(Lines(["ab"]), 5000)) < 270
    with pytest.raises(ValueError, match="keep one of the two settings"):
        ByteLevelBPE.Config(size=300, folder="x")
    with pytest.raises(AsrError, match="no choice of language"):
        ByteLevelBPE.learn(ByteLevelBPE.Config(size=300, language="de"), Lines(LINES))


def score(factory, ids):
    tokens = torch.tensor([ids], dtype=torch.long).view(1, -1)
    return float(factory.score_texts(tokens, torch.tensor([len(ids)])))


def in_bytes(tokenizer, text):
    """The text cut into single bytes, which decoders may do."""
    of_byte = {piece: i for i, piece in enumerate(tokenizer.token_bytes) if len(piece) == 1}
    return [of_byte[bytes([byte])] for byte in b" " + text.encode()]


PHRASES = ["quick", "größer als", "a qu", "fox"]
BY_CHARACTERS = CharacterTokenizer.from_characters([*LINES, "xyzzy"])
HOT = {tokenizer: HotWords(PHRASES, tokenizer, 1.0) for tokenizer in (BY_CHARACTERS, *SPACED)}


@given(
    st.lists(st.sampled_from(["quick", "quicker", "größer", "als", "a", "fox", "fo", "dog's"]), max_size=8)
)
@settings(deadline=None, max_examples=15)
def test_hot_words_count_the_same_characters_as_in_a_model_of_characters(words):
    text = " ".join(words)
    expected = score(HOT[BY_CHARACTERS], BY_CHARACTERS.encode(text))
    for tokenizer in SPACED:
        factory = HOT[tokenizer]
        assert score(factory, tokenizer.encode(text)) == expected
        assert score(factory, in_bytes(tokenizer, text)) == expected


def test_hot_words_of_units_in_steps_as_at_once_and_bounded():
    for tokenizer in SPACED:
        factory = HotWords(PHRASES, tokenizer, 1.0)
        ids = tokenizer.encode("a quick größer als quicker fox")
        scorer, total = factory.start(2, 30), 0.0
        for token in [*ids, tokenizer.special.eos]:
            change = scorer.score(torch.tensor([[0, token]] * 2))[1, 1]
            assert change <= factory.gain
            total += float(change)
            scorer.advance_some(torch.tensor([3, token]), torch.tensor([False, True]))
            scorer = scorer.select(torch.tensor([1, 1]))
        assert total == score(factory, ids) == len("quickgrößeralsfox")


def test_hot_words_in_a_script_without_spaces():
    for name in ("bpe zh", "unigram zh"):
        tokenizer = UNITS[name]
        factory = HotWords(["二十九"], tokenizer, 1.0)
        assert [score(factory, tokenizer.encode(t)) for t in ("设定二十九度", "二十度", "二十九二十九")] == [
            3,
            0,
            6,
        ]
    with pytest.raises(AsrError, match="1 to 60 bytes"):
        HotWords(["设" * 21], tokenizer, 1.0)


NGRAM = estimate_ngram([line for line in LINES if "'" not in line], 3, 30, (1, 1, 1, 1))
PLAIN = dict(word_bonus=0.5, unknown_penalty=200.0)  # the spelling of unknown words has other letters
WORDS = {tokenizer: WordModel(NGRAM, tokenizer, 1.0, **PLAIN) for tokenizer in (BY_CHARACTERS, *SPACED)}


@given(st.lists(st.sampled_from(["the", "quick", "größer", "als", "foxy", "dog", "xyzzy"]), max_size=6))
@settings(deadline=None, max_examples=10)
def test_a_word_model_gives_units_the_scores_of_characters(words):
    text = " ".join(words)
    expected = score(WORDS[BY_CHARACTERS], BY_CHARACTERS.encode(text))
    for tokenizer in SPACED:
        factory = WORDS[tokenizer]
        whole = score(factory, tokenizer.encode(text))
        assert whole == pytest.approx(score(factory, in_bytes(tokenizer, text) if text else []), abs=1e-3)
        if not {"foxy", "xyzzy"} & set(words):
            assert whole == pytest.approx(expected, abs=1e-3)


def test_a_space_before_the_first_word_costs_nothing():
    """Texts of Whisper begin with a space, which its tokenizer does not add."""
    definition = dict(BPE.definition)
    definition["pre_tokenizer"] = BPE.definition["pre_tokenizer"] | {"add_prefix_space": False}
    tokenizer = ByteLevelBPE(definition, BPE.vocabulary, BPE.special, BPE.prompts)
    factory = WordModel(NGRAM, tokenizer, 1.0, **PLAIN)
    with_space, without = (each.encode("the quick") for each in (BPE, tokenizer))
    assert with_space != without
    assert score(factory, with_space) == pytest.approx(score(factory, without), abs=1e-3)


def test_a_word_model_scores_candidates_of_many_rows_as_alone():
    factory = WordModel(NGRAM, BPE, 1.0)
    ids = BPE.encode("the quick")
    scorer = factory.start(2, 20)
    scorer.advance_some(torch.tensor([ids[0]] * 2), torch.tensor([True, False]))
    candidates = torch.arange(len(BPE)).expand(2, -1)
    both = scorer.score(candidates)
    alone = factory.start(1, 20)
    assert torch.equal(both[1], alone.score(candidates[:1])[0])
    alone.advance(torch.tensor([ids[0]]))
    assert torch.equal(both[0], alone.score(candidates[:1])[0])
    assert both[0, ids[1]] > both[0, BPE.encode("als")[0]]


def test_a_language_model_matches_units_by_their_symbols(tmp_path):
    BPE.save(tmp_path / "t")
    assert matching_tokens(BPE, load_tokenizer(tmp_path / "t")).tolist() == list(range(len(BPE)))
    with pytest.raises(AsrError, match="does not know"):
        matching_tokens(BPE, CharacterTokenizer.from_characters("abc"))
