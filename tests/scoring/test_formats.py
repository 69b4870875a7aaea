"""Texts are read unchanged. Messages about damaged files name the line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import AsrError
from asr.scoring import formats, read_texts


def written(tmp_path, content):
    path = tmp_path / "texts"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_tsv_keeps_order_and_takes_only_its_columns(tmp_path):
    path = written(tmp_path, "path\ttext\tid\nb.wav\tsieben Äpfel\tb\n\na.wav\t\ta\n")
    assert list(read_texts(path).items()) == [("b", "sieben Äpfel"), ("a", "")]


def test_tsv_has_no_quoting_and_may_have_windows_line_ends(tmp_path):
    path = written(tmp_path, '\ufeffid\ttext\r\na\t"so he message\r\nb\tform\x0cfeed\u2028and all')
    assert read_texts(path) == {"a": '"so he message', "b": "form\x0cfeed\u2028and all"}


def test_json_lines(tmp_path):
    lines = [{"id": "b", "audio": "b.wav", "text": "sept\nhuit", "duration": 1.0}, {"text": "", "id": "a"}]
    path = written(tmp_path, "\n  " + "\r\n\n".join(map(json.dumps, lines)) + "\n")
    assert list(read_texts(path).items()) == [("b", "sept\nhuit"), ("a", "")]


plain = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=["Cs"]))


@given(texts=st.dictionaries(plain.filter(bool), plain, min_size=1))
def test_written_texts_are_read_back(texts, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    tsv = "id\ttext\n" + "".join(f"{id}\t{text}\n" for id, text in texts.items())
    assert read_texts(written(folder, tsv)) == texts
    lines = "".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items())
    assert read_texts(written(folder, lines)) == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no utterances"),
        (" \n \n", "'id' and 'text'"),
        ("id\ttext\n", "no utterances"),
        (b"id\ttext\na\tok\nb\t\xff", "line 3: not UTF-8"),
        ("name\ttext\na\tb\n", "line 1: the columns 'id' and 'text'"),
        ("id\ttext\ttext\na\tb\tc\n", "line 1: the columns"),
        ("a seven\nb eight\n", "line 1: the columns"),
        ("id\ttext\na\tb\nc\n", "line 3: number of fields is 1, the first line has 2"),
        ("id\ttext\na\tb\tc\n", "line 2: number of fields is 3"),
        ("id\ttext\n\tb\n", "line 2: the id is empty"),
        ("id\ttext\na\tb\n\na\tc\n", "line 4: duplicate id 'a', also in line 2"),
        ('{"id": "a", "text": "b"}\n{"id": "a", "text": "c"}\n', "line 2: duplicate id 'a', also in line 1"),
        ('{"id": "a", "text": "b"}\n{"id": \n', "line 2: broken JSON"),
        ('{\n "id": "a",\n "text": "b"\n}\n', "line 1: broken JSON"),
        ('{"id": "a", "text": "\\ud83d"}\n', "line 1: broken JSON .*surrogates"),
        ('{"id": ' + "[" * 100_000, "line 1: broken JSON"),
        ('{"id": 1, "text": "b"}\n', "line 1: no strings 'id' and 'text'"),
        ('{"id": "a"}\n', "line 1: no strings"),
        ('{"id": "a", "text": "b"}\n["a", "b"]\n', "line 2: no strings"),
    ],
)
def test_broken_files_are_named_with_the_line(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(AsrError, match=message) as error:
        read_texts(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(AsrError, match="cannot be read"):
            read_texts(path)


@pytest.mark.parametrize(("id", "speaker"), [("ann_b-1", "ann_b"), ("ann_1", "ann"), ("ann", None)])
def test_the_speaker_of_a_trn_is_that_of_sclite(tmp_path, id, speaker):
    path = tmp_path / "r.trn"
    path.write_text(f"yes ({id})\n")
    assert formats.read(path).attributes.get(id, {}).get("speaker") == speaker


def test_ids_with_parentheses_in_a_trn(tmp_path):
    path = tmp_path / "h.trn"
    path.write_text("hello there (talk_(1).wav)\nyes(b_1)\n(c_(2))\n")
    assert read_texts(path) == {"talk_(1).wav": "hello there", "b_1": "yes", "c_(2)": ""}
