"""The command line as a user meets it: what it prints, where, with which exit status, and never a traceback.

Where a process of its own would show nothing more, `main()` is called in this one: torch takes seconds.
"""

import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

from asr import commands
from asr.decoding import DecodingOptions
from asr.transcription import job
from asr.transcription.transcript import Segment, Transcript

ROOT = Path(__file__).parents[2]
VERBS = ["transcribe", "score", "train", "train-lm", "runs", "prepare", "info", "data"]
PATIENCE = 600  # seconds for a process that hangs: a machine may be busy with something else


def tone(seconds, rate=16000, frequency=440.0):
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def start(*arguments, python=(), **options):
    """`python cli.py ...` in a process of its own."""
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
    """A folder of three tones, in b/ the second."""
    folder = tmp_path / "sounds"
    (folder / "b").mkdir(parents=True)
    for i, name in enumerate(("a.wav", "b/b.wav", "c.flac")):
        soundfile.write(folder / name, tone(0.3 + 0.1 * i, frequency=300 * (i + 1)), 16000)
    return folder


# ------------------------------------------------------------------------------------------------------- help


def test_help_comes_at_once():
    """Well under half a second; of processor time, for a busy machine's is not ours."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        status, out, _ = run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert status == 0
        assert all(f"  {verb} " in out.decode() for verb in VERBS)
    assert min(spent) < 0.4


def test_every_verb_is_tested_here():
    found = [command.callback.__name__.replace("_", "-") for command in commands.app.registered_commands]
    assert [*found, *(group.typer_instance.info.name for group in commands.app.registered_groups)] == VERBS


@pytest.mark.parametrize("verb", ["", *VERBS, "data preview"])
def test_help_imports_nothing_heavy(verb):
    status, out, err = run(*verb.split(), "--help", python=("-X", "importtime"))
    assert status == 0 and out.startswith(b"Usage: ")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in err.decode().splitlines()}
    assert "typer" in imported
    assert not imported & {"torch", "torchaudio", "numpy", "librosa", "soundfile", "soxr", "yaml", "jiwer"}


# ------------------------------------------------------------------------------------------- where text goes


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
    assert set(first) == {"start", "end", "text", "confidence", "ending", "score", "alternatives"}
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
    ("options", "says"),
    [
        (["--output", "x", "--output-dir", "y"], "--output and --output-dir: give one of them"),
        (["--format", "json"], "--format is for files in a folder; add --output-dir DIR"),
        (["--skip-existing"], "--skip-existing is for files in a folder; add --output-dir DIR"),
        (["--output", "x", "--format", "txt"], "--format is for files in a folder; add --output-dir DIR"),
        (["--output-dir", "y", "c/a.wav"], "y/a.txt: would hold both a.wav and c/a.wav; write them to"),
        (["*.aiff"], "*.aiff: no file matches this pattern; check"),
        (["--batch-seconds", "inf"], "batch_seconds inf: impossible; give 1 second"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_refused(asr, tiny_model, tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    status, out, err = asr("transcribe", "a.wav", *options, "--model", tiny_model)
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"asr: error: {says}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["transcribe"],
        ["transcribe", "a.wav", "--format", "doc"],
        ["transcribe", "a.wav", "--batch-seconds", "0"],
        ["transcribe", "a.wav", "--unknown"],
        ["sing"],
    ],
)
def test_wrong_usage(asr, arguments):
    status, out, err = asr(*arguments)
    assert status == 2
    assert (out + err)[0].startswith("Usage: ")


# -------------------------------------------------------------------------------------------------- bad audio


def test_every_bad_input_gets_its_line(tiny_model, sounds, tmp_path):
    """One clear line each, in the order given; what is unusual but can be heard is heard."""
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
    says = {
        "empty": "empty file (0 bytes); copy or record it again",
        "no_samples": "no audio in it (0 samples); leave it out",
        "nan": "NaN or infinite sample at 0.100 s; mend or leave out",
        "truncated": "truncated: ",
        "text": "not an audio file that can be read (",
        "missing": "no such file; check the path",
        "l" * 300: "cannot be opened (File name too long)",
    }
    for name in says:
        files[name] = sounds / f"{name}.wav"
    files["empty"].touch()
    soundfile.write(files["no_samples"], np.zeros(0), 16000)
    broken = tone(0.2)
    broken[1600] = np.nan
    soundfile.write(files["nan"], broken, 16000, "FLOAT")
    soundfile.write(files["truncated"], tone(0.2), 16000)
    os.truncate(files["truncated"], 3000)
    files["text"].write_text("This is a text, whatever its name says.\n")

    order = sorted(files, key=lambda name: name[::-1])
    status, out, err = run("transcribe", *(files[name] for name in order), "--model", tiny_model)
    assert status == 1
    heard = [line.split(b"\t") for line in out.splitlines()]
    assert [os.fsdecode(name) for name, _ in heard] == [str(files[name]) for name in order if name in good]
    lines = err.decode().splitlines()
    wrong = [name for name in order if name not in good]
    assert lines.pop() == f"asr: {len(wrong)} of {len(order)} inputs could not be transcribed"
    for name, line in zip(wrong, lines, strict=True):
        assert line.startswith(f"asr: error: {files[name]}: {says.get(name, 'no such file')}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions(asr, tiny_model, sounds):
    (sounds / "b/b.wav").chmod(0)
    status, out, err = asr("transcribe", sounds, "--model", tiny_model)
    assert status == 1 and len(out) == 2
    assert err[0].startswith(f"asr: error: {sounds}/b/b.wav: cannot be opened (Permission denied); check")


def test_output_that_cannot_be_written(asr, tiny_model, sounds, tmp_path):
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out/a.txt").mkdir(parents=True)
    for options, says in (
        (["--output", sounds], f"{sounds}: not a file that can be replaced; give --output another name"),
        (["--output", tmp_path / "pipe"], f"{tmp_path}/pipe: not a file that can be replaced; give --output"),
        (["--output-dir", tmp_path / "file"], f"{tmp_path}/file: a file; give --output-dir the name of a"),
        (["--output-dir", tmp_path / "out"], f"{tmp_path}/out/a.txt: cannot be written (Is a directory)"),
    ):
        status, out, err = asr("transcribe", sounds, "--model", tiny_model, *options)
        assert (status, out, len(err)) == (1, [], 1)
        assert err[0].startswith(f"asr: error: {says}")
    assert (tmp_path / "file").read_text() == "mine" and (tmp_path / "pipe").is_fifo()


def test_999_of_1000(tiny_model, tmp_path, capsys):
    for i in range(1000):
        soundfile.write(tmp_path / f"{i:04}.wav", tone(0.1, frequency=100 * (i % 10 + 1)), 16000)
    (tmp_path / "0777.wav").write_bytes(b"RIFF")
    arguments = [f"{tmp_path}/[0-9]*.wav"]
    options = DecodingOptions()
    failed = job.transcribe_inputs(arguments, job.Output(), tiny_model, "cpu", 120.0, options)
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
    ("name", "change", "says"),
    [
        ("tokenizer.json", lambda old: None, "m: no tokenizer.json in this model folder; a model needs"),
        ("config.json", lambda old: None, "m: no config.json in this model folder"),
        ("model.safetensors", lambda old: None, "m: no model.safetensors in this model folder"),
        ("tokenizer.json", lambda old: b'{"tokens": [1, 2]}', "m/tokenizer.json: not a character tokenizer"),
        ("tokenizer.json", lambda old: b"\xff\xfe", "m/tokenizer.json: not a tokenizer; copy"),
        ("tokenizer.json", lambda old: old.replace(b', "z"', b""), "m: model.safetensors does not fit"),
        ("config.json", lambda old: b'{\n"nose": 1}', "m/config.json, line 2: nose: unknown key; this"),
        ("config.json", lambda old: b"{[", "m/config.json: not YAML"),
        ("model.safetensors", lambda old: b"", "m/model.safetensors: cannot be read as safetensors"),
        ("model.safetensors", lambda old: old[:5000], "m/model.safetensors: cannot be read as safetensors"),
        ("model.safetensors", lambda old: b"\xa5" * 5000, "m/model.safetensors: cannot be read as"),
    ],
)
@pytest.mark.parametrize("verb", [["transcribe", "a.wav"], ["info"]])
def test_a_broken_model(asr, tiny_model, tmp_path, monkeypatch, name, change, says, verb):
    monkeypatch.chdir(tmp_path)
    with_broken(tiny_model, tmp_path / "m", name, change)
    status, out, err = asr(*verb, "--model", "m")
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"asr: error: {says}")


def test_no_model(asr, sounds, tmp_path):
    for model in (tmp_path / "none", sounds / "a.wav", tmp_path / ("m" * 300)):
        status, out, err = asr("transcribe", sounds, "--model", model)
        assert (status, out, len(err)) == (1, [], 1)
        assert err[0].startswith(f"asr: error: {model}: no such model folder; give the folder")


def test_weights_of_something_else(asr, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "m")
    save_file({"other": np.zeros(3)}, tmp_path / "m/model.safetensors")
    status, _, err = asr("info", "--model", tmp_path / "m")
    assert status == 1 and len(err) == 1 and f"{tmp_path}/m: model.safetensors does not fit" in err[0]


def test_a_manifest_with_a_broken_line(asr, tiny_model, sounds):
    manifest = sounds / "list.jsonl"
    manifest.write_text('{"id": "1", "audio": "a.wav", "text": "", "duration": 0.3}\n{"id": "2", "aud\n')
    status, out, err = asr("transcribe", manifest, "--model", tiny_model)
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"asr: error: {manifest}, line 2: not JSON") and "mend or delete" in err[0]


@pytest.fixture
def experiment(sounds, tmp_path):
    """Manifests and a configuration; the run would take a while, but nothing here lets it begin."""
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
    ]  # what was read, then why not
    assert err[2].startswith(f"asr: error: {dev}, line 1: the text has 'é', which the model does not")


# -------------------------------------------------------------------------------------------------- asr info


def test_info(asr, tiny_model):
    status, out, err = asr("info", "--model", tiny_model)
    assert (status, err) == (0, [])
    rows = dict(line.split("  ", 1) for line in out)
    rows = {key: value.strip() for key, value in rows.items()}
    assert rows["model"] == str(tiny_model)
    assert rows["encoder"] == "1 blocks, d_model 32, 2 heads, d_ffn 64"
    assert rows["characters"] == "16: ' efghinorstuvwxz'"
    assert rows["trained: longest_seconds"] == "2.0"
    assert "cpu" in rows["devices"] and int(rows["parameters"].replace(",", "")) > 10000
    assert "model card" not in rows


# ---------------------------------------------------------------------------- pipes, terminals, interruptions


@pytest.fixture
def endless(sounds):
    """A manifest of far more work than any test waits for."""
    line = '{{"id": "{}", "audio": "a.wav", "text": "", "duration": 0.3}}\n'
    manifest = sounds / "endless.jsonl"
    manifest.write_text("".join(line.format(i) for i in range(30000)))
    return manifest


def test_a_reader_that_leaves(tiny_model, endless):
    """`asr transcribe ... | head -1` ends soon, and says nothing about the pipe."""
    process = start("transcribe", endless, "--model", tiny_model, "--batch-seconds", "2")
    assert process.stdout.readline().startswith(b"0\t")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE) == 1


def test_ctrl_c(tiny_model, endless, tmp_path):
    """Every file that is there is whole."""
    out = tmp_path / "out"
    options = ("--model", tiny_model, "--batch-seconds", "2", "--output-dir", out, "--format", "json")
    # A shell has its background jobs, and what they start, ignore the signal: pytest may be such a job.
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


@pytest.mark.parametrize("options", [["--output-dir", "out", "--format=json"], ["--output", "out/o.jsonl"]])
def test_interrupted_in_the_middle_of_a_file(asr, tiny_model, sounds, tmp_path, monkeypatch, options):
    written, to_json = [], Transcript.to_json

    def interrupted(transcript, indent=None):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(transcript.id)
        return to_json(transcript, indent)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/o.jsonl").write_text("as it was")
    monkeypatch.setattr(Transcript, "to_json", interrupted)
    status, out, _ = asr("transcribe", sounds, "--model", tiny_model, *options)
    assert (status, out) == (130, [])
    left = sorted(str(p.relative_to("out")) for p in Path("out").rglob("*") if p.is_file())
    assert left == (["o.jsonl"] if "--output" in options else ["a.json", "b/b.json", "o.jsonl"])
    assert Path("out/o.jsonl").read_text() == "as it was"


def test_text_is_not_taken_for_progress(tiny_model, sounds):
    """With a terminal on stderr there is a bar, and still the text is on stdout, tab and all."""
    controller, terminal = pty.openpty()
    try:
        process = start("transcribe", sounds, sounds / "gone.wav", "--model", tiny_model, stderr=terminal)
        os.close(terminal)
        out = process.stdout.read()
        assert process.wait(PATIENCE) == 1
        shown = os.read(controller, 1 << 16)
    finally:
        os.close(controller)
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
