"""What `asr score` prints and writes, without starting a process for it."""

import json
import re
from html.parser import HTMLParser

import pytest

from asr.errors import AsrError
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


def test_text_has_all_that_was_asked_for(files):
    ref, hyp, other = files
    text = run(ref, hyp, Options(by=("length", "speaker"), intervals=True, against=other)).text
    assert re.search(r"95% interval .* \(bootstrap over 3 speakers", text)
    assert "normalisation none, unit words" in text
    assert re.search(r"(?m)^speaker +utterances", text)
    assert re.search(r"(?m)^MAPSSWE +p = ", text)


def test_json_has_all_that_was_asked_for(files):
    ref, hyp, other = files
    options = Options(by=("speaker",), intervals=True, against=other, json=True, normalize="basic")
    record = json.loads(run(ref, hyp, options).text, parse_constant=pytest.fail)
    assert record["normalisation"] == "basic"
    assert [group["name"] for group in record["by"]["speaker"]] == ["s0", "s1", "s2"]
    assert record["interval"]["over"] == "speakers"
    assert record["comparison"]["mapsswe"]["p"] <= 1


@pytest.mark.parametrize(("kind", "said"), [("sys", "PERCENTAGES"), ("raw", "COUNTS"), ("pra", "id: (u0)")])
def test_nist_reports(files, kind, said):
    assert said in run(*files[:2], Options(nist=kind)).text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(json=True, worst=1), "--worst"),
        (Options(nist="sys", json=True), "--json does not apply"),
        (Options(nist="raw", by=("length",)), "--by does not apply"),
        (Options(nist="pra", intervals=True), "--intervals does not apply"),
        (Options(by=("accent",)), "no utterance has 'accent'"),
    ],
)
def test_options_that_do_not_apply_are_refused(files, options, said):
    with pytest.raises(AsrError, match=said):
        run(*files[:2], options)


def test_segments_of_an_stm_that_are_not_to_be_scored(tmp_path):
    ref, hyp = tmp_path / "r.stm", tmp_path / "h.ctm"
    ref.write_text("f A x 0 1 yes\nf A x 1 2 IGNORE_TIME_SEGMENT_IN_SCORING\n")
    hyp.write_text("f A 0.1 0.2 yes\nf A 1.1 0.2 noise\n")
    report = run(ref, hyp, Options(json=True))
    assert json.loads(report.text)["tokens"]["hits"] == 1
    assert json.loads(report.text)["extra"] == []
    assert ["1 segments marked" in warning for warning in report.warnings] == [True]


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
    assert links == ["data:,"]
    assert not re.search(r"https?://|@import|url\(", text)
    audio = [attrs["data-audio"] for _, attrs in page.found if "data-audio" in attrs]
    assert "../wav/1%20%3Cb%3E.wav#t=1.000,3.000" in audio
    assert "normalisation none" in text
    assert "95% interval" in text


def test_page_of_characters_and_infinite_rates(tmp_path):
    ref, hyp = tmp_path / "r.tsv", tmp_path / "h.tsv"
    ref.write_text("id\ttext\na\t\nb\t我爱你\n", encoding="utf-8")
    hyp.write_text("id\ttext\na\t嗯\nb\t我爱他\n", encoding="utf-8")
    run(ref, hyp, Options(html=tmp_path / "p.html"))
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "Character error rate" in text
    assert "&infin;" in text
    assert '我爱<span class="s">' in text
