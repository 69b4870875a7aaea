"""Byte-level BPE and SentencePiece: ids and texts equal those of transformers, in any script."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "public"))
from public_models import LINES, write_speech_to_text, write_whisper

from asr.errors import AsrError
from asr.public import speech_to_text, whisper
from asr.public.source import Source
from asr.tokenizers import load_tokenizer
from asr.tokenizers.byte_level_bpe import ByteLevelBPE
from asr.tokenizers.sentencepiece import SentencePieceTokenizer

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers.models")
pytest.importorskip("sentencepiece")
# Lone surrogates cannot be encoded; special tokens in a text are text to us.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(lambda s: "<" not in s)
WORDS = st.lists(st.sampled_from([w for line in LINES for w in line.split(" ")]), max_size=8).map(" ".join)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    write_whisper(folder)
    return folder, whisper.read_tokenizer(Source(folder)), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s2t")
    write_speech_to_text(folder)
    original = transformers.AutoTokenizer.from_pretrained(folder)
    return folder, speech_to_text.read_tokenizer(Source(folder)), original


@given(text=st.one_of(TEXT, WORDS))
@settings(deadline=None, max_examples=150)
def test_ids_and_texts_equal_the_originals(bpe, pieces, text):
    for _, own, original in (bpe, pieces):
        ids = own.encode(text)
        assert ids == original(text, add_special_tokens=False).input_ids
        if 3 not in ids or own is bpe[1]:  # the original drops the unknown token, we show it
            assert own.decode(ids) == original.decode(ids, skip_special_tokens=True)
    assert bpe[1].decode(bpe[1].encode(text)) == text


@given(ids=st.lists(st.integers(0, 2096), max_size=30))
@settings(deadline=None, max_examples=100)
def test_any_ids_give_the_text_of_the_original(bpe, ids):
    """Special tokens and timestamps among them too, and bytes that are not UTF-8."""
    _, own, original = bpe
    special = [own.prompts.start, own.prompts.previous]  # the original also cuts off what is before them
    ids = [i for i in ids if i not in special]
    assert own.decode(ids) == original.decode(ids, skip_special_tokens=True)


def test_two_layouts_give_the_same_tokenizer(bpe, tmp_path):
    write_whisper(tmp_path, tokenizer="vocab.json")
    other = whisper.read_tokenizer(Source(tmp_path))
    assert other.symbols == bpe[1].symbols and other.special == bpe[1].special
    assert all(other.encode(line) == bpe[1].encode(line) for line in LINES)


def test_what_was_saved_is_the_same_tokenizer(bpe, pieces, tmp_path):
    for kind, (_, own, _) in {"bpe": bpe, "pieces": pieces}.items():
        own.save(tmp_path / kind)
        loaded = load_tokenizer(tmp_path / kind)
        assert type(loaded) is type(own) and loaded.symbols == own.symbols and loaded.special == own.special
        assert loaded.prompts == own.prompts
        assert [loaded.encode(line) for line in LINES] == [own.encode(line) for line in LINES]
        (tmp_path / kind).write_text(json.dumps({"type": own.kind, "vocabulary": []}))
        with pytest.raises(AsrError, match="copy the file that was written with the model"):
            load_tokenizer(tmp_path / kind)


def test_prompts_equal_the_original(bpe):
    folder, own, _ = bpe
    # The original finds languages by their place in its own list of a hundred, of which only en fits here.
    for task in ("transcribe", "translate"):
        for timestamps in (False, True):
            original = transformers.AutoTokenizer.from_pretrained(
                folder, language="en", task=task, predict_timestamps=timestamps
            )
            assert own.prompt("en", task, timestamps) == tuple(original.prefix_tokens)
    ids = tuple(own.encode(" before"))
    assert own.prompt(previous=ids) == (own.prompts.previous, *ids, *own.prompt("en", "transcribe"))
    assert own.special.prompt == own.prompt("en", "transcribe")
    assert own.prompt("de")[1] == own.symbols.index("<|de|>")


def test_impossible_prompts_are_refused(bpe, pieces):
    with pytest.raises(
        AsrError, match="language 'xx': this model does not have it; choose one of en, de, zh"
    ):
        bpe[1].prompt("xx")
    with pytest.raises(AsrError, match=r"choose (translate|transcribe) or"):
        bpe[1].prompt(task="sing")
    for arguments in ({"language": "en"}, {"task": "translate"}):
        with pytest.raises(AsrError, match="this model has no choice of"):
            pieces[1].prompt(**arguments)


def test_a_checkpoint_for_english_alone_has_no_languages(tmp_path):
    write_whisper(tmp_path, english=True)
    own = whisper.read_tokenizer(Source(tmp_path))
    assert own.prompt() == (own.prompts.start, own.prompts.no_timestamps)
    with pytest.raises(AsrError, match="no choice of language"):
        own.prompt("en")


def test_a_text_cannot_become_a_special_token(bpe):
    own = bpe[1]
    ids = own.encode("<|endoftext|><|0.00|>")
    assert own.special.eos not in ids and own.decode(ids) == "<|endoftext|><|0.00|>"


def test_upper_and_lower_case(tmp_path):
    write_speech_to_text(tmp_path, do_lower_case=True, do_upper_case=True)
    own = speech_to_text.read_tokenizer(Source(tmp_path))
    original = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = own.encode("The Quick")  # transformers 5 no longer follows do_lower_case
    assert ids == original("the quick", add_special_tokens=False).input_ids
    assert own.decode(ids) == original.decode(ids, skip_special_tokens=True) == own.decode(ids).upper()


def test_training_takes_the_tokenizer_of_a_model_folder(bpe, pieces, tmp_path):
    bpe[1].save(tmp_path / "tokenizer.json")
    config = ByteLevelBPE.Config(folder=str(tmp_path), language="de", task="translate")
    learned = ByteLevelBPE.learn(config, "")
    assert learned.special.prompt == bpe[1].prompt("de", "translate")
    with pytest.raises(AsrError, match=r"tokenizer\.folder is not set"):
        ByteLevelBPE.learn(ByteLevelBPE.Config(), "")
    with pytest.raises(AsrError, match="not of the kind sentencepiece"):
        SentencePieceTokenizer.learn(SentencePieceTokenizer.Config(folder=str(tmp_path)), "")


def test_unknown_characters(pieces, bpe):
    assert pieces[1].unknown("The \u0905\u1234") == ["\u1234"] or "\u1234" in pieces[1].unknown("\u1234")
    assert bpe[1].unknown("\u1234") == []
