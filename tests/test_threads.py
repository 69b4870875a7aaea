"""The number of threads depends on the load of the machine."""

import os
import subprocess
import sys

import pytest

from asr import threads
from asr.transcription.job import Output, transcribe_inputs


@pytest.fixture
def machine(monkeypatch):
    """A machine of four cores with a load; no OpenMP settings."""
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    return lambda load: monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)


@pytest.mark.parametrize(("load", "free"), [(0.0, 4), (0.4, 4), (0.6, 3), (2.2, 2), (3.9, 1), (50.0, 1)])
def test_free_cores(machine, load, free):
    machine(load)
    assert threads.free_cores() == threads.default_threads() == free
    threads.wait_passively_if_busy()
    assert os.environ.get("OMP_WAIT_POLICY") == (None if free == 4 else "PASSIVE")


def test_settings_of_the_user_stay(machine, monkeypatch):
    machine(3.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    threads.wait_passively_if_busy()
    assert threads.default_threads() is None and os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_transcription_takes_the_free_cores(machine, monkeypatch, tiny_model, tmp_path, capsys):
    import torch

    machine(2.0)
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    for number in (None, 3):
        transcribe_inputs([str(tmp_path / "missing.wav")], Output(), tiny_model, "cpu", threads=number)
    assert taken == [2, 3]


def test_the_command_line_sets_it_before_torch_is_imported():
    code = """
import os, sys
os.getloadavg = lambda: (1000.0, 0.0, 0.0)
os.sched_getaffinity = lambda pid: {0, 1}
from asr import commands
sys.argv = ["asr", "--version"]
try:
    commands.main()
except SystemExit:
    pass
sys.exit(os.environ["OMP_WAIT_POLICY"] != "PASSIVE" or "torch" in sys.modules)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
