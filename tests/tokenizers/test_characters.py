"""Characters of any script to ids and back."""

import json
import unicodedata

import pytest
from helpers import BOS, EOS, PAD, UNK
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import AsrError
from asr.tokenizers import CharacterTokenizer, load_tokenizer

SCRIPTS = ["three blind mice", "机器学习", "как дела", "مرحبا", "नमस्ते", "ça va, où ?", "한국어", "👩‍🚀 ok"]


def normalize_text(text):
    return " ".join(unicodedata.normalize("NFC", text).split())


@given(st.lists(st.text(), min_size=1))
def test_learned_characters_are_encoded_and_decoded(texts):
    tokenizer = CharacterTokenizer.from_characters(texts)
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == normalize_text(text)
        assert tokenizer.unknown(text) == []
        assert all(EOS < UNK < i < len(tokenizer) for i in ids)
        assert len(ids) == len(normalize_text(text))


@given(st.text(), st.text())
def test_unknown_characters_become_unk(known, text):
    tokenizer = CharacterTokenizer.from_characters([known])
    ids = tokenizer.encode(text)
    learned = {" " if c.isspace() else c for c in unicodedata.normalize("NFC", known)}
    strangers = [c for c in normalize_text(text) if c not in learned]
    assert ids.count(UNK) == len(strangers)
    assert tokenizer.unknown(text) == list(dict.fromkeys(strangers))
    assert tokenizer.decode(ids) == "".join("\ufffd" if c in strangers else c for c in normalize_text(text))


def test_characters_of_different_texts_are_not_composed():
    letter_and_accent = ["e", "\u0301"]
    assert CharacterTokenizer.from_characters(letter_and_accent).characters == ("e", "\u0301")
    assert CharacterTokenizer.from_characters("e\u0301").characters == ("\u00e9",)


def test_machine_learning():
    tokenizer = CharacterTokenizer.from_characters(["机器学习", "学习机器"])
    ids = tokenizer.encode("机器学习")
    assert len(ids) == len(set(ids)) == 4
    assert [tokenizer.decode([i]) for i in ids] == ["机", "器", "学", "习"]
    assert tokenizer.decode([*ids, EOS]) == "机器学习"
    assert tokenizer.encode("习学") == ids[::-1][:2]
    assert len(tokenizer) == 4 + 4


def test_special_tokens_decode_to_nothing_and_are_never_encoded():
    tokenizer = CharacterTokenizer.from_characters(["<pad> <begin> <end> <unk>"])
    a, b = tokenizer.encode("be")
    assert tokenizer.decode([BOS, a, PAD, b, EOS, PAD]) == "be"
    assert not {PAD, BOS, EOS, UNK} & set(tokenizer.encode("<pad> <begin> <end> <unk>"))
    assert tokenizer.decode([a, UNK, b]) == "b\ufffde"


def test_an_accent_is_one_character_however_it_was_typed():
    tokenizer = CharacterTokenizer.from_characters(["cafe\u0301"])
    assert tokenizer.encode("caf\u00e9") == tokenizer.encode("cafe\u0301")
    assert len(tokenizer.encode("cafe\u0301")) == 4


def test_white_space_is_one_space():
    tokenizer = CharacterTokenizer.from_characters(["a b"])
    assert tokenizer.decode(tokenizer.encode("  a\t\n\u3000 b ")) == "a b"


def test_the_ids_do_not_depend_on_the_order_of_the_texts():
    assert CharacterTokenizer.from_characters(SCRIPTS) == CharacterTokenizer.from_characters(
        reversed(SCRIPTS)
    )
    assert CharacterTokenizer.from_characters(["b", "a"]).encode("ab") == [4, 5]


@given(st.lists(st.text()))
def test_saved_and_loaded_it_is_the_same(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("t") / "tokenizer.json"
    tokenizer = CharacterTokenizer.from_characters([*texts, *SCRIPTS])
    tokenizer.save(path)
    loaded = load_tokenizer(path)
    assert loaded == tokenizer and len(loaded) == len(tokenizer)
    for text in [*texts, *SCRIPTS]:
        assert loaded.encode(text) == tokenizer.encode(text)


def test_the_file_is_readable_json(tmp_path):
    path = tmp_path / "tokenizer.json"
    CharacterTokenizer.from_characters(["机器"]).save(path)
    assert "机" in path.read_text(encoding="utf-8")
    tokens = json.loads(path.read_text(encoding="utf-8"))["tokens"]
    assert tokens == ["<pad>", "<begin>", "<end>", "<unk>", "器", "机"]


SPECIAL = ["<pad>", "<begin>", "<end>", "<unk>"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[]",
        b'"text"',
        b"7",
        b"null",
        b"{}",
        json.dumps({"tokens": None}).encode(),
        json.dumps({"tokens": 5}).encode(),
        json.dumps({"tokens": "abc"}).encode(),
        json.dumps({"tokens": {"a": 1}}).encode(),
        json.dumps({"tokens": []}).encode(),
        json.dumps({"tokens": ["a", "b", "c", "d"]}).encode(),
        json.dumps({"tokens": [*SPECIAL, "a", "b", "a"]}).encode(),
        json.dumps({"tokens": [*SPECIAL, "a", 5]}).encode(),
        json.dumps({"tokens": [*SPECIAL, {}]}).encode(),
        json.dumps({"tokens": [*SPECIAL, "▁the"]}).encode(),  # pieces of words: another kind of tokenizer
        json.dumps({"tokens": [*SPECIAL, ""]}).encode(),
    ],
)
def test_another_file_gets_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(AsrError, match=r"tokenizer\.json: not a .*tokenizer; ") as caught:
        load_tokenizer(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_get_one_line(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(AsrError, match="cannot read the tokenizer") as caught:
            load_tokenizer(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
