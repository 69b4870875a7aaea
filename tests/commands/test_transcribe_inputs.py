"""`asr transcribe`: its inputs, good and bad."""

import io
import json
import os
import shutil
import sys
import threading

import pytest
import soundfile
import torch
from command_line import tone

from asr.decoding import DecodingOptions
from asr.transcription import job
from asr.transcription.output import Output


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


def test_threads(asr, tiny_model, sounds):
    before = torch.get_num_threads()
    try:
        assert asr("transcribe", sounds, "--model", tiny_model, "--threads", before + 1)[0] == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions(asr, tiny_model, sounds):
    (sounds / "b/b.wav").chmod(0)
    status, out, err = asr("transcribe", sounds, "--model", tiny_model)
    assert status == 1 and len(out) == 2
    assert err[0].startswith(f"asr: error: {sounds}/b/b.wav: cannot be opened (Permission denied); check")


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


def test_a_manifest_with_a_broken_line(asr, tiny_model, sounds):
    manifest = sounds / "list.jsonl"
    manifest.write_text('{"id": "1", "audio": "a.wav", "text": "", "duration": 0.3}\n{"id": "2", "aud\n')
    status, out, err = asr("transcribe", manifest, "--model", tiny_model)
    assert (status, out, len(err)) == (1, [], 2)
    assert err[0].startswith(f"asr: error: {manifest}, line 2: not JSON") and "correct or delete" in err[0]
