"""`asr listen` prints final texts, and in a terminal what is known before."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from asr import audio, commands
from asr.transcription import listening
from asr.transcription.transcript import Segment, StreamResult

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["asr", "listen", *arguments])
    with pytest.raises(SystemExit) as caught:
        commands.main()
    return caught.value.code


def test_samples_on_standard_input(monkeypatch, capsys):
    speech = audio.read(SAMPLES / "pin.wav", 8000)
    pcm = (speech * 32767).astype("<i2").tobytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pcm + b"\0")))
    assert run(monkeypatch, "-", "--rate", "8000", "--times", "--model", "digits") == 0
    out, err = capsys.readouterr()
    start, end, text = out.split(maxsplit=2)
    assert text.strip() == (SAMPLES / "pin.txt").read_text().strip() and err == ""
    assert 0 <= float(start) < float(end) <= len(speech) / 8000 + 0.01


def test_samples_are_given_as_they_come():
    blocks = list(listening.pcm_blocks(io.BytesIO(np.arange(250, dtype="<i2").tobytes() + b"x"), 1000))
    assert [len(block) for block in blocks] == [100, 100, 50]
    assert np.concatenate(blocks).tolist() == list(range(250))


def test_the_line_of_a_terminal(monkeypatch, capsys):
    results = [
        StreamResult(Segment(0, 1, text, 0.9), final)
        for text, final in (("on", False), ("one", False), ("one two", True), ("x" * 200, False), ("", True))
    ]
    listening.show(results)
    assert capsys.readouterr().out == "one two\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    listening.show(results)
    line = "\r\x1b[K"
    shown = f"{line}on{line}one{line}one two\n{line}{'x' * 79}{line}"
    assert capsys.readouterr().out == shown


def test_without_a_microphone(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert run(monkeypatch) == 1
    assert "a microphone needs sounddevice and PortAudio" in capsys.readouterr().err
    assert run(monkeypatch, "-", "--microphone", "desk") == 1
    assert "--microphone: samples are read from stdin" in capsys.readouterr().err
    assert run(monkeypatch, "a.wav") == 1
    assert "a.wav: a file; use asr transcribe" in capsys.readouterr().err
