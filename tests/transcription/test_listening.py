"""`asr listen` prints final texts, and in a terminal what is known before."""

import io
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asr import audio, commands
from asr.errors import AsrError
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


def test_impossible_input_is_refused(monkeypatch, capsys):
    assert run(monkeypatch, "-", "--rate", "0") == 2
    assert "--rate" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    assert run(monkeypatch, "-", "--model", "digits") == 1
    assert "standard input is closed; give it samples" in capsys.readouterr().err


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
    monkeypatch.setenv("COLUMNS", "80")
    listening.show(results)
    line = "\r\x1b[K"
    shown = f"{line}on{line}one{line}one two\n{line}{'x' * 79}{line}"
    assert capsys.readouterr().out == shown


def test_the_columns_of_a_terminal(monkeypatch, capsys):
    """A character of East Asian scripts fills two; a line that is wrapped could not be written again."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    listening.show([StreamResult(Segment(0, 1, "中" * 60, 0.9), False)])
    assert capsys.readouterr().out == "\r\x1b[K" + "中" * 19


def test_ctrl_c_ends_with_the_text_of_what_was_said(monkeypatch, capsys):
    """It comes while the next samples are awaited."""
    speech = (audio.read(SAMPLES / "pin.wav", 8000) * 32767).astype("<i2").tobytes()

    class Microphone(io.BytesIO):
        def read(self, size=-1):
            if not (data := super().read(size)):
                os.kill(os.getpid(), signal.SIGINT)
            return data

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Microphone(speech)))
    handler = signal.getsignal(signal.SIGINT)
    assert run(monkeypatch, "-", "--rate", "8000", "--model", "digits") == 0
    assert capsys.readouterr().out == (SAMPLES / "pin.txt").read_text()
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_does_not_break_off_decoding():
    given = []
    for block in listening.until_interrupted(iter([np.zeros(1)] * 5)):
        given.append(block)
        if len(given) == 2:
            os.kill(os.getpid(), signal.SIGINT)
    assert len(given) == 2
    with pytest.raises(KeyboardInterrupt):
        for _ in listening.until_interrupted(iter([np.zeros(1)] * 5)):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)


def test_a_microphone_that_cannot_start(monkeypatch, capsys):
    class PortAudioError(Exception):
        pass

    class InputStream:
        def __init__(self, **_):
            pass

        def __enter__(self):
            raise PortAudioError("Unanticipated host error")

        def __exit__(self, *_):
            pass

    module = SimpleNamespace(PortAudioError=PortAudioError, InputStream=InputStream)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with pytest.raises(AsrError, match=r"the microphone cannot be used \(Unanticipated host error\); choose"):
        next(listening.microphone_blocks(16000))


def test_without_a_microphone(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert run(monkeypatch) == 1
    assert "a microphone needs sounddevice and PortAudio" in capsys.readouterr().err
    assert run(monkeypatch, "-", "--microphone", "desk") == 1
    assert "--microphone cannot be used with -" in capsys.readouterr().err
    assert run(monkeypatch, "a.wav") == 1
    assert "a.wav: asr listen reads no files; use asr transcribe" in capsys.readouterr().err
