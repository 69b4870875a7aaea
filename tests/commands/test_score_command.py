"""`asr score` as a user runs it: output, warnings, errors and exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from asr.scoring import read_texts, score, summary

CLI = Path(__file__).parents[2] / "cli.py"


@pytest.fixture
def texts(tmp_path):
    """REF as TSV; HYP as JSON lines in another order, one id missing and one too many."""
    ref, hyp = tmp_path / "ref.tsv", tmp_path / "hyp.jsonl"
    ref.write_text("id\ttext\na\tthe cat sat\nb\tdrei Äpfel\nc\tfour\n", encoding="utf-8")
    heard = {"x": "hm", "b": "drei Apfel", "a": "the cat sat"}
    lines = [json.dumps({"id": id, "text": text}) + "\n" for id, text in heard.items()]
    hyp.write_text("".join(lines), encoding="utf-8")
    return ref, hyp


def run(*arguments):
    command = [sys.executable, str(CLI), "score", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=60)


def test_text_report_and_warnings(texts):
    done = run(*texts)
    ref, hyp = texts
    assert done.returncode == 0, done.stderr
    assert done.stdout == summary(score(read_texts(ref), read_texts(hyp))) + "\n"
    assert "b (1): drei (Äpfel->Apfel)" in done.stdout
    assert done.stderr.splitlines() == [
        f"asr: warning: {hyp}: no hypothesis for 1 id (c); counted as deletions",
        f"asr: warning: {ref}: no reference for 1 id (x); not counted",
    ]


def test_worst_limits_what_is_shown(texts):
    assert "SAID" in run(*texts, "--worst", 1).stdout
    assert "SAID" not in run(*texts, "--worst", 0).stdout


def test_json_is_the_score(texts):
    done = run(*texts, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record.pop("confusions")["substitutions"] == [["Äpfel", "Apfel", 1]]
    assert record == score(*map(read_texts, texts)).to_dict()


def test_long_lists_of_ids_are_cut(tmp_path, texts):
    many = tmp_path / "many.tsv"
    many.write_text("id\ttext\na\tx\n" + "".join(f"u{i}\tx\n" for i in range(9)), encoding="utf-8")
    assert "9 ids (u0, u1, u2, ...)" in run(many, texts[1]).stderr


def test_mistakes_end_in_one_line_and_status_1(tmp_path, texts):
    other = tmp_path / "other.tsv"
    other.write_text("id\ttext\nz\tx\n", encoding="utf-8")
    for arguments, said in [
        ((texts[0], other), "no hypothesis (1 in all) has the id of a reference"),
        ((texts[0], tmp_path / "none.tsv"), "none.tsv: cannot be read"),
        ((*texts, "--json", "--worst", "3"), "leave one out"),
    ]:
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
