"""The tables and alignments are laid out as sclite's, with numbers worked out by hand."""

import pytest

from asr.scoring import nist, score

REFS = {"ann-1": "the cat sat down", "ann-2": "yes", "bob-1": "so be it", "cy_1": "no no"}
HYPS = {"ann-1": "the hat sat", "ann-2": "yes yes", "bob-1": "so be it", "cy_1": "no no"}


def cells(table, name):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {name} ")]
    return line.replace("|", " ").split()[len(name.split()) :]


def test_percentages():
    table = nist.sys(score(REFS, HYPS))
    assert "SYSTEM SUMMARY PERCENTAGES by SPEAKER" in table
    assert cells(table, "ann") == ["2", "5", "60.0", "20.0", "20.0", "20.0", "60.0", "100.0"]
    assert cells(table, "bob") == ["1", "3", "100.0", "0.0", "0.0", "0.0", "0.0", "0.0"]
    assert cells(table, "Sum/Avg") == ["4", "10", "80.0", "10.0", "10.0", "10.0", "30.0", "50.0"]
    assert cells(table, "Mean") == ["1.3", "3.3", "86.7", "6.7", "6.7", "6.7", "20.0", "33.3"]
    assert cells(table, "S.D.") == ["0.6", "1.5", "23.1", "11.5", "11.5", "11.5", "34.6", "57.7"]
    assert cells(table, "Median") == ["1.0", "3.0", "100.0", "0.0", "0.0", "0.0", "0.0", "0.0"]


def test_numbers():
    table = nist.raw(score(REFS, HYPS), title="mine")
    assert cells(table, "ann") == ["2", "5", "3", "1", "1", "1", "3", "2"]
    assert cells(table, "Sum") == ["4", "10", "8", "1", "1", "1", "3", "2"]
    assert "mine" in table


def test_every_line_of_a_table_is_as_wide_as_its_frame():
    for speakers in (None, dict.fromkeys(REFS, "a speaker with a long name"), dict.fromkeys(REFS, "é")):
        lines = nist.sys(score(REFS, HYPS), speakers=speakers).splitlines()[2:]
        assert len({len(line) for line in lines}) == 1


def test_alignment():
    lines = list(nist.pra(score(REFS, HYPS)))
    start = lines.index("id: (ann-1)")
    assert lines[start : start + 6] == [
        "id: (ann-1)",
        "Scores: (#C #S #D #I) 2 1 1 0",
        "REF:  the cat sat down",
        "HYP:  the hat sat ****",
        "Eval:     S       D",
        "",
    ]


def test_alignments_keep_the_case_of_the_texts():
    """sclite writes hits in lower case and errors in upper case."""
    lines = list(nist.pra(score({"a-1": "The cat SAT"}, {"a-1": "The Hat SAT"})))
    assert "REF:  The cat SAT" in lines and "HYP:  The Hat SAT" in lines


@pytest.mark.parametrize(
    ("id", "speaker"), [("ann-1_2", "ann"), ("ann_b-1", "ann_b"), ("ann_1", "ann"), ("a", "-"), ("-a", "")]
)
def test_speaker(id, speaker):
    assert nist.speaker_of(id) == speaker


def test_nothing():
    assert "Sum/Avg" in nist.sys(score({}, {}))
    assert cells(nist.sys(score({"a-1": ""}, {"a-1": "uh"})), "a")[1:3] == ["0", "0.0"]
