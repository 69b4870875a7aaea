"""Every format gives the same texts; messages name the problem and its line."""

import csv
import gzip
import json
import re

import pytest

from asr.datasets.manifest import read_manifest
from asr.errors import AsrError
from asr.scoring import read, read_pair, read_texts
from asr.scoring.tables import csv_table

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
def test_every_format_is_read_and_recognized(tmp_path, format, name):
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


def test_nemo_predictions_in_the_file_of_the_references(tmp_path):
    path = tmp_path / "m.json"
    record = {
        "audio_filepath": "a.wav",
        "text": "one",
        "pred_text": "two",
        "offset": 1.5,
        "duration": 2,
    }
    path.write_text(json.dumps(record) + "\n")
    ref, hyp = read_pair(path, path)
    assert (ref.texts, hyp.texts) == ({"a.wav-1.5": "one"}, {"a.wav-1.5": "two"})
    assert ref.attributes["a.wav-1.5"]["duration"] == 2
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
    ctm = "f A 0.1 0.5 the\nF b 1.0 0.2 yes\nF a 1.4 1.0 cat 0.9\nf A 1.9 0.2 sat\nf A 5 1 down\ng A 0 1 hm\n"
    ref, hyp = timed(tmp_path, ctm)
    assert ref.texts == {
        "f-A-ann-0.0-2.0": "the cat",
        "f-A-bob-2.0-4.0": "sat down",
        "f-B-cid-0.0-4.0": "yes",
    }
    # "cat" from 1.4 to 2.4 has its midpoint in the first, "sat" at its end; "down" is after the last segment.
    assert hyp.texts == ref.texts | {"g-A": "hm"}
    assert ref.attributes["f-A-ann-0.0-2.0"] == {"speaker": "ann", "label": "o,f0"}


@pytest.mark.parametrize(
    ("ctm", "message"),
    [
        ("f A 1 1 a\nf B 0 1 b\nf A 0.5 1 c\n", "line 3: out of order: 0.5 s comes after 1 s .line 1."),
        ("f A 1 a\n", "line 1: 4 fields; ctm is"),
        ("f A 1 x a\n", "line 1: 'x' is not a time"),
        ("f A -1 1 a\n", "line 1: '-1' is not a time"),
        ("f A nan 1 a\n", "line 1: 'nan' is not a time"),
        ("f A * * <ALT_BEGIN>\nf A 0 1 a\n", "<ALT_BEGIN> without <ALT_END>"),
        ("f A * * <ALT>\n", "line 1: <ALT> out of order"),
        ("f A * * <ALT_BEGIN>\nf A * * <ALT_BEGIN>\n", "line 2: <ALT_BEGIN> out of order"),
        ("f A * * <ALT_BEGIN>\nf A 0 1 a\nf A * * <ALT>\nf A * * <ALT_END>\n", "line 4: an alternative"),
        ("f A * * <ALT_BEGIN>\nf B 0 1 a\nf A * * <ALT_END>\n", "line 3: an alternative"),
    ],
)
def test_broken_ctm(tmp_path, ctm, message):
    with pytest.raises(AsrError, match=message):
        timed(tmp_path, ctm)


@pytest.mark.parametrize(
    ("stm", "message"),
    [
        ("f A x 1\n", "line 1: 4 fields; stm is"),
        (STM + "f A x 3 1 a\n", "line 5: the segment ends .1. before"),
    ],
)
def test_broken_stm(tmp_path, stm, message):
    with pytest.raises(AsrError, match=message):
        timed(tmp_path, "f A 0 1 a\n", stm)


def test_a_ctm_against_other_references_is_one_text_per_recording(tmp_path):
    path = tmp_path / "h.ctm"
    path.write_text("a 1 0 1 the\nb 1 0 1 yes\na 1 1 1 cat\n")
    assert read_texts(path) == {"a": "the cat", "b": "yes"}
    path.write_text("a 1 0 1 the\na 2 1 1 cat\n")
    with pytest.raises(AsrError, match="line 2: a has channels 1 and 2"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.trn", "yes (a)\nno\n", r"line 2: no \(id\) at the end of 'no'"),
        ("a.trn", "yes (a)\nno (a)\n", "line 2: duplicate id 'a', also in line 1"),
        ("a.trn", "yes ()\n", "line 1: the id is empty"),
        ("a.trn", ";; nothing else\n", "no utterances"),
        ("a.csv", 'id,text\na,"x\n', "broken CSV"),
        ("a.csv", "id,text\na,b,c\n", "line 2: number of fields is 3"),
        ("a.csv", 'id,text\na,"x\ny"\nb,"z"\na,q\n', "line 5: duplicate id 'a', also in line 2"),
        ("text", "a1 x\na1 y\n", "line 2: duplicate id 'a1', also in line 1.*lines read text without ids"),
        (
            "a.tsv",
            "id\ttext\na\t" + "x" * 1_000_001 + "\n",
            "line 2: the text of 'a' has 1,000,001 characters",
        ),
    ],
)
def test_errors_in_files_are_named_with_their_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, newline="")
    with pytest.raises(AsrError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_table_in_use_does_not_limit_the_fields_of_others(tmp_path):
    """The limit of the csv module holds for the whole process."""
    limit = csv.field_size_limit()
    rows = csv_table("id,text\na,x\nb,y\n", tmp_path / "a.csv")
    next(rows)
    assert csv.field_size_limit() == limit
    with pytest.raises(AsrError, match="broken CSV"):
        list(csv_table('id,text\na,"x\n', tmp_path / "a.csv"))
    assert csv.field_size_limit() == limit


def test_long_fields_of_csv_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,text\na," + "x" * 500_000 + "\n")
    assert len(read_texts(path)["a"]) == 500_000


def test_names_of_formats(tmp_path):
    with pytest.raises(AsrError, match=re.escape("unknown format 'xml'")):
        read(tmp_path, "xml")


def test_words_after_an_ignored_segment_belong_to_the_next(tmp_path):
    # Counts of sclite: "noise" is in the ignored segment, "gap" (between segments) is inserted into the last.
    stm = "f A x 0 2 yes\nf A x 2 4 IGNORE_TIME_SEGMENT_IN_SCORING\nf A x 6 8 no\n"
    ctm = "f A 0.1 0.2 yes\nf A 3.0 0.2 noise\nf A 4.5 0.2 gap\nf A 6.5 0.2 no\n"
    assert list(timed(tmp_path, ctm, stm)[1].texts.values()) == ["yes", "noise", "gap no"]


def test_overlapping_segments_take_a_word_in_order(tmp_path):
    # As sclite: the first segment that ends after the midpoint, though the second begins before it.
    stm = "f A x 0 2 a\nf A y 1 3 b c\nf A z 2.5 4 d\n"
    ctm = "f A 0.1 0.1 a\nf A 1.2 0.1 b\nf A 2.2 0.1 c\nf A 2.6 0.1 d\n"
    assert list(timed(tmp_path, ctm, stm)[1].texts.values()) == ["a b", "c d", ""]
    stm = "f A x 0 5 a\nf A y 1 2 b\nf A z 5 6 c\n"
    assert list(timed(tmp_path, "f A 4 0.1 a\nf A 5.1 0.1 c\n", stm)[1].texts.values()) == ["a", "", "c"]


def test_alternatives_of_a_ctm_go_to_the_segment_of_their_last_word(tmp_path):
    begin, other, end = (f"f A * * {mark}\n" for mark in ("<ALT_BEGIN>", "<alt>", "<ALT_END>"))
    ctm = f"f A 0 1 the\n{begin}f A 1.0 0.2 cat\n{other}f A 1 0.1 a\nf A 2.5 0.2 bat\n{other}f A 1 1 @\n{end}"
    texts = timed(tmp_path, ctm)[1].texts
    assert texts["f-A-ann-0.0-2.0"] == "the"
    assert texts["f-A-bob-2.0-4.0"] == "{ cat / a bat / @ }"


def test_lines_without_ids_match_by_number(tmp_path):
    ref, hyp = tmp_path / "ref.txt", tmp_path / "hyp.txt"
    ref.write_text("the cat sat\n\nyes\r\n", newline="")
    hyp.write_text("the hat sat\nuh\n\n")
    for formats in (("lines", "lines"), ("lines", None), (None, "lines")):
        refs, hyps = read_pair(ref, hyp, *formats)
        assert list(refs.texts.items()) == [("1", "the cat sat"), ("2", ""), ("3", "yes")]
        assert list(hyps.texts.values()) == ["the hat sat", "uh", ""]
    hyp.write_text("one\n")
    with pytest.raises(AsrError, match=r"hyp.txt: 1 lines, but the references have 3"):
        read_pair(ref, hyp, "lines")
    hyp.write_text("")
    with pytest.raises(AsrError, match="no utterances"):
        read_pair(ref, hyp, "lines")


@pytest.mark.parametrize("text", ["the cat sat\n", "utt1 yes\nthe cat\n", "5 men\n", "well-known facts\n"])
@pytest.mark.parametrize(("hyp", "option"), [(False, "--ref-format"), (True, "--hyp-format")])
def test_text_without_ids_is_not_taken_for_kaldi_text(tmp_path, text, hyp, option):
    path = tmp_path / "ref.txt"
    path.write_text(text)
    with pytest.raises(AsrError, match=f"an utterance id; use {option} lines .* {option} kaldi"):
        read(path, hyp=hyp)
    assert read(path, "kaldi").texts
    path.write_text("1089-134686-0000 he hoped\n7_ann the cat\n")
    assert read(path).format == "kaldi"


@pytest.mark.parametrize("format", CONTENT)
def test_gzip_is_read_and_recognized(tmp_path, format):
    path = tmp_path / ("text.gz" if format == "kaldi" else f"a.{format}.gz")
    path.write_bytes(gzip.compress(CONTENT[format].encode()))
    assert read(path).texts == TEXTS
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(AsrError, match="damaged gzip"):
        read(path)


def test_compressed_stm_and_ctm_and_the_option_named_for_other_hypotheses(tmp_path):
    (tmp_path / "r.stm.gz").write_bytes(gzip.compress(STM.encode()))
    (tmp_path / "h.ctm.gz").write_bytes(gzip.compress(b"f A 0 1 the\n"))
    assert read_pair(tmp_path / "r.stm.gz", tmp_path / "h.ctm.gz")[1].texts["f-A-ann-0.0-2.0"] == "the"
    (tmp_path / "h.txt").write_text("the cat\n")
    with pytest.raises(AsrError, match="use --hyp-format lines"):
        read_pair(tmp_path / "r.stm.gz", tmp_path / "h.txt")


def test_times_are_decimal_fractions(tmp_path):
    # 0.7 + 0.2 / 2 is 0.7999999999999999 in binary: the midpoint is the end of the first segment, not before.
    stm = "f A x 0 0.8 a\nf A y 0.8 2 b\n"
    assert list(timed(tmp_path, "f A 0.7 0.2 b\n", stm)[1].texts.values()) == ["", "b"]


def test_hypotheses_with_line_numbers_as_ids_match_lines(tmp_path):
    (tmp_path / "r.txt").write_text("the cat\nsat\n")
    (tmp_path / "h.trn").write_text("sat (2)\n")
    refs, hyps = read_pair(tmp_path / "r.txt", tmp_path / "h.trn", "lines", "trn")
    assert (refs.texts["2"], hyps.texts) == ("sat", {"2": "sat"})


@pytest.mark.parametrize("names", [("audio_filepath", "offset"), ("audio", "start")])
def test_lines_without_an_id_have_that_of_the_manifest(tmp_path, names):
    """So the output of `asr transcribe MANIFEST` can be scored against MANIFEST."""
    audio, start = names
    lines = [
        {audio: "a.wav", start: at, "duration": 1.0, "text": str(at)} for at in (0, 2.5, 12345.67, 12345.71)
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(read(path).texts) == [utterance.id for utterance in read_manifest(path)]
