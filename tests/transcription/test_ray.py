"""Actors of Ray give the texts of one process. Starting Ray takes long."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.errors import AsrError
from asr.transcription import ray_workers
from asr.transcription.inputs import Input
from asr.transcription.recognizer import Recognizer


def test_without_ray(monkeypatch, tiny_model):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(AsrError, match=r"--ray needs Ray; install it with: pip install 'ray\[data\]'"):
        next(ray_workers.transcribe_on_ray(None, [Input.of("a.wav")]))


@pytest.mark.slow
def test_two_actors(tiny_model, tmp_path):
    """Also when the system ends one of them."""
    ray = pytest.importorskip("ray")
    for i in range(10):
        time = np.arange(3200 + 800 * i) / 16000
        soundfile.write(tmp_path / f"{i}.wav", 0.3 * np.sin(2 * np.pi * 150 * (i + 1) * time), 16000)
    (tmp_path / "4.wav").write_bytes(b"RIFF")
    inputs = [Input.of(tmp_path / f"{i}.wav") for i in range(10)]
    recognizer = Recognizer(tiny_model, "cpu")
    expected = list(recognizer.transcribe_all(inputs))
    ray.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)
    try:
        found, killed = {}, False
        for position, result in ray_workers.transcribe_on_ray(recognizer, inputs, 2):
            found[position] = result
            if not killed:
                killed = kill_an_actor()
        assert killed and sorted(found) == list(range(10))
        for position, result in found.items():
            assert str(getattr(result, "text", result)) == str(
                getattr(expected[position], "text", expected[position])
            )
    finally:
        ray.shutdown()


def kill_an_actor():
    """By the name that Ray gives to its process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"MapWorker" in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
                return True
        except OSError:
            continue
    return False
