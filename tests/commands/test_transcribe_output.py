"""`asr transcribe`: where results go, resuming, and outputs that cannot be written."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.transcription.transcript import Segment, Transcript


def test_to_the_terminal(asr, tiny_model, sounds):
    quiet = sounds / "quiet.wav"
    soundfile.write(quiet, np.zeros(1600), 16000)
    status, out, err = asr("transcribe", sounds / "c.flac", sounds, quiet, "--model", tiny_model)
    assert (status, err) == (0, [])
    named = [line.split("\t") for line in out]
    assert [name for name, _ in named] == [
        f"{sounds}/{name}" for name in ("c.flac", "a.wav", "b/b.wav", "c.flac", "quiet.wav", "quiet.wav")
    ]
    texts = [text for _, text in named]
    assert texts[0] == texts[3] != "" and texts[1] != "" and texts[4] == texts[5] == ""


def test_to_one_file(asr, tiny_model, sounds, tmp_path):
    _, terminal, _ = asr("transcribe", sounds, "--model", tiny_model)
    target = tmp_path / "new/out.jsonl"
    assert asr("transcribe", sounds, "--model", tiny_model, "--output", target) == (0, [], [])
    records = [json.loads(line) for line in target.read_text().splitlines()]
    assert [f"{record['id']}\t{record['text']}" for record in records] == terminal
    assert [record["duration"] for record in records] == pytest.approx([0.3, 0.4, 0.5])
    first = records[0]["segments"][0]
    assert set(first) == set(Segment.__dataclass_fields__)
    assert asr("score", target, target)[0] == 0


def test_one_file_per_input(asr, tiny_model, sounds, tmp_path):
    _, terminal, _ = asr("transcribe", sounds, "--model", tiny_model)
    texts = [line.split("\t")[1] for line in terminal]
    out = tmp_path / "out"
    assert asr("transcribe", sounds, "--model", tiny_model, "--output-dir", out) == (0, [], [])
    assert sorted(p for p in out.rglob("*") if p.is_file()) == [out / "a.txt", out / "b/b.txt", out / "c.txt"]
    assert [(out / name).read_text() for name in ("a.txt", "b/b.txt", "c.txt")] == [t + "\n" for t in texts]

    (out / "a.txt").unlink()
    (out / "c.txt").write_text("mine")
    again = ("transcribe", sounds, "--model", tiny_model, "--output-dir", out)
    assert asr(*again, "--skip-existing") == (0, [], [])
    assert (out / "a.txt").read_text() == texts[0] + "\n" and (out / "c.txt").read_text() == "mine"
    assert asr(*again)[0] == 0
    assert (out / "c.txt").read_text() == texts[2] + "\n"

    assert asr(*again, "--format", "json") == (0, [], [])
    record = json.loads((out / "b/b.json").read_text())
    assert (record["audio"], record["text"]) == (f"{sounds}/b/b.wav", texts[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "x", "--output-dir", "y"], "--output and --output-dir: give one of them"),
        (["--format", "json,srt"], "--format json,srt: several formats need --output-dir DIR"),
        (
            ["--format", "doc"],
            "--format doc: unknown; choose from txt, json, srt, vtt, tsv, ctm, trn, textgrid",
        ),
        (
            ["--format", "srt", "b.wav"],
            "--format srt: a file of this format holds one recording, but there are 2; add",
        ),
        (["--highlight-words", "--format", "ctm"], "--highlight-words is for subtitles; add --format srt or"),
        (["--resume", "--output", "x", "--format", "ctm"], "--resume continues a file of JSON lines; leave"),
        (["--skip-existing"], "--resume needs results to continue; add --output FILE or --output-dir DIR"),
        (["--resume", "--output", "-"], "--resume needs results to continue; add --output FILE or"),
        (["--resume", "--output", "/dev/null"], "--resume needs results to continue; add --output FILE or"),
        (
            ["--overwrite"],
            "--overwrite is only for the file of --output, without --resume; leave --overwrite out",
        ),
        (
            ["--overwrite", "--resume", "--output", "x"],
            "--overwrite is only for the file of --output, without",
        ),
        (["--output-dir", "y", "c/a.wav"], "y/a.txt: both a.wav and c/a.wav would be written to it;"),
        (["--batch-seconds", "inf"], "batch_seconds inf: impossible; give 1 second"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--device", "meta"], "device 'meta' cannot be used here"),
    ],
)
def test_refused(asr, tiny_model, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = asr("transcribe", "a.wav", *options, "--model", tiny_model)
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"asr: error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written(asr, tiny_model, sounds, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "out/a.txt").mkdir(parents=True)
    for options, message in (
        (["--output", sounds], f"{sounds}: this is a folder; give --output the name of a file"),
        (
            ["--output", tmp_path / "file"],
            f"{tmp_path}/file: the file has content already; add --resume to continue",
        ),
        (["--output", tmp_path / "file", "--resume"], f"{tmp_path}/file, line 1: not a transcript; give"),
        (["--output", tmp_path / "file/x"], f"{tmp_path}/file/x: cannot be written ("),
        (
            ["--output", sounds / "a.wav", "--overwrite"],
            f"{sounds}/a.wav: this is an input; give --output another",
        ),
        (
            ["--output", sounds / "a.wav", "--resume"],
            f"{sounds}/a.wav: this is an input; give --output another",
        ),
        (
            ["--output-dir", tmp_path / "file"],
            f"{tmp_path}/file: this is a file; give --output-dir the name of a",
        ),
        (["--output-dir", tmp_path / "out"], f"{tmp_path}/out/a.txt: cannot be written (Is a directory)"),
    ):
        before = (sounds / "a.wav").read_bytes()
        status, out, err = asr("transcribe", sounds, "--model", tiny_model, *options)
        assert (status, out, len(err)) == (1, [], 1)
        assert err[0].startswith(f"asr: error: {message}")
        assert (sounds / "a.wav").read_bytes() == before
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk(asr, tiny_model, sounds):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    status, _, err = asr("transcribe", sounds, "--model", tiny_model, "--output", "/dev/full")
    assert (status, len(err)) == (1, 1)
    assert err[0].startswith("asr: error: /dev/full: cannot be written (No space left on device)")


def test_an_interrupted_run_is_continued(asr, tiny_model, sounds, tmp_path, monkeypatch):
    """The file has whole lines from the first result on. A line without its end is written again."""
    target, to_json = tmp_path / "out.jsonl", Transcript.to_json
    command = ("transcribe", sounds, sounds / "a.wav", "--model", tiny_model, "--output")
    assert asr(*command, target) == (0, [], [])
    whole = target.read_text()
    target.unlink()

    def texts():
        assert target.read_text().endswith("\n")
        records = map(json.loads, target.read_text().splitlines())
        return [(record["id"], record["text"]) for record in records]  # the confidence depends on the batch

    expected = [(r["id"], r["text"]) for r in map(json.loads, whole.splitlines())]

    def interrupted(transcript, indent=None):
        if target.exists() and target.read_text().count("\n") == 2:
            raise KeyboardInterrupt
        return to_json(transcript, indent)

    with monkeypatch.context() as patch:
        patch.setattr(Transcript, "to_json", interrupted)
        assert asr(*command, target)[0] == 130
    assert texts() == expected[:2]
    kept = target.read_text()
    assert asr(*command, target)[0] == 1  # --resume or --overwrite must be chosen
    for torn in ("", '{"', '{"id": "x", "text": "ab', whole.splitlines()[2]):
        target.write_text(kept + torn)
        assert asr(*command, target, "--resume") == (0, [], [])
        assert target.read_text().startswith(kept) and texts() == expected
    assert asr(*command, target, "--resume") == (0, [], [])
    assert texts() == expected
    assert asr(*command, target, "--overwrite") == (0, [], [])
    assert texts() == expected


def test_a_file_without_transcripts_is_not_changed(asr, tiny_model, sounds, tmp_path):
    """Resuming cuts the last line of a file only if it is the beginning of a result."""
    manifest = '{"id": "x", "audio": "x.wav", "text": "x"}\n'
    for content in (manifest, "no line end", '{"audio": "x"}', '{"id": "x"}\nnotes', '[1]\n{"id'):
        (tmp_path / "notes").write_text(content)
        options = ("--model", tiny_model, "--output", tmp_path / "notes", "--resume")
        status, _, err = asr("transcribe", sounds, *options)
        assert status == 1 and ": not a transcript; give --output another name" in err[0]
        assert (tmp_path / "notes").read_text() == content


def test_interrupted_in_the_middle_of_a_file(asr, tiny_model, sounds, tmp_path, monkeypatch):
    written, to_json = [], Transcript.to_json

    def interrupted(transcript, indent=None):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(transcript.id)
        return to_json(transcript, indent)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Transcript, "to_json", interrupted)
    command = ("transcribe", sounds, "--model", tiny_model, "--output-dir", "out", "--format=json")
    status, out, _ = asr(*command)
    assert (status, out) == (130, [])
    left = {p.relative_to("out") for p in Path("out").rglob("*") if p.is_file()}
    assert left == {Path(id).relative_to(sounds).with_suffix(".json") for id in written} and len(left) == 2


def test_json_holds_any_file_name():
    transcript = Transcript("caf\udce9", "学.wav", '"\\\n', 1.0, (Segment(0.0, 1.0, '"\\\n', 0.5),))
    for text in (transcript.to_json(), transcript.to_json(indent=2)):
        record = json.loads(text.encode("utf-8"))
        assert (record["id"], record["audio"], record["text"]) == ("caf\udce9", "学.wav", '"\\\n')
        assert "学" in text


@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
def test_the_manifest_is_not_its_own_output(asr, tiny_model, sounds, tmp_path, option):
    """Its lines have ids as well, and could be taken for results."""
    manifest = tmp_path / "m.jsonl"
    content = json.dumps({"id": "a", "audio": str(sounds / "a.wav"), "text": "x"}) + "\n"
    manifest.write_text(content)
    status, _, err = asr("transcribe", manifest, "--output", manifest, option, "--model", tiny_model)
    assert status == 1 and "m.jsonl: this is an input; give --output another name" in err[0]
    assert manifest.read_text() == content


def test_a_name_that_becomes_too_long_is_the_only_failure(asr, tiny_model, sounds, tmp_path):
    """With its suffix, the name of the result has more than 255 bytes."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "я" * 125 + "x", "z"):
        (folder / f"{name}.wav").write_bytes((sounds / "a.wav").read_bytes())
    options = ("--model", tiny_model, "--output-dir", tmp_path / "out", "--format", "textgrid")
    status, _, err = asr("transcribe", folder, *options)
    assert status == 1 and sum("rename the input" in line for line in err) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.TextGrid", "z.TextGrid"]
    assert asr("transcribe", folder, "--model", tiny_model, "--output-dir", tmp_path / "txt") == (0, [], [])
    assert len(list((tmp_path / "txt").iterdir())) == 3  # 255 bytes


def test_results_of_torchrun_are_used_without_it(asr, tiny_model, sounds, tmp_path):
    output = tmp_path / "out.jsonl"
    options = ("--model", tiny_model, "--output", output)
    assert asr("transcribe", sounds / "a.wav", *options)[0] == 0
    output.rename(tmp_path / "out.jsonl.part3")
    (tmp_path / "out.jsonl.partial-notes").write_text("mine")
    status, _, err = asr("transcribe", sounds, *options)
    assert status == 1 and "out.jsonl.part3: results of an interrupted run; add --resume" in err[0]
    assert asr("transcribe", sounds, *options, "--resume")[0] in (0, 1)
    ids = [json.loads(line)["id"] for line in output.read_text().splitlines()]
    assert len(ids) == len(set(ids)) and str(sounds / "a.wav") in ids
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.jsonl", "out.jsonl.partial-notes"]
