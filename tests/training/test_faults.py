"""Faults during a run: a full disk, lost and damaged files, signals, and kills at any moment."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import sections

from asr import files
from asr.config import Config
from asr.datasets.manifest import read_manifest, write_manifest
from asr.errors import AsrError
from asr.model_folder import load_model, load_tensors
from asr.training import checkpoints, loop, recognition
from asr.training.checkpoints import damage_of, newest, prune_checkpoints
from asr.training.loop import train
from asr.training.monitor import Monitor
from asr.training.recognition import RecognitionTask
from asr.training.train_state import TrainState

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "data" / "samples" / "digits" / "manifest.jsonl"


def settings(manifest: Path = SAMPLES, data=(), **train_settings) -> Config:
    """Ten short steps with all randomness on; three batches of dev; decoded audio is not cached."""
    sizes = sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4)
    usual = {"train": [manifest], "dev": [manifest], "first": 6, "batch_seconds": 6, "cache_mb": 0}
    return Config.model_validate(
        {
            "model": sizes,
            "data": usual | dict(data),
            "augment": {"speeds": [0.9, 1.0, 1.1], "gain_db": 6, "join": {"per_epoch": 2, "max_items": 3}},
            "optim": {"accumulate": 2, "warmup_steps": 3, "ema": 0.9},
            "train": {"steps": 10, "validate_every": 3, "checkpoint_every": 2, "average": 2} | train_settings,
        }
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run without any fault."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert train(settings(), run, device="cpu") == 0
    return run


def assert_ended_as(alone: Path, run: Path, model: bool = True) -> None:
    """Weights, averages and moments equal those of the other run, and no temporary file is left."""
    pairs = [
        (newest(where) / name for where in (alone, run))
        for name in ("model.safetensors", "optimizer.safetensors")
    ]
    if model:
        pairs.append(where / "model.safetensors" for where in (alone, run))
    for targets, found in pairs:
        (targets, _), (found, _) = load_tensors(targets), load_tensors(found)
        assert targets.keys() == found.keys()
        assert all(torch.equal(targets[name], found[name]) for name in targets)
    assert not list(run.rglob(".*"))


def after_step(monkeypatch: pytest.MonkeyPatch, happen: Callable[[int], None]) -> None:
    original = Monitor.step

    def step(self, done):
        original(self, done)
        happen(done.number)

    monkeypatch.setattr(Monitor, "step", step)


class Disk:
    """A disk that is full while `full` is true: writing fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        original = os.fsync

        def fsync(number):
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(number)

        monkeypatch.setattr(files.os, "fsync", fsync)


# -------------------------------------------------------------------------------------------------- full disk


def test_a_disk_that_is_full_for_a_while_costs_only_checkpoints(tmp_path, monkeypatch, capsys, alone):
    disk = Disk(monkeypatch)
    after_step(monkeypatch, lambda number: setattr(disk, "full", number in (3, 4)))
    assert train(settings(), tmp_path / "run", device="cpu") == 0
    message = capsys.readouterr().err
    assert "no checkpoint of step 3: " in message and "No space left on device" in message
    assert "Traceback" not in message
    assert_ended_as(alone, tmp_path / "run", model=False)
    assert load_model(tmp_path / "run", "cpu").metadata["step"] in ("6", "9", "10")


def test_the_best_model_is_in_the_run_folder_although_there_was_no_room_at_first(tmp_path, monkeypatch):
    """Validation 6 is the best, and its model cannot be written; its checkpoint can. The average is worse."""
    disk, rates = Disk(monkeypatch), iter([0.9, 0.3, 0.8, 0.7, 0.95])
    original_save, original_validate = checkpoints.save_checkpoint, RecognitionTask.validate

    def validate(*given):
        found, rate = original_validate(*given), next(rates)
        disk.full = rate == 0.3
        return replace(found, scores=found.scores | {"cer": rate, "wer": rate})

    def save(*given):
        disk.full = False
        original_save(*given)

    monkeypatch.setattr(RecognitionTask, "validate", validate)
    monkeypatch.setattr(loop, "save_checkpoint", save)
    run = tmp_path / "run"
    assert train(settings(), run, device="cpu") == 0
    model, message = load_tensors(run / "model.safetensors")
    assert (message["step"], message["dev_cer"]) == ("6", "0.3") and "averaged" not in message
    best, _ = load_tensors(run / "checkpoints" / "step-00000006" / "model.safetensors")
    assert all(torch.equal(model[name], best[name]) for name in best)


def test_a_disk_that_stays_full_ends_the_training_and_keeps_earlier_files(tmp_path, monkeypatch):
    run, config = tmp_path / "run", settings(validate_every=1, checkpoint_every=1)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        after_step(patch, lambda number: setattr(disk, "full", number > 2))
        with pytest.raises(AsrError, match="No space left on device"):
            train(config, run, device="cpu")
    assert newest(run).name == "step-00000002"
    assert train(config, run, resume="always", device="cpu") == 0


# ---------------------------------------------------------------------------- recordings that vanish or break


@pytest.fixture
def corpus(tmp_path):
    """A copy of the samples that a test may damage."""
    shutil.copytree(SAMPLES.parent, tmp_path / "samples")
    return [replace(u, audio=tmp_path / "samples" / u.audio.name) for u in read_manifest(SAMPLES)[:6]]


def harm(monkeypatch, corpus):
    """After the second step, one recording is deleted and another one is truncated to its half."""

    def happen(number):
        if number == 2:
            corpus[0].audio.unlink()
            data = corpus[1].audio.read_bytes()
            corpus[1].audio.write_bytes(data[: len(data) // 2])

    after_step(monkeypatch, happen)


def test_recordings_that_are_lost_or_damaged_during_an_epoch_are_counted_and_left_out(
    tmp_path, monkeypatch, corpus, capsys
):
    write_manifest(tmp_path / "m.jsonl", corpus)
    harm(monkeypatch, corpus)
    assert train(settings(tmp_path / "m.jsonl"), tmp_path / "run", device="cpu") == 0
    message = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert len(message) == 2  # once each, although every epoch and validation comes across them
    for utterance in corpus[:2]:
        assert sum(str(utterance.audio) in line for line in message) == 1
    tensors, _ = load_tensors(newest(tmp_path / "run") / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_more_bad_recordings_than_allowed_end_the_training(tmp_path, monkeypatch, corpus):
    write_manifest(tmp_path / "m.jsonl", corpus)
    harm(monkeypatch, corpus)
    with pytest.raises(AsrError, match=r"2 recordings cannot be read, more than data.max_bad 1; the last: "):
        train(settings(tmp_path / "m.jsonl", {"max_bad": 1}), tmp_path / "run", device="cpu")
    assert newest(tmp_path / "run") is not None


def test_a_missing_dev_set_is_not_a_perfect_score(tmp_path, monkeypatch, corpus):
    write_manifest(tmp_path / "m.jsonl", corpus)
    after_step(monkeypatch, lambda number: [u.audio.unlink(missing_ok=True) for u in corpus])
    config = settings(SAMPLES, {"dev": [tmp_path / "m.jsonl"]})
    with pytest.raises(AsrError, match=r"data\.dev: no recording can be read; the first: "):
        train(config, tmp_path / "run", device="cpu")


# ------------------------------------------------------------------------------------------ signals and kills


def test_a_signal_during_validation_saves_and_ends_at_once(tmp_path, monkeypatch, alone):
    decoded = 0
    with monkeypatch.context() as patch:
        original = recognition.build_decoder

        def build_decoder(*given):
            decode = original(*given)

            def decode_and_signal(memory):
                nonlocal decoded
                decoded += 1
                if decoded == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                return decode(memory)

            return decode_and_signal

        patch.setattr(recognition, "build_decoder", build_decoder)
        assert train(settings(), tmp_path / "run", device="cpu") == 128 + signal.SIGINT
    assert decoded == 1  # of several batches
    assert newest(tmp_path / "run").name == "step-00000003"
    assert train(settings(), tmp_path / "run", resume="always", device="cpu") == 0
    assert_ended_as(alone, tmp_path / "run")


def test_a_signal_while_the_average_is_scored(tmp_path, monkeypatch, alone):
    with monkeypatch.context() as patch:
        original = loop.average_weights

        def average_weights(*given):
            os.kill(os.getpid(), signal.SIGTERM)
            return original(*given)

        patch.setattr(loop, "average_weights", average_weights)
        assert train(settings(), tmp_path / "run", device="cpu") == 128 + signal.SIGTERM
    assert train(settings(), tmp_path / "run", resume="always", device="cpu") == 0
    assert_ended_as(alone, tmp_path / "run")


def test_files_left_by_a_killed_process_are_removed_by_resuming(tmp_path, monkeypatch, alone):
    """A part of a model, a part of a checkpoint, and two checkpoints whose deletion had begun."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        after_step(patch, lambda number: number == 7 and os.kill(os.getpid(), signal.SIGTERM))
        assert train(settings(), run, device="cpu") == 128 + signal.SIGTERM
    (run / ".model.safetensors.123.tmp").write_bytes(b"half")
    (run / "checkpoints" / ".step-00000008.tmp").mkdir()
    (run / "checkpoints" / ".step-00000008.tmp" / "config.json").write_text("{}")
    (newest(run) / ".trainer.json.123.tmp").write_text("{")
    shutil.copytree(newest(run), run / "checkpoints" / "step-00000004")
    (run / "checkpoints" / "step-00000002").mkdir()
    (run / "checkpoints" / "step-00000002" / "trainer.json").write_text("{}")
    assert train(settings(), run, resume="always", device="cpu") == 0
    assert_ended_as(alone, run)
    names = [sorted(path.name for path in (where / "checkpoints").iterdir()) for where in (alone, run)]
    assert names[0] == names[1]


def test_a_checkpoint_is_deleted_as_a_whole(tmp_path, monkeypatch):
    """A kill during the deletion leaves no folder that has the name of a checkpoint but is incomplete."""
    folders = [tmp_path / "checkpoints" / f"step-{step:08d}" for step in (1, 2, 3)]
    for folder in folders:
        folder.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "optimizer.safetensors", "trainer.json"):
            (folder / name).touch()
    original = os.unlink

    def unlink(*given, **named):
        original(*given, **named)
        raise KeyboardInterrupt  # after the first file

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "unlink", unlink)
        prune_checkpoints(tmp_path, TrainState(step=3), keep=1)
    assert [
        path for path in (tmp_path / "checkpoints").glob("step-*") if len(list(path.iterdir())) != 4
    ] == []
    assert newest(tmp_path) == folders[2]
    prune_checkpoints(tmp_path, TrainState(step=3), keep=1)
    assert sorted((tmp_path / "checkpoints").iterdir()) == folders[1:]


def test_a_lost_terminal_saves_and_ends_the_run_except_under_nohup(tmp_path, monkeypatch):
    # pytest itself may run under nohup, which makes it ignore the signal: the test sets its own beginning.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with monkeypatch.context() as patch:
            after_step(patch, lambda number: number == 5 and os.kill(os.getpid(), signal.SIGHUP))
            assert train(settings(), tmp_path / "run", device="cpu") == 128 + signal.SIGHUP
            assert newest(tmp_path / "run").name == "step-00000005"
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            assert train(settings(), tmp_path / "nohup", device="cpu") == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("ending", ["finished", "stopped", "failed"])
def test_a_closed_pipe_of_the_log_changes_neither_the_run_nor_its_exit_status(tmp_path, ending):
    """As in `asr train ... 2>&1 | head -1`. The reader goes after the first line."""
    config = tmp_path / "config.json"
    settings(steps=4 if ending == "finished" else 5000, max_skipped=0).save(config)
    options = ["--run", tmp_path / "run", "--device", "cpu"]
    options += ["optim.lr=1e6", "optim.warmup_steps=0", "optim.ema=null"] if ending == "failed" else []
    command = [sys.executable, ROOT / "cli.py", "train", config, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    process.stderr.readline()
    process.stderr.close()
    if ending == "stopped":
        while newest(tmp_path / "run") is None:
            assert process.poll() is None
            time.sleep(0.1)
        process.terminate()
    expected = {"finished": 0, "stopped": 128 + signal.SIGTERM, "failed": 1}
    assert process.wait(timeout=300) == expected[ending]
    if ending != "failed":
        assert newest(tmp_path / "run") is not None and damage_of(newest(tmp_path / "run")) is None


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one():
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--kills", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills" in done.stdout and "passed" in done.stdout
