"""Every format gives the same texts, whichever way it is recognised, and says what is wrong where."""

import json
import re

import pytest

from asr.errors import AsrError
from asr.scoring import read, read_pair, read_texts

TEXTS = {"s1-a": "the cat sat", "s1-b": "", "s2-c": "drei Äpfel"}
TABLE = [(id, text, id[:2]) for id, text in TEXTS.items()]
CONTENT = {
    "trn": ";; a comment\n" + "".join(f"{text} ({id})\n" for id, text in TEXTS.items()),
    "kaldi": "".join(f"{id} {text}".strip() + "\n" for id, text in TEXTS.items()),
    "tsv": "id\ttext\tspeaker\n" + "".join("\t".join(row) + "\n" for row in TABLE),
    "csv": "speaker,id,text\r\n" + "".join(f'{s},{id},"{text}"\r\n' for id, text, s in TABLE),
    "jsonl": "".join(
        json.dumps({"audio_filepath": id, "text": text, "speaker": s, "duration": 1.5}) + "\n"
        for id, text, s in TABLE
    ),
}


@pytest.mark.parametrize("format", CONTENT)
@pytest.mark.parametrize("name", ["{}", "texts", "text", "x.txt"])
def test_every_format_is_read_and_recognised(tmp_path, format, name):
    path = tmp_path / name.replace("{}", f"a.{format}")
    path.write_text(CONTENT[format], encoding="utf-8", newline="")
    assert read_texts(path, format) == TEXTS
    assert list(read_texts(path, format)) == list(TEXTS)
    if format == "kaldi" and name not in ("text", "x.txt"):
        with pytest.raises(AsrError, match="--ref-format"):
            read(path)
        return
    found = read(path)
    assert (found.format, found.texts) == (format, TEXTS)
    if format != "kaldi":
        assert {id: values["speaker"] for id, values in found.attributes.items()} == {
            id: id[:2] for id in TEXTS
        }


def test_folders_match_by_relative_stem(tmp_path):
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "a.b.txt").write_text("eins\n")
    (tmp_path / "c.txt").write_text("")
    assert read_texts(tmp_path) == {"c": "", "s1/a.b": "eins"}


def test_nemo_predictions_stand_in_the_same_file(tmp_path):
    path = tmp_path / "m.json"
    record = {"audio_filepath": "a.wav", "text": "said", "pred_text": "heard", "offset": 1.5, "duration": 2}
    path.write_text(json.dumps(record) + "\n")
    ref, hyp = read_pair(path, path)
    assert (ref.texts, hyp.texts) == ({"a.wav@1.5": "said"}, {"a.wav@1.5": "heard"})
    assert ref.attributes["a.wav@1.5"]["duration"] == 2
    path.write_text(json.dumps(record) + "\n" + json.dumps({"audio_filepath": "b", "text": ""}) + "\n")
    with pytest.raises(AsrError, match="line 2: no strings 'id' and 'pred_text'"):
        read(path, hyp=True)


STM = """;; CATEGORY "0" "" ""
f A ann 0.0 2.0 <o,f0> the cat
f A bob 2.0 4.0 sat down
f B cid 0.0 4.0 yes
"""


def timed(tmp_path, ctm, stm=STM):
    (tmp_path / "r.stm").write_text(stm)
    (tmp_path / "h.ctm").write_text(ctm)
    return read_pair(tmp_path / "r.stm", tmp_path / "h.ctm")


def test_words_of_a_ctm_go_to_segments_by_their_midpoints(tmp_path):
    ctm = "f A 0.1 0.5 the\nf B 1.0 0.2 yes\nf A 1.4 1.0 cat 0.9\nf A 1.8 0.6 sat\nf A 5 1 down\ng A 0 1 hm\n"
    ref, hyp = timed(tmp_path, ctm)
    assert ref.texts == {
        "f-A-ann-0.0-2.0": "the cat",
        "f-A-bob-2.0-4.0": "sat down",
        "f-B-cid-0.0-4.0": "yes",
    }
    # "cat" from 1.4 to 2.4 has its midpoint in the first; "down", beyond all segments, goes to the nearest
    assert hyp.texts == ref.texts | {"g-A": "hm"}
    assert ref.attributes["f-A-ann-0.0-2.0"] == {"speaker": "ann", "label": "o,f0"}


@pytest.mark.parametrize(
    ("ctm", "said"),
    [
        ("f A 1 1 a\nf B 0 1 b\nf A 0.5 1 c\n", "line 3: out of order: 0.5 s comes after 1 s .line 1."),
        ("f A 1 a\n", "line 1: 4 fields; ctm is"),
        ("f A 1 x a\n", "line 1: 'x' is no time"),
        ("f A -1 1 a\n", "line 1: '-1' is no time"),
        ("f A nan 1 a\n", "line 1: 'nan' is no time"),
        ("f A * * <ALT_BEGIN>\n", "line 1: <ALT_BEGIN>: alternatives are not supported"),
    ],
)
def test_broken_ctm(tmp_path, ctm, said):
    with pytest.raises(AsrError, match=said):
        timed(tmp_path, ctm)


@pytest.mark.parametrize(
    ("stm", "said"),
    [
        ("f A x 1\n", "line 1: 4 fields; stm is"),
        (STM + "f A x 3 1 a\n", "line 5: the segment ends .1. before"),
    ],
)
def test_broken_stm(tmp_path, stm, said):
    with pytest.raises(AsrError, match=said):
        timed(tmp_path, "f A 0 1 a\n", stm)


def test_a_ctm_against_other_references_is_one_text_per_recording(tmp_path):
    path = tmp_path / "h.ctm"
    path.write_text("a 1 0 1 the\nb 1 0 1 yes\na 1 1 1 cat\n")
    assert read_texts(path) == {"a": "the cat", "b": "yes"}
    path.write_text("a 1 0 1 the\na 2 1 1 cat\n")
    with pytest.raises(AsrError, match="line 2: a has channels 1 and 2"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.trn", "yes (a)\nno\n", r"line 2: no \(id\) at the end of 'no'"),
        ("a.trn", "yes (a)\nno (a)\n", "line 2: id 'a' stands already in line 1"),
        ("a.trn", "yes ()\n", "line 1: the id is empty"),
        ("a.trn", ";; nothing else\n", "no utterances"),
        ("a.csv", 'id,text\na,"x\n', "broken CSV"),
        ("a.csv", "id,text\na,b,c\n", "line 2: number of fields is 3"),
        ("a.csv", 'id,text\na,"x\ny"\nb,"z"\na,q\n', "line 5: id 'a' stands already in line 2"),
        ("text", "a x\na y\n", "line 2: id 'a' stands already in line 1"),
        (
            "a.tsv",
            "id\ttext\na\t" + "x" * 1_000_001 + "\n",
            "line 2: the text of 'a' has 1,000,001 characters",
        ),
    ],
)
def test_what_is_broken_is_named_with_its_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_text(content, newline="")
    with pytest.raises(AsrError, match=said) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_long_fields_of_csv_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,text\na," + "x" * 500_000 + "\n")
    assert len(read_texts(path)["a"]) == 500_000


def test_names_of_formats(tmp_path):
    with pytest.raises(AsrError, match=re.escape("'xml' is no format")):
        read(tmp_path, "xml")
