"""`asr prepare`: what it writes, prints and refuses."""

import os
import shutil

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from asr.commands.prepare import Kind, prepare
from asr.datasets.corpora.table import CORPORA
from asr.datasets.manifest import read_manifest
from asr.errors import AsrError

app = typer.Typer()
app.command()(prepare)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def corpus(tmp_path):
    for name, seconds in (("a", 1.0), ("b", 0.5)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(round(seconds * 8000), 0.1), 8000)
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
    return tmp_path


def test_each_kind_has_a_reader():
    assert all(callable(entry.read()) for entry in CORPORA.values())


def test_folder(corpus, tmp_path):
    result = run("folder", corpus, tmp_path / "out")
    assert result.exit_code == 0
    assert result.output == f"{tmp_path}/out/all.jsonl: 2 utterances, 0.00 h, 0 speakers\n"
    utterances = read_manifest(tmp_path / "out/all.jsonl")
    assert [(u.id, u.text, u.duration) for u in utterances] == [
        ("a", "text of a", 1.0),
        ("b", "text of b", 0.5),
    ]
    assert utterances[0].audio == corpus / "a.wav"


def test_the_manifest_can_move_with_its_audio(corpus):
    assert run("folder", corpus, corpus).exit_code == 0
    assert '"audio": "a.wav"' in (corpus / "all.jsonl").read_text()


def test_the_list_of_what_is_left_out_is_no_text(corpus):
    (corpus / "c.txt").write_text("alone")
    assert run("folder", corpus, corpus).exit_code == 1
    (corpus / "c.txt").unlink()
    assert run("folder", corpus, corpus).exit_code == 0


def test_a_name_that_is_not_utf_8(corpus, tmp_path):
    for suffix in (b".wav", b".txt"):
        copy = os.fsencode(corpus) + b"/gr\xfcn" + suffix
        shutil.copy(corpus / f"a{suffix.decode()}", copy)
    shutil.copy(corpus / "a.txt", os.fsencode(corpus) + b"/\xe4.txt")
    result = run("folder", corpus, tmp_path / "out")
    assert result.exit_code == 1 and not isinstance(result.exception, UnicodeError)
    assert "gr\\udcfcn.wav: the file name is not UTF-8" in (tmp_path / "out" / "left_out.txt").read_text()
    assert len(read_manifest(tmp_path / "out" / "all.jsonl")) == 2


def test_bad_files_are_listed_and_the_rest_is_written(corpus, tmp_path):
    (corpus / "c.wav").write_text("no audio")
    (corpus / "c.txt").write_text("text of c")
    (corpus / "d.wav").touch()
    result = run("folder", corpus, tmp_path / "out")
    assert result.exit_code == 1
    assert f"left out: {corpus}/c.wav: not an audio file" in result.stderr
    assert "d.txt" in result.stderr and "2 were left out" in result.stderr
    assert len(read_manifest(tmp_path / "out/all.jsonl")) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda corpus: [path.write_text("x") for path in corpus.glob("*.wav")],
            "no usable utterance .2 left",
        ),
        (lambda corpus: [path.unlink() for path in corpus.iterdir()], "no audio in this folder"),
        (lambda corpus: (corpus / "b.wav").rename(corpus / "a.flac"), "duplicate id 'a'"),
    ],
)
def test_refused(corpus, tmp_path, change, message):
    change(corpus)
    with pytest.raises(AsrError, match=message):
        prepare(Kind.folder, corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_source_is_refused(tmp_path):
    with pytest.raises(AsrError, match="no such file or folder"):
        prepare(Kind.tsv, tmp_path / "none", tmp_path / "out")
    assert run("nonsense", tmp_path, tmp_path).exit_code == 2


def test_fsdd_adds_strings(tmp_path):
    (tmp_path / "recordings").mkdir()
    for index in range(9):
        path = tmp_path / "recordings" / f"3_theo_{index}.wav"
        soundfile.write(path, np.full(800, 0.1), 8000)
    result = run("fsdd", tmp_path, tmp_path / "out")
    assert result.exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*.jsonl"))
    assert names == ["dev.jsonl", "dev_strings.jsonl", "test.jsonl", "test_strings.jsonl", "train.jsonl"]
    strings = read_manifest(tmp_path / "out/test_strings.jsonl")
    assert len(strings) == 50 and set(strings[0].text.split()) == {"three"}
    assert '"audio": "audio/test_theo_00.flac"' in (tmp_path / "out/test_strings.jsonl").read_text()
