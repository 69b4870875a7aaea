"""The output and the files of `asr score`, in this process."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from asr.errors import AsrError
from asr.scoring.report import p_value
from asr.scoring.run import Options, run

REFS = [
    {
        "id": f"u{i}",
        "text": text,
        "speaker": f"s{i % 3}",
        "audio": f"wav/{i} <b>.wav",
        "start": i,
        "duration": 2,
    }
    for i, text in enumerate(
        ["the cat sat", "so be it", "<script>alert(1)</script> & co", "yes", "no", "a b"]
    )
]
HYPS = ["the hat sat", "so be it", "<script>alert(2)</script> & co", "yes", "no no", "a"]


@pytest.fixture
def files(tmp_path):
    ref, hyp, other = tmp_path / "ref.jsonl", tmp_path / "hyp.trn", tmp_path / "other" / "hyp2.trn"
    ref.write_text("".join(json.dumps(record) + "\n" for record in REFS))
    hyp.write_text("".join(f"{text} (u{i})\n" for i, text in enumerate(HYPS)))
    other.parent.mkdir()
    other.write_text("".join(f"{record['text']} ({record['id']})\n" for record in REFS))
    return ref, hyp, other


def test_the_text_report_has_every_requested_part(files):
    ref, hyp, other = files
    text = run(ref, hyp, Options(by=("length", "speaker"), intervals=True, against=other)).text
    assert re.search(r"95% interval .* \(bootstrap over 3 speakers", text)
    assert "normalization none, unit words" in text
    assert re.search(r"(?m)^speaker +utterances", text)
    assert re.search(r"(?m)^MAPSSWE +p = ", text)


def test_the_json_report_has_every_requested_part(files):
    ref, hyp, other = files
    options = Options(by=("speaker",), intervals=True, against=other, json=True, normalize="basic")
    record = json.loads(run(ref, hyp, options).text, parse_constant=pytest.fail)
    assert record["normalization"] == "basic"
    assert [group["name"] for group in record["by"]["speaker"]] == ["s0", "s1", "s2"]
    assert record["interval"]["over"] == "speakers"
    assert record["comparison"]["mapsswe"]["p"] <= 1


@pytest.mark.parametrize(
    ("kind", "message"), [("sys", "PERCENTAGES"), ("raw", "COUNTS"), ("pra", "id: (u0)")]
)
def test_nist_reports(files, kind, message):
    assert message in run(*files[:2], Options(nist=kind)).text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(json=True, worst=1), "--worst"),
        (Options(nist="sys", json=True), "--json does not apply"),
        (Options(nist="raw", by=("length",)), "--by does not apply"),
        (Options(nist="pra", intervals=True), "--intervals does not apply"),
        (Options(by=("accent",)), "no utterance has 'accent'"),
    ],
)
def test_options_that_do_not_apply_are_refused(files, options, message):
    with pytest.raises(AsrError, match=message):
        run(*files[:2], options)


def test_segments_of_an_stm_that_are_not_to_be_scored(tmp_path):
    ref, hyp = tmp_path / "r.stm", tmp_path / "h.ctm"
    ref.write_text("f A x 0 1 yes\nf A x 1 2 ignore_time_segment_in_scoring\n")
    hyp.write_text("f A 0.1 0.2 yes\nf A 1.1 0.2 noise\n")
    report = run(ref, hyp, Options(json=True))
    assert json.loads(report.text)["tokens"]["hits"] == 1
    assert json.loads(report.text)["extra"] == []
    assert ["1 segments marked" in warning for warning in report.warnings] == [True]


def test_nothing_but_ignored_segments_is_refused(tmp_path):
    ref, hyp = tmp_path / "r.stm", tmp_path / "h.ctm"
    ref.write_text("f A x 1 2 ignore_time_segment_in_scoring\n")
    hyp.write_text("f A 1.1 0.2 noise\n")
    for options in (Options(), Options(by=("length",))):
        with pytest.raises(AsrError, match="nothing to score"):
            run(ref, hyp, options)


class Page(HTMLParser):
    """Tags and attributes of a page, and whether every tag is closed."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_page_is_whole_escaped_and_needs_nothing_else(files, tmp_path):
    ref, hyp, _ = files
    where = tmp_path / "reports" / "page.html"
    run(ref, hyp, Options(html=where, intervals=True))
    text = where.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    tags = [tag for tag, _ in page.found]
    assert tags.count("script") == 1  # the references' own are escaped
    assert tags.count("svg") == 2
    rows = [attrs for tag, attrs in page.found if tag == "tr" and "data-errors" in attrs]
    assert [int(row["data-errors"]) for row in rows] == [1, 1, 1, 1, 0, 0]
    links = [value for _, attrs in page.found for key, value in attrs.items() if key in ("src", "href")]
    assert set(links) == {"data:,", "#utterances"}
    assert not re.search(r"https?://|@import|url\(", text)
    audio = [attrs["data-audio"] for _, attrs in page.found if "data-audio" in attrs]
    assert "../wav/1%20%3Cb%3E.wav#t=1.000,3.000" in audio
    assert "normalization none" in text
    assert "95% interval" in text


def test_the_times_of_a_table_select_the_part_of_a_recording(tmp_path):
    ref, where = tmp_path / "r.tsv", tmp_path / "page.html"
    rows = ("a\tyes\t1.5\t2", "b\tno\t3\t-", "c\tno\tnoon\t2", "d\tno\tnan\t2", "e\tno\t0\t2")
    columns = "id\ttext\tstart\tduration\taudio"
    ref.write_text("\n".join([columns, *(f"{row}\t{row[0]}.wav" for row in rows)]) + "\n")
    run(ref, ref, Options(html=where))
    links = re.findall('data-audio="([^"]*)"', where.read_text(encoding="utf-8"))
    assert sorted(links) == ["a.wav#t=1.500,3.500", "b.wav#t=3.000", "c.wav", "d.wav", "e.wav"]


def test_names_of_files_that_are_not_utf_8(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xe9.txt")).write_text("yes")
    report = run(folder, folder, Options(html=tmp_path / "page.html", json=True))
    assert json.loads(report.text)["utterances"][0]["id"] == r"\udce9"
    assert r"caf\udce9" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_page_of_characters_and_infinite_rates(tmp_path):
    ref, hyp = tmp_path / "r.tsv", tmp_path / "h.tsv"
    ref.write_text("id\ttext\na\t\nb\t我爱你\n", encoding="utf-8")
    hyp.write_text("id\ttext\na\t嗯\nb\t我爱他\n", encoding="utf-8")
    run(ref, hyp, Options(html=tmp_path / "p.html"))
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "Character error rate" in text
    assert "&infin;" in text
    assert '我爱<span class="s">' in text


def test_page_shows_the_second_system_and_links_errors_to_utterances(files, tmp_path):
    ref, hyp, other = files
    where = tmp_path / "page.html"
    run(ref, hyp, Options(html=where, against=other))
    text = where.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    rows = [attrs for tag, attrs in page.found if tag == "tr" and "data-errors" in attrs]
    assert [(row["data-errors"], row["data-other"], row["data-apart"]) for row in rows[3:5]] == [
        ("1", "0", "1"),
        ("0", "0", "0"),
    ]
    assert "hyp.trn and hyp2.trn" in text
    assert '<div class="b">the cat sat</div>' in text
    assert re.search(r"<th>MAPSSWE</th><td>.*?</td><td class=\"n\">p = \d", text)
    found = [attrs["data-find"] for _, attrs in page.found if "data-find" in attrs]
    assert "(cat→hat)" in found
    shown = re.sub(r"<[^>]+>", "", text)  # what the script searches
    assert all(shown.count(error.replace("→", "&rarr;")) >= 2 for error in found if "<" not in error)


def test_small_p_values_are_not_zero():
    assert p_value(0.00009) == "p < 0.0001"
    assert p_value(0.0001) == "p = 0.0001"


@pytest.mark.parametrize(
    ("block", "message"),
    [("auto", "3 speakers"), ("utterance", "6 utterances"), ("start", "6 values of start")],
)
def test_block_of_the_bootstrap(files, block, message):
    text = run(*files[:2], Options(intervals=True, block=block)).text
    assert f"(bootstrap over {message}, " in text
    compared = run(*files[:2], Options(against=files[2], block=block, json=True)).text
    assert json.loads(compared)["comparison"]["difference"]["blocks"] == int(message[0])


def test_one_speaker_is_not_a_block(files):
    ref = files[0]
    ref.write_text(re.sub(r'"speaker": "s."', '"speaker": "s"', ref.read_text()))
    assert "(bootstrap over 6 utterances, " in run(*files[:2], Options(intervals=True)).text
    with pytest.raises(AsrError, match="1 utterances or blocks are too few"):
        run(*files[:2], Options(intervals=True, block="speaker"))


def test_blocks_that_do_not_exist(files):
    with pytest.raises(AsrError, match=r"--block accent: 6 ids .*without 'accent'"):
        run(*files[:2], Options(intervals=True, block="accent"))
    with pytest.raises(AsrError, match="--block is for bootstrap intervals"):
        run(*files[:2], Options(block="speaker"))


@pytest.mark.parametrize("which", ["ref", "hyp", "against", "map", "drop", "linked"])
def test_inputs_are_never_overwritten(files, tmp_path, which):
    ref, hyp, other = files
    words = tmp_path / "words"
    words.write_text("uh => \n")
    linked = tmp_path / "linked.html"
    linked.symlink_to(ref)
    paths = {"ref": ref, "hyp": hyp, "against": other, "map": words, "drop": words, "linked": linked}
    before = paths[which].read_bytes()
    options = Options(
        against=other, html=paths[which], **({which: words} if which in ("map", "drop") else {})
    )
    with pytest.raises(AsrError, match="would overwrite the input"):
        run(ref, hyp, options)
    assert paths[which].read_bytes() == before


def test_a_page_does_not_become_an_input_of_a_folder(files, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "u0.txt").write_text("yes")
    with pytest.raises(AsrError, match="in the input folder"):
        run(folder, folder, Options(html=folder / "page.txt"))
    assert run(folder, folder, Options(html=folder / "page.html")).text


def test_a_missing_hypothesis_can_be_a_failure(files):
    ref, hyp, other = files
    assert run(ref, hyp, Options(fail_missing=True)).failure == ""
    other.write_text("the cat sat (u0)\n")
    assert run(ref, hyp, Options(against=other)).failure == ""
    failure = run(ref, hyp, Options(against=other, fail_missing=True)).failure
    assert failure.startswith(f"{other}: no hypothesis for 5 ids")
    assert run(ref, other, Options(fail_missing=True)).failure == failure


def test_words_are_mapped_and_dropped_on_both_sides(tmp_path):
    ref, hyp = tmp_path / "r.tsv", tmp_path / "h.tsv"
    ref.write_text("id\ttext\na\tUm I am gonna see colours\n")
    hyp.write_text("id\ttext\na\tI am going to see uh colors\n")
    rules, fillers = tmp_path / "words.glm", tmp_path / "fillers"
    rules.write_text("; a comment\n* title\ngonna => going to\n[Colours] => [colors] / [ ] __ [ ]\n")
    fillers.write_text("# fillers\num\nuh\n")
    options = Options(map=rules, drop=fillers, normalize="basic", json=True)
    record = json.loads(run(ref, hyp, options).text)
    assert record["tokens"] == {
        "hits": 6, "substitutions": 0, "deletions": 0, "insertions": 0, "reference_length": 6
    }  # fmt: skip
    assert record["normalization"] == "basic with mapping"
    for content, message in [
        ("gonna\n", "line 1: no `old => new`"),
        ("a => b\na => c\n", "line 2: duplicate"),
    ]:
        rules.write_text(content)
        with pytest.raises(AsrError, match=message):
            run(ref, hyp, options)
    for path in (rules, fillers):
        rules.write_text("a => b\n")
        path.write_text("# empty\n")
        with pytest.raises(AsrError, match=r"no rules|no words"):
            run(ref, hyp, options)


def test_alternatives_of_a_ctm_need_nist_costs(tmp_path):
    ref, hyp = tmp_path / "r.stm", tmp_path / "h.ctm"
    ref.write_text("f A x 0 2 yes sir\n")
    begin, other, end = (f"f A * * {mark}\n" for mark in ("<ALT_BEGIN>", "<ALT>", "<ALT_END>"))
    hyp.write_text(f"{begin}f A 0 1 yeah\n{other}f A 0 1 yes\n{end}f A 1 1 sir\n")
    record = json.loads(run(ref, hyp, Options(json=True, costs="nist")).text)
    assert (record["tokens"]["hits"], record["wer"]) == (2, 0.0)
    with pytest.raises(AsrError, match="need --costs nist"):
        run(ref, hyp, Options())
    with pytest.raises(AsrError, match="'basic' would destroy"):
        run(ref, hyp, Options(costs="nist", normalize="basic"))


def test_words_with_times_give_the_counts_of_sclite(tmp_path):
    # Random stm and ctm with gaps, ignored segments, alternatives and other case, counted by sclite 2.10.
    cases = json.loads((Path(__file__).parent / "data" / "sclite_timed.json").read_text())
    assert len(cases) == 6
    for stm, ctm, expected in cases:
        ref, hyp = tmp_path / "r.stm", tmp_path / "h.ctm"
        ref.write_text("\n".join(stm) + "\n")
        hyp.write_text("\n".join(ctm) + "\n")
        counts = json.loads(run(ref, hyp, Options(costs="nist", json=True)).text)["tokens"]
        assert [counts[key] for key in ("hits", "substitutions", "deletions", "insertions")] == expected
