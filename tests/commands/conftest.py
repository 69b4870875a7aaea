"""Fixtures of the tests of the command line.

`main()` is called in this process, except where a test needs another one: importing torch takes seconds.
"""

from __future__ import annotations

import sys

import pytest
import soundfile
from command_line import tone

from asr import commands


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
