"""Several processes give the results of one; a process that ends takes nothing with it but its file."""

import copy
import os
import signal
import sys
import threading
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import soundfile
import torch

from asr.errors import AsrError
from asr.transcription import job, workers
from asr.transcription.inputs import Input
from asr.transcription.output import Output
from asr.transcription.pieces import PieceReader
from asr.transcription.recognizer import Recognizer
from asr.transcription.workers import WorkerPool, expected_seconds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="patches reach forked processes only")


@pytest.fixture(autouse=True)
def small_portions(monkeypatch):
    """Of a few files, so that both processes have work."""
    monkeypatch.setattr(workers, "FIRST_WINDOW", 0.5)


@pytest.fixture(scope="module")
def recognizer(tiny_model):
    return Recognizer(tiny_model, "cpu", batch_seconds=2.0)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A folder of 12 tones of 0.2 to 1 s."""
    folder = tmp_path_factory.mktemp("sounds")
    for i in range(12):
        time_ = np.arange(3200 + 1100 * (i * 5 % 12)) / 16000
        soundfile.write(folder / f"{i:02}.wav", 0.3 * np.sin(2 * np.pi * 150 * (i + 1) * time_), 16000)
    return folder


@pytest.fixture(scope="module")
def inputs(sounds):
    return [Input.of(path) for path in sorted(sounds.iterdir())]


@pytest.fixture(scope="module")
def texts(recognizer, inputs):
    found = [recognizer.transcribe(each).text for each in inputs]
    assert len(set(found)) > 6
    return found


def pooled(recognizer, inputs, count=2, **options):
    with WorkerPool(recognizer, count) as pool:
        found = dict(pool.transcribe(inputs, **options))
    assert sorted(found) == list(range(len(inputs)))
    return [found[i] for i in range(len(inputs))]


def test_processes_give_the_texts_of_one(recognizer, inputs, texts, tmp_path):
    """Also of pipes, which only the first process can read, and of bytes; a broken file has its error."""
    os.mkfifo(tmp_path / "pipe")
    content = inputs[3].audio.read_bytes()
    threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,)).start()
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    several = [Input.of(tmp_path / "pipe"), Input.of(tmp_path / "bad.wav"), *inputs, Input.of(content)]
    pipe, bad, *found = pooled(recognizer, several)
    assert [each.text for each in found] == [*texts, texts[3]] and pipe.text == texts[3]
    assert isinstance(bad, AsrError) and "bad.wav: " in str(bad)


def test_a_slow_file_holds_nothing_up(recognizer, inputs, texts, tmp_path):
    """It is a pipe without a writer until all other results are there."""
    os.mkfifo(tmp_path / "pipe")
    with WorkerPool(recognizer, 1) as pool:
        results = pool.transcribe([Input.of(tmp_path / "pipe"), *inputs], ordered=False)
        assert [next(results)[0] for _ in inputs] == list(range(1, 13))
        threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(inputs[0].audio.read_bytes(),)).start()
        ((position, last),) = results
    assert (position, last.text) == (0, texts[0])


def test_results_do_not_run_far_ahead_of_the_first(recognizer, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "AHEAD", 3)
    os.mkfifo(tmp_path / "pipe")
    with WorkerPool(recognizer, 1) as pool:
        results = pool.transcribe([Input.of(tmp_path / "pipe"), *inputs])
        assert [next(results)[0] for _ in range(2)] == [1, 2]
        thread = threading.Timer(0.3, (tmp_path / "pipe").write_bytes, [inputs[0].audio.read_bytes()])
        thread.start()
        assert next(results)[0] == 0 and not thread.is_alive()
        assert len(list(results)) == 10


class Broken:
    """An open file that fails after a while, as one on a network may."""

    name = "broken"

    def __init__(self, error):
        self.error = error

    def read(self):
        time.sleep(0.5)
        raise self.error


def test_what_follows_a_file_that_fails_late_comes(recognizer, inputs, monkeypatch):
    """Nothing was in work when it failed: all that it allowed was done."""
    monkeypatch.setattr(workers, "AHEAD", 3)
    error, *found = pooled(recognizer, [Input.of(Broken(OSError(5, "Input/output error"))), *inputs], 1)
    assert isinstance(error, AsrError) and "broken: cannot be read" in str(error)
    assert all(not isinstance(each, AsrError) for each in found)


def test_a_file_that_fails_in_another_way_ends_the_work(recognizer, inputs):
    with pytest.raises(MemoryError):
        pooled(recognizer, [Input.of(Broken(MemoryError())), *inputs[:2]], 1)


@pytest.mark.parametrize("times", [1, 2])
def test_a_killed_process(recognizer, inputs, texts, tmp_path, monkeypatch, times):
    """At its second end at a file, the file has an error. All other files have their results."""
    original = PieceReader._begin

    def deadly(self, job):
        if job.input.id.endswith("05.wav") and len(list(tmp_path.iterdir())) < times:
            (tmp_path / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, job)

    monkeypatch.setattr(PieceReader, "_begin", deadly)
    found = pooled(recognizer, inputs)
    if times == 2:
        error = found.pop(5)
        assert str(error).startswith(
            f"{inputs[5].id}: the process that transcribed it was killed twice (SIGKILL)"
        )
        texts = texts[:5] + texts[6:]
    assert [each.text for each in found] == texts


def test_a_process_that_ended_without_work_is_replaced(recognizer, inputs, texts):
    with WorkerPool(recognizer, 1) as pool:
        assert dict(pool.transcribe(inputs[:1]))[0].text == texts[0]
        pool._workers[0].process.kill()
        pool._workers[0].process.join()
        assert dict(pool.transcribe(inputs[:1]))[0].text == texts[0]


def test_processes_end_with_the_pool(recognizer, inputs):
    with WorkerPool(recognizer, 2) as pool:
        next(pool.transcribe(inputs))
        processes = [worker.process for worker in pool._workers]
    assert not any(process.is_alive() for process in processes)


def test_processes_end_when_the_first_one_is_killed(recognizer, inputs):
    """They see the end of their pipes."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        with WorkerPool(recognizer, 2) as pool:
            os.write(writer, " ".join(str(w.process.pid) for w in pool._workers).encode())
            time.sleep(600)
    pids = [int(pid) for pid in os.read(reader, 100).split()]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    began = time.monotonic()
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() - began < 60
        time.sleep(0.02)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_processes_with_several_threads(tiny_model, tmp_path):
    """A forked process would wait forever for OpenMP's threads, which fork does not copy."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 20 * 16000)  # long enough to be divided among threads
    soundfile.write(tmp_path / "a.wav", noise, 16000)
    torch.set_num_threads(2)
    try:
        recognizer = Recognizer(tiny_model, "cpu", batch_seconds=60.0, voice_activity=False)
        expected = recognizer.transcribe(tmp_path / "a.wav")
        with WorkerPool(recognizer, 2, threads=2) as pool:
            found = []
            read = pool.transcribe([Input.of(tmp_path / "a.wav")])
            Thread(target=lambda: found.append(next(read)), daemon=True).start()
            for _ in range(600):  # a minute
                if found:
                    break
                time.sleep(0.1)
        ((_, transcript),) = found
        assert transcript.text == expected.text
    finally:
        torch.set_num_threads(1)


def test_an_error_of_the_model_is_raised(recognizer, inputs):
    broken = copy.deepcopy(recognizer.bundle)
    broken.network.encoder.norm.weight.data[0] = torch.nan
    with pytest.raises(AsrError, match="not finite"):
        pooled(Recognizer(broken, voice_activity=False), inputs)


def test_the_job_writes_in_the_order_of_the_inputs(tiny_model, sounds, texts, tmp_path, capsys, monkeypatch):
    """Also where later results are there first: the first file takes as long as the others together."""
    original = PieceReader._begin
    monkeypatch.setattr(
        PieceReader,
        "_begin",
        lambda self, job: time.sleep(1.0 * job.input.id.endswith("00.wav")) or original(self, job),
    )
    arguments = [str(sounds / "00.wav"), str(tmp_path / "gone.wav"), str(sounds)]
    assert job.transcribe_inputs(arguments, Output(), tiny_model, "cpu", 2.0, workers=2) == 1
    out, err = capsys.readouterr()
    assert [line.split("\t")[1] for line in out.splitlines()] == [texts[0], *texts]
    assert "gone.wav: no such file" in err
    folder = Output(folder=tmp_path / "out")
    assert job.transcribe_inputs([str(sounds)], folder, tiny_model, "cpu", 2.0, workers=3) == 0
    assert [path.read_text().strip() for path in sorted((tmp_path / "out").iterdir())] == texts


def test_the_number_of_processes(tmp_path, monkeypatch):
    """On a CPU one for each thread, if there is work for it; on a GPU one."""
    long = [Input("a", tmp_path / "a", Path("a"), duration=100.0)] * 8
    monkeypatch.setattr(job, "default_threads", lambda: 2)
    assert job._processes("cpu", long, None, None, None) == (2, 1)
    assert job._processes("cpu", long, None, 6, None) == (6, 1)
    assert job._processes("cpu", long[:1], None, 6, None) == (1, 6)
    assert job._processes("cpu", long, 3, 6, None) == (3, 2)
    short = [Input("a", tmp_path / "a", Path("a"), duration=1.0)] * 8
    assert job._processes("cpu", short, None, 6, None) == (1, 6)
    assert job._processes("cuda", long, None, 2, None) == (1, 2)
    assert job._processes("cpu", long, 3, 2, 1) == (1, 2)


def test_expected_seconds(tmp_path):
    (tmp_path / "a.wav").write_bytes(bytes(64000))
    assert expected_seconds(Input.of(tmp_path / "a.wav")) == 2.0
    assert expected_seconds(Input.of(tmp_path / "none.wav")) == 0.0
    assert expected_seconds(Input.of(np.zeros(800), sample_rate=8000)) == 0.1
    assert expected_seconds(Input("x", tmp_path / "a.wav", Path("x"), duration=7.0)) == 7.0
