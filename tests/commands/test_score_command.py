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
    recognized = {"x": "hm", "b": "drei Apfel", "a": "the cat sat"}
    lines = [json.dumps({"id": id, "text": text}) + "\n" for id, text in recognized.items()]
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
    assert "reference->" in run(*texts, "--worst", 1).stdout
    assert "reference->" not in run(*texts, "--worst", 0).stdout


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


def test_errors_are_one_line_with_exit_status_1(tmp_path, texts):
    other = tmp_path / "other.tsv"
    other.write_text("id\ttext\nz\tx\n", encoding="utf-8")
    for arguments, message in [
        ((texts[0], other), "no hypothesis (1 in all) has the id of a reference"),
        ((texts[0], tmp_path / "none.tsv"), "none.tsv: cannot be read"),
        ((*texts, "--json", "--worst", "3"), "leave one out"),
    ]:
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_standard_input_and_the_exit_status_of_a_missing_hypothesis(texts):
    ref, hyp = texts
    command = [sys.executable, str(CLI), "score", str(ref), "-", "--fail-missing"]
    with hyp.open() as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout.startswith("WER")  # the report is printed in any case
    assert "no hypothesis for 1 id (c); --fail-missing" in done.stderr.splitlines()[-1]
    done = run("-", "-")
    assert (done.returncode, "only one of the inputs" in done.stderr) == (1, True)


def test_output_redirected_to_an_input_is_refused(texts):
    ref, hyp = texts
    with ref.open("a") as out:
        command = [sys.executable, str(CLI), "score", str(ref), str(hyp), "--json"]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, "redirected to the input" in done.stderr) == (1, True)
    assert list(read_texts(ref)) == ["a", "b", "c"]


def test_options_of_the_command_reach_the_score(texts, tmp_path):
    fillers, rules = tmp_path / "fillers", tmp_path / "rules"
    fillers.write_text("cat\n")
    rules.write_text("Apfel => Äpfel\n")
    done = run(*texts, "--drop", fillers, "--map", rules, "--intervals", "--block", "utterance")
    assert "in 5 words: 0 substituted, 1 deleted" in done.stdout
    assert "bootstrap over 3 utterances" in done.stdout
