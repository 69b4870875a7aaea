"""Runs that are killed and continued equal a run that is not; no input makes the job fail."""

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import AsrError
from asr.transcription import job
from asr.transcription.inputs import Input
from asr.transcription.output import Output
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Transcript

FORMATS = ("wav", "flac", "ogg", "mp3", "aiff", "au")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    for i in range(16):
        times = np.arange(2000 + 700 * (i * 7 % 16)) / 16000
        soundfile.write(folder / f"{i:02}.wav", 0.3 * np.sin(2 * np.pi * 100 * (i + 1) * times), 16000)
    return folder


def in_a_process(function):
    """Run a function in a copy of this process; its id."""
    pid = os.fork()
    if not pid:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def transcribe(sounds, model, output):
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        sys.stdout = sys.stderr = nowhere
        job.transcribe_inputs([str(sounds)], output, model, "cpu", 1.0, workers=2)


def killed_runs(sounds, model, output, times, done, seed):
    """Runs of which so many are killed, after a few more results each, or at any moment."""
    draw = random.Random(seed)
    for _ in range(times):
        before, more = done(), draw.randint(1, 4)
        pid = in_a_process(lambda: transcribe(sounds, model, output))
        while done() < before + more and not os.waitpid(pid, os.WNOHANG)[0]:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.02))
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            break
    os.waitpid(in_a_process(lambda: transcribe(sounds, model, output)), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize(
    ("times", "seeds"), [(1, 1), pytest.param(20, 3, marks=pytest.mark.slow)], ids=["once", "twenty times"]
)
def test_killed_and_continued(tiny_model, sounds, tmp_path, times, seeds):
    """The files of a folder, and the lines of one file: none twice, none missing, all whole."""
    recognizer = Recognizer(tiny_model, "cpu")
    results = recognizer.transcribe_all(sorted(sounds.iterdir()))
    texts = {Path(result.id).stem: result.text for result in results}
    for seed in range(seeds):
        out = tmp_path / f"out{seed}"
        folder = Output(folder=out, formats=("json", "txt"), resume=True)
        killed_runs(sounds, tiny_model, folder, times, lambda: len(list(out.glob("*.txt"))), seed)  # noqa: B023
        assert sorted(p.name for p in out.iterdir()) == sorted(
            f"{n}.{f}" for n in texts for f in ("json", "txt")
        )
        for name, text in texts.items():
            assert (out / f"{name}.txt").read_text() == text + "\n"
        file = tmp_path / f"out{seed}.jsonl"
        count = lambda: file.read_bytes().count(b"\n") if file.exists() else 0  # noqa: B023, E731
        killed_runs(sounds, tiny_model, Output(file, resume=True), times, count, seed)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [(Path(line["id"]).stem, line["text"]) for line in lines] == list(texts.items())


# ---------------------------------------------------------------------------------------------------- fuzzing


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """The bytes of one second of sound in each format."""
    folder = tmp_path_factory.mktemp("formats")
    samples = 0.3 * np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
    found = {}
    for name in FORMATS:
        soundfile.write(folder / f"a.{name}", samples, 16000)
        found[name] = (folder / f"a.{name}").read_bytes()
    return found


damage = st.fixed_dictionaries(
    {
        "format": st.sampled_from(FORMATS),
        "keep": st.one_of(st.just(1.0), st.floats(0.0, 1.0)),
        "changes": st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=3),
        "append": st.binary(max_size=64),
        "suffix": st.sampled_from((*FORMATS, "mp4", "txt", "")),
    }
)
part = st.one_of(st.none(), st.tuples(st.floats(0, 2), st.one_of(st.none(), st.floats(0.001, 1e6))))


def check(recognizer, encoded, files):
    """Each damaged file gives one transcript of all its audio, or one clear line."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = []
        for i, (how, place) in enumerate(files):
            data = bytearray(encoded[how["format"]])
            data = data[: round(how["keep"] * len(data))]
            for at, change in how["changes"]:
                first = round(at * max(0, len(data) - len(change)))
                data[first : first + len(change)] = change
            path = Path(folder) / f"{i}.{how['suffix']}"
            path.write_bytes(data + how["append"])
            start, duration = place or (0.0, None)
            inputs.append(Input(str(path), path, Path(path.stem), start, duration))
        results = list(recognizer.transcribe_all(inputs))
        assert len(results) == len(inputs)
        for (how, place), input, result in zip(files, inputs, results, strict=True):
            if isinstance(result, AsrError):
                assert str(result).startswith(input.id) and str(result).isprintable()
                continue
            assert isinstance(result, Transcript) and result.id == input.id
            intact = not how["changes"] and not how["append"]
            if intact and not place and how["keep"] < 0.99:
                assert result.duration >= 0.95  # nothing that was cut passes as whole


@pytest.mark.filterwarnings("ignore:.*16-bit samples")
@given(files=st.lists(st.tuples(damage, part), min_size=1, max_size=8))
@settings(max_examples=12)
def test_damaged_files(encoded, files, recognizer):
    check(recognizer, encoded, files)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*16-bit samples")
@given(files=st.lists(st.tuples(damage, part), min_size=4, max_size=8))
@settings(max_examples=250)
def test_a_thousand_damaged_files(encoded, files, recognizer):
    check(recognizer, encoded, files)


@pytest.fixture(scope="module")
def recognizer(tiny_model):
    return Recognizer(tiny_model, "cpu")
