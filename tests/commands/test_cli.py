"""The command line: its output, its exit status, and no traceback.

`main()` is called in this process, except where a test needs another one: importing torch takes seconds.
"""

import fcntl
import io
import json
import os
import pty
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import save_file

from asr import __version__, commands
from asr.decoding import DecodingOptions
from asr.files import printable
from asr.transcription import job
from asr.transcription.output import Output
from asr.transcription.transcript import Segment, Transcript

ROOT = Path(__file__).parents[2]
VERBS = [
    "transcribe",
    "listen",
    "score",
    "train",
    "train-lm",
    "runs",
    "prepare",
    "info",
    "inspect",
    "export",
    "import",
    "data",
]
PATIENCE = 600  # seconds until a process counts as hanging: the machine may be busy


def tone(seconds, rate=16000, frequency=440.0):
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def start(*arguments, python=(), **options):
    """`python cli.py ...` in another process."""
    command = [sys.executable, *python, str(ROOT / "cli.py"), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, **pipes)


def run(*arguments, **options):
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in err
    return process.returncode, out, err


@pytest.fixture
def asr(monkeypatch, capsys):
    """`asr ...` in this process: exit status, lines of stdout, lines of stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["asr", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            commands.main()
        out, err = capsys.readouterr()
        return caught.value.code, out.splitlines(), err.splitlines()

    return call


@pytest.fixture
def sounds(tmp_path):
    """A folder of three tones; the second is in the folder b."""
    folder = tmp_path / "sounds"
    (folder / "b").mkdir(parents=True)
    for i, name in enumerate(("a.wav", "b/b.wav", "c.flac")):
        soundfile.write(folder / name, tone(0.3 + 0.1 * i, frequency=300 * (i + 1)), 16000)
    return folder


# ------------------------------------------------------------------------------------------------------- help


def test_help_takes_little_time():
    """Less than 0.4 s. Processor time is measured, because the machine may be busy."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        status, out, _ = run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert status == 0
        assert all(f"  {verb} " in out.decode() for verb in VERBS)
    assert min(spent) < 0.4


def test_every_command_has_a_test():
    found = [
        command.name or command.callback.__name__.replace("_", "-")
        for command in commands.app.registered_commands
    ]
    assert [*found, *(group.typer_instance.info.name for group in commands.app.registered_groups)] == VERBS


@pytest.mark.parametrize("verb", ["", *VERBS, "data preview"])
def test_help_imports_nothing_heavy(verb):
    status, out, err = run(*verb.split(), "--help", python=("-X", "importtime"))
    assert status == 0 and out.startswith(b"Usage: ")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in err.decode().splitlines()}
    assert "typer" in imported
    assert not imported & {"torch", "torchaudio", "numpy", "librosa", "soundfile", "soxr", "yaml", "jiwer"}


# --------------------------------------------------------------------------------------------------- outputs


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


def test_a_manifest(asr, tiny_model, sounds, tmp_path):
    lines = [
        {"id": "one", "audio": "a.wav", "text": "", "duration": 0.3},
        {"id": "two/2", "audio": "gone.wav", "text": "", "duration": 900},
        {"id": "three", "audio": "c.flac", "text": "", "duration": 0.2, "start": 0.1},
        {"id": "four", "audio": "c.flac", "text": "", "duration": 0.2, "start": 7},
    ]
    manifest = sounds / "list.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, out, err = asr("transcribe", manifest, "--model", tiny_model)
    assert status == 1
    assert [line.split("\t")[0] for line in out] == ["one", "three"]
    assert err[0].startswith(f"asr: error: {sounds}/gone.wav: no such file")
    assert err[1].startswith(f"asr: error: {sounds}/c.flac: start 7 s is beyond the end")
    assert err[2:] == ["asr: 2 of 4 inputs could not be transcribed"]
    assert asr("transcribe", manifest, "--model", tiny_model, "--output-dir", tmp_path / "o")[0] == 1
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["one.txt", "three.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "x", "--output-dir", "y"], "--output and --output-dir: give one of them"),
        (["--format", "json,srt"], "--format json,srt: several formats need --output-dir DIR"),
        (
            ["--format", "doc"],
            "--format doc: unknown; choose from txt, json, srt, vtt, tsv, ctm, trn, textgrid",
        ),
        (["--format", "srt", "b.wav"], "--format srt: a file holds one recording, and there are 2; add"),
        (["--highlight-words", "--format", "ctm"], "--highlight-words is for subtitles; add --format srt or"),
        (["--resume", "--output", "x", "--format", "ctm"], "--resume continues a file of JSON lines; leave"),
        (["--skip-existing"], "--resume needs results to continue; add --output FILE or --output-dir DIR"),
        (["--resume", "--output", "-"], "--resume needs results to continue; add --output FILE or"),
        (["--resume", "--output", "/dev/null"], "--resume needs results to continue; add --output FILE or"),
        (["--overwrite"], "--overwrite replaces the file of --output, and excludes --resume; leave it out"),
        (["--overwrite", "--resume", "--output", "x"], "--overwrite replaces the file of --output, and"),
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


def test_arguments_without_audio_do_not_stop_the_others(asr, tiny_model, sounds):
    (sounds / "none").mkdir()
    (sounds / "empty.jsonl").touch()
    bad = ["", sounds / "none", "*.aiff", sounds / "empty.jsonl"]
    status, out, err = asr("transcribe", *bad, sounds / "a.wav", "--model", tiny_model)
    assert status == 1
    assert [line.split("\t")[0] for line in out] == [f"{sounds}/a.wav"]
    messages = (
        "an empty argument is not a path; give a file,",
        f"{sounds}/none: no audio in this folder",
        "*.aiff: no file matches this pattern; check",
        f"{sounds}/empty.jsonl: the manifest is empty",
    )
    for line, message in zip(err, messages, strict=False):
        assert line.startswith(f"asr: error: {message}")
    assert err[4:] == ["asr: 4 of 5 inputs could not be transcribed"]


def test_an_empty_argument_alone(asr, tiny_model, sounds, monkeypatch):
    monkeypatch.chdir(sounds)
    status, out, err = asr("transcribe", "", "--model", tiny_model)
    assert (status, out) == (1, []) and err[0].startswith("asr: error: an empty argument is not a path")


def test_standard_input_and_pipes(asr, tiny_model, sounds, tmp_path, monkeypatch):
    _, (expected,), _ = asr("transcribe", sounds / "a.wav", "--model", tiny_model)
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    content = (sounds / "a.wav").read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    status, out, err = asr("transcribe", "-", pipe, "--model", tiny_model)
    writer.join()
    assert (status, err) == (0, [])
    text = expected.split("\t")[1]
    assert text and out == [f"-\t{text}", f"{pipe}\t{text}"]


def test_names_with_control_characters(asr, tiny_model, sounds):
    shutil.copy(sounds / "a.wav", sounds / "n\n\t\x1b[31m.wav")
    gone = sounds / "g\none.wav"
    status, out, err = asr("transcribe", sounds, gone, "--model", tiny_model)
    assert status == 1 and len(out) == 4 and len(err) == 2
    assert f"{sounds}/n\\n\\t\\x1b[31m.wav" in [line.split("\t")[0] for line in out]
    assert err[0].startswith(f"asr: error: {sounds}/g\\none.wav: no such file")


def test_version(asr):
    assert asr("--version") == (0, [f"asr {__version__}"], [])


def test_threads(asr, tiny_model, sounds):
    before = torch.get_num_threads()
    try:
        assert asr("transcribe", sounds, "--model", tiny_model, "--threads", before + 1)[0] == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


# -------------------------------------------------------------------------------------------------- bad audio


def test_every_bad_input_gets_its_line(tiny_model, sounds, tmp_path):
    """One clear line each, in the order given. Unusual recordings are transcribed."""
    files = {}
    for name, rate, channels in (("8000", 8000, 1), ("96000", 96000, 1), ("channels", 16000, 8)):
        files[name] = sounds / f"{name}.wav"
        soundfile.write(files[name], np.stack([tone(0.4, rate)] * channels, 1), rate)
    good = list(files)
    files["caf\udce9"] = sounds / "caf\udce9.wav"  # a byte that is not UTF-8
    try:
        shutil.copy(files["8000"], files["caf\udce9"])
        good.append("caf\udce9")
    except OSError:  # macOS: then it is a missing file
        pass
    messages = {
        "empty": "empty file (0 bytes); copy or record it again",
        "no_samples": "no audio in it (0 samples); leave it out",
        "nan": "NaN or infinite sample at 0.100 s",
        "truncated": "truncated: ",
        "text": "not an audio file that can be read",
        "missing": "no such file; check the path",
        "l" * 300: "cannot be opened (File name too long)",
    }
    for name in messages:
        files[name] = sounds / f"{name}.wav"
    files["empty"].touch()
    soundfile.write(files["no_samples"], np.zeros(0), 16000)
    broken = tone(0.2)
    broken[1600] = np.nan
    soundfile.write(files["nan"], broken, 16000, "FLOAT")
    soundfile.write(files["truncated"], tone(0.2), 16000)
    os.truncate(files["truncated"], 3000)
    files["text"].write_text("This is text, not audio.\n")

    order = sorted(files, key=lambda name: name[::-1])
    status, out, err = run("transcribe", *(files[name] for name in order), "--model", tiny_model)
    assert status == 1
    found = [line.split(b"\t") for line in out.splitlines()]
    assert [name.decode() for name, _ in found] == [printable(files[name]) for name in order if name in good]
    lines = err.decode().splitlines()
    wrong = [name for name in order if name not in good]
    assert lines.pop() == f"asr: {len(wrong)} of {len(order)} inputs could not be transcribed"
    for name, line in zip(wrong, lines, strict=True):
        problem = messages.get(name, "no such file")
        assert line.startswith(f"asr: error: {printable(files[name])}: {problem}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions(asr, tiny_model, sounds):
    (sounds / "b/b.wav").chmod(0)
    status, out, err = asr("transcribe", sounds, "--model", tiny_model)
    assert status == 1 and len(out) == 2
    assert err[0].startswith(f"asr: error: {sounds}/b/b.wav: cannot be opened (Permission denied); check")


def test_output_that_cannot_be_written(asr, tiny_model, sounds, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "out/a.txt").mkdir(parents=True)
    for options, message in (
        (["--output", sounds], f"{sounds}: a folder; give --output the name of a file"),
        (["--output", tmp_path / "file"], f"{tmp_path}/file: has content already; add --resume to continue"),
        (["--output", tmp_path / "file", "--resume"], f"{tmp_path}/file, line 1: not a transcript; give"),
        (["--output", tmp_path / "file/x"], f"{tmp_path}/file/x: cannot be written ("),
        (["--output", sounds / "a.wav", "--overwrite"], f"{sounds}/a.wav: an input; give --output another"),
        (["--output", sounds / "a.wav", "--resume"], f"{sounds}/a.wav: an input; give --output another"),
        (["--output-dir", tmp_path / "file"], f"{tmp_path}/file: a file; give --output-dir the name of a"),
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


def test_links_and_devices_are_written_to(tiny_model, sounds, tmp_path):
    """--output follows a link, appends to a pipe, and never replaces /dev/stdout."""
    link, real = tmp_path / "link.jsonl", tmp_path / "real.jsonl"
    real.touch()
    link.symlink_to(real)
    assert run("transcribe", sounds, "--model", tiny_model, "--output", link) == (0, b"", b"")
    assert link.is_symlink() and len(lines := real.read_bytes().splitlines()) == 3
    for name in ("/dev/stdout", "-"):
        status, out, err = run("transcribe", sounds, "--model", tiny_model, "--output", name)
        assert (status, err, out.splitlines()) == (0, b"", lines)


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
    for content in ("no line end", '{"audio": "x"}', '{"id": "x"}\nnotes', '[1]\n{"id'):
        (tmp_path / "notes").write_text(content)
        options = ("--model", tiny_model, "--output", tmp_path / "notes", "--resume")
        status, _, err = asr("transcribe", sounds, *options)
        assert status == 1 and ": not a transcript; give --output another name" in err[0]
        assert (tmp_path / "notes").read_text() == content


def test_999_of_1000(tiny_model, tmp_path, capsys):
    for i in range(1000):
        soundfile.write(tmp_path / f"{i:04}.wav", tone(0.1, frequency=100 * (i % 10 + 1)), 16000)
    (tmp_path / "0777.wav").write_bytes(b"RIFF")
    arguments = [f"{tmp_path}/[0-9]*.wav"]
    options = DecodingOptions()
    failed = job.transcribe_inputs(arguments, Output(), tiny_model, "cpu", 120.0, options)
    out, err = capsys.readouterr()
    assert failed == 1
    lines = [line.split("\t") for line in out.splitlines()]
    assert [name for name, _ in lines] == [f"{tmp_path}/{i:04}.wav" for i in range(1000) if i != 777]
    texts = {name[-8:-4]: text for name, text in lines}
    assert all(text == texts[f"000{name[-1]}"] for name, text in texts.items())
    assert len(set(texts.values())) > 1
    error, summary = err.splitlines()
    assert error.startswith(f"asr: error: {tmp_path}/0777.wav: ")
    assert summary == "asr: 1 of 1000 inputs could not be transcribed"


# ---------------------------------------------------------------------- bad models, manifests, configurations


def with_broken(tiny_model, folder, name, change):
    shutil.copytree(tiny_model, folder)
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if (changed := change(content)) is not None:
        path.write_bytes(changed)
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tokenizer.json", lambda old: None, "m: no tokenizer.json in this model folder; a model needs"),
        ("config.json", lambda old: None, "m: no config.json in this model folder"),
        ("model.safetensors", lambda old: None, "m: no model.safetensors in this model folder"),
        ("tokenizer.json", lambda old: b'{"tokens": [1, 2]}', "m/tokenizer.json: not a"),
        ("tokenizer.json", lambda old: b"\xff\xfe", "m/tokenizer.json: not a tokenizer; copy"),
        ("tokenizer.json", lambda old: old.replace(b', "z"', b""), "m: model.safetensors does not fit"),
        ("config.json", lambda old: b'{\n"nose": 1}', "m/config.json: nose: unknown key; this"),
        ("config.json", lambda old: b'{"model": {"d_model": 100000000}}', "the model cannot be built ("),
        ("config.json", lambda old: b"{[", "m/config.json: not JSON"),
        ("model.safetensors", lambda old: b"", "m/model.safetensors: cannot be read as safetensors"),
        ("model.safetensors", lambda old: old[:5000], "m/model.safetensors: cannot be read as safetensors"),
        ("model.safetensors", lambda old: b"\xa5" * 5000, "m/model.safetensors: cannot be read as"),
    ],
)
@pytest.mark.parametrize("verb", [["transcribe", "a.wav"], ["info"]])
def test_a_broken_model(asr, tiny_model, tmp_path, monkeypatch, name, change, message, verb):
    monkeypatch.chdir(tmp_path)
    with_broken(tiny_model, tmp_path / "m", name, change)
    status, out, err = asr(*verb, "--model", "m")
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"asr: error: {message}")


def test_no_model(asr, sounds, tmp_path):
    for model in (tmp_path / "none", sounds / "a.wav", tmp_path / ("m" * 300)):
        status, out, err = asr("transcribe", sounds, "--model", model)
        assert (status, out, len(err)) == (1, [], 1)
        assert err[0].startswith(f"asr: error: {model}: no such model folder; give the folder")


def test_weights_of_another_model_are_refused(asr, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "m")
    save_file({"other": np.zeros(3)}, tmp_path / "m/model.safetensors")
    status, _, err = asr("info", "--model", tmp_path / "m")
    assert status == 1 and len(err) == 1 and f"{tmp_path}/m: model.safetensors does not fit" in err[0]


def test_a_manifest_with_a_broken_line(asr, tiny_model, sounds):
    manifest = sounds / "list.jsonl"
    manifest.write_text('{"id": "1", "audio": "a.wav", "text": "", "duration": 0.3}\n{"id": "2", "aud\n')
    status, out, err = asr("transcribe", manifest, "--model", tiny_model)
    assert (status, out, len(err)) == (1, [], 2)
    assert err[0].startswith(f"asr: error: {manifest}, line 2: not JSON") and "correct or delete" in err[0]


@pytest.fixture
def experiment(sounds, tmp_path):
    """Manifests and a configuration that no test here trains with."""
    for split, text in (("train", "one"), ("dev", "no")):
        record = {"id": f"{split}1", "audio": "a.wav", "text": text, "duration": 0.3}
        (sounds / f"{split}.jsonl").write_text(json.dumps(record) + "\n")
    config = tmp_path / "experiment.yaml"
    config.write_text(f"data:\n  train: [{sounds}/train.jsonl]\n  dev: [{sounds}/dev.jsonl]\n")
    return config


def test_an_unknown_key_in_the_configuration(asr, experiment, tmp_path):
    experiment.write_text(experiment.read_text() + "  batch_secs: 3\n")
    status, out, err = asr("train", experiment, "--run", tmp_path / "run")
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"asr: error: {experiment}, line 4: data.batch_secs: unknown key; this section")
    assert not (tmp_path / "run").exists()


def test_an_unknown_character_in_a_dev_text(asr, experiment, sounds, tmp_path):
    dev = sounds / "dev.jsonl"
    dev.write_text(dev.read_text().replace('"no"', '"né"'))
    status, _, err = asr("train", experiment, "--run", tmp_path / "run")
    assert status == 1 and [line[:5] for line in err] == [
        "data.",
        "data.",
        "asr: ",
    ]  # the counts of the manifests, then the error
    assert err[2].startswith(f"asr: error: {dev}, line 1: the text has 'é', which the model does not")


# -------------------------------------------------------------------------------------------------- asr info


def test_info(asr, tiny_model):
    status, out, err = asr("info", "--model", tiny_model)
    assert (status, err) == (0, [])
    rows = dict(line.split("  ", 1) for line in out)
    rows = {key: value.strip() for key, value in rows.items()}
    assert rows["model folder"] == str(tiny_model)
    assert rows["encoder"].startswith("transformer, ") and "n_layers 1" in rows["encoder"]
    assert "d_model 32" in rows["decoder"] and "n_mels 80" in rows["features"]
    assert rows["model"].startswith("encoder_decoder")
    assert rows["characters"] == "16: ' efghinorstuvwxz'"
    assert rows["trained: longest_seconds"] == "2.0"
    assert "cpu" in rows["devices"] and int(rows["parameters"].replace(",", "")) > 10000
    assert "model card" not in rows


# ---------------------------------------------------------------------------- pipes, terminals, interruptions


@pytest.fixture
def endless(sounds):
    """A manifest with more work than a test can wait for."""
    line = '{{"id": "{}", "audio": "a.wav", "text": "", "duration": 0.3}}\n'
    manifest = sounds / "endless.jsonl"
    manifest.write_text("".join(line.format(i) for i in range(30000)))
    return manifest


def test_a_closed_pipe_ends_the_command(tiny_model, endless):
    """`asr transcribe ... | head -1` ends soon, without a message about the pipe."""
    process = start("transcribe", endless, "--model", tiny_model, "--batch-seconds", "2")
    assert process.stdout.readline().startswith(b"0\t")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE) == 1


def test_ctrl_c(tiny_model, endless, tmp_path):
    """All files that were written are complete."""
    out = tmp_path / "out"
    options = ("--model", tiny_model, "--batch-seconds", "2", "--output-dir", out, "--format", "json")
    # Background jobs of a shell ignore the signal, and so do their children; pytest may be one.
    process = start(
        "transcribe", endless, *options, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    while not (out / "100.json").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"Traceback" not in err
    files = list(out.iterdir())
    assert 100 < len(files) < 30000
    for path in files:
        assert path.suffix == ".json" and json.loads(path.read_text())["audio"].endswith("a.wav")


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
    left = sorted(str(p.relative_to("out")) for p in Path("out").rglob("*") if p.is_file())
    assert left == ["a.json", "b/b.json"]


def in_a_terminal(stream, *arguments):
    """What `python cli.py ...` writes to a terminal of 40 columns as `stream`, and to the other stream."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    process = start(*arguments, **{stream: terminal})
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 1 << 16):
            shown += chunk
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(controller)
    other = process.stdout if stream == "stderr" else process.stderr
    content = other.read()
    process.wait(PATIENCE)
    return shown, content


def test_long_lines_in_a_terminal_are_not_broken(tiny_model, sounds):
    """A terminal wraps long lines itself, so a copied text has no line breaks."""
    name = sounds / ("long name " * 9 + ".wav")
    shutil.copy(sounds / "a.wav", name)
    shown, err = in_a_terminal("stdout", "transcribe", name, sounds / "gone.wav", "--model", tiny_model)
    assert str(name).encode() in shown and b"transcribing" in shown
    # Messages stay on stderr also when the bar is in the terminal of stdout.
    assert err.startswith(f"asr: error: {sounds}/gone.wav: no such file".encode()) and b"gone" not in shown


def test_text_and_progress_go_to_different_streams(tiny_model, sounds):
    """With a terminal on stderr there is a bar. The text is on stdout, with its tab."""
    shown, out = in_a_terminal("stderr", "transcribe", sounds, sounds / "gone.wav", "--model", tiny_model)
    assert [line.partition(b"\t")[0] for line in out.splitlines()] == [
        f"{sounds}/{name}".encode() for name in ("a.wav", "b/b.wav", "c.flac")
    ]
    assert b"transcribing" in shown and b"gone.wav" in shown


def test_json_holds_any_file_name():
    transcript = Transcript("caf\udce9", "学.wav", '"\\\n', 1.0, (Segment(0.0, 1.0, '"\\\n', 0.5),))
    for text in (transcript.to_json(), transcript.to_json(indent=2)):
        record = json.loads(text.encode("utf-8"))
        assert (record["id"], record["audio"], record["text"]) == ("caf\udce9", "学.wav", '"\\\n')
        assert "学" in text
