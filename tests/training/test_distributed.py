"""Training with two processes, started by torchrun, against training with one."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from helpers import sections
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asr.config import Config, load_config
from asr.errors import AsrError
from asr.model_folder import load_tensors
from asr.training import checkpoints, distributed
from asr.training.loop import train

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "data" / "samples" / "digits" / "manifest.jsonl"


def experiment(folder: Path, accumulate: int, optimizer: str = "adamw", **train_settings) -> Path:
    """All randomness is on. An epoch has seven batches, so its last step has a process without a batch.

    The eps of Adam is large, so that a gradient that is zero but for rounding does not count.
    """
    config = Config.model_validate(
        {
            "model": sections(
                d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4
            ),
            "data": {"train": [SAMPLES], "dev": [SAMPLES], "first": 7, "batch_seconds": 6, "max_batch": 1},
            "augment": {"speeds": [0.9, 1.0, 1.1], "gain_db": 6, "noise_db": [-60, -40], "edge_silence": 0.2},
            "optim": {
                "optimizer": optimizer,
                "accumulate": accumulate,
                "warmup_steps": 5,
                "ema": 0.9,
                "eps": 1e-4,
            },
            "train": {
                "steps": 6,
                "validate_every": 3,
                "checkpoint_every": 2,
                "average": 2,
                "token_noise": 0.1,
            }
            | train_settings,
        }
    )
    folder.mkdir(exist_ok=True)
    config.save(folder / "experiment.yaml")
    return folder / "experiment.yaml"


def command(processes: int, config: Path, run: Path, *more: str) -> list[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    launch = [*torchrun, "--standalone"] if processes > 1 else [sys.executable]
    options = ["--run-dir", str(run), "--device", "cpu", *more]
    return [*launch, str(ROOT / "cli.py"), "train", str(config), *options]


def call(*arguments, **options) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(*arguments), env=environment, capture_output=True, text=True, timeout=900, **options
    )


def curve(run: Path, name: str) -> list[float]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [point.value for point in events.Scalars(name)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_processes_do_what_one_does_with_the_doubled_batch(tmp_path, optimizer):
    whole = experiment(tmp_path / "1", accumulate=4, optimizer=optimizer)
    assert train(load_config(whole), tmp_path / "one", device="cpu") == 0
    two = call(2, experiment(tmp_path / "2", accumulate=2, optimizer=optimizer), tmp_path / "two")
    assert two.returncode == 0, two.stderr
    for name in ("train/loss", "train/gradient_norm"):
        assert curve(tmp_path / "two", name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-4)
        assert len(curve(tmp_path / "two", name)) == 6
    progress = [
        json.loads((checkpoints.newest(tmp_path / run) / "trainer.json").read_text())
        for run in ("one", "two")
    ]
    for key in ("step", "position"):
        assert progress[0][key] == progress[1][key]
    assert [e["loss"] for e in progress[1]["history"]] == pytest.approx(
        [e["loss"] for e in progress[0]["history"]], rel=1e-4
    )
    assert [e["cer"] for e in progress[1]["history"]] == [e["cer"] for e in progress[0]["history"]]
    a, b = (
        load_tensors(checkpoints.newest(tmp_path / run) / "model.safetensors")[0] for run in ("one", "two")
    )
    assert all(torch.allclose(a[name], b[name], atol=2e-5) for name in a)


@pytest.mark.parametrize("lost", [False, True])
def test_a_process_leaves_when_all_are_done_and_its_model_is_gone(monkeypatch, lost):
    """A process group that outlives the others, or is used by a model, can abort the process at its exit."""
    calls, results = [], {"init_process_group": None, "get_rank": 0, "barrier": None}
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, result in (results | {"destroy_process_group": None}).items():
        monkeypatch.setattr(distributed.dist, name, lambda *_, n=name, r=result: calls.append(n) or r)

    class Model:
        def __init__(self):
            self.itself = self  # as DistributedDataParallel: only the garbage collector removes it
            weakref.finalize(self, calls.append, "model is gone")

    gc.disable()
    try:
        refused = pytest.raises(AsrError, match="another process") if lost else nullcontext()
        with refused, distributed.join("cpu"):
            Model()
            if lost:
                raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    finally:
        gc.enable()
    assert calls == [*list(results)[: 2 if lost else 3], "model is gone", "destroy_process_group"]


@pytest.mark.slow
def test_torchrun_stops_its_processes_together_and_they_leave_a_checkpoint(tmp_path):
    config = experiment(tmp_path, accumulate=1, steps=2000, validate_every=500, checkpoint_every=500)
    run = tmp_path / "run"
    process = subprocess.Popen(command(2, config, run), env=os.environ | {"OMP_NUM_THREADS": "1"})
    wait_until(lambda: list(run.glob("tensorboard/events*")), process)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.wait(timeout=300)
    assert time.monotonic() - began < 30  # which torchrun's own limit is
    stopped = checkpoints.newest(run)
    assert stopped is not None
    step = json.loads((stopped / "trainer.json").read_text())["step"]
    assert 0 < step < 2000


# ------------------------------------------------------- two processes without torchrun, which starts a third


@pytest.fixture
def start_two():
    """Starts two processes of one run, as torchrun does. None of them outlives the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments) -> list[subprocess.Popen[str]]:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        shared |= {"LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"}
        for rank in ("0", "1"):
            environment = os.environ | shared | {"RANK": rank}
            processes.append(
                subprocess.Popen(command(1, *arguments), env=environment, stderr=subprocess.PIPE, text=True)
            )
        return processes

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_two_processes_are_stopped_together_and_leave_a_checkpoint(tmp_path, start_two):
    """The first checkpoint shows that they take steps."""
    config = experiment(tmp_path, accumulate=1, steps=100_000, validate_every=100_000, checkpoint_every=5)
    run = tmp_path / "run"
    processes = start_two(config, run)
    wait_until(lambda: checkpoints.newest(run), processes[0])
    for process in processes:
        process.send_signal(signal.SIGTERM)
    messages = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == 2 * [128 + signal.SIGTERM], messages
    step = json.loads((checkpoints.newest(run) / "trainer.json").read_text())["step"]
    assert 5 <= step < 100_000 and f"stopped at step {step};" in messages[0]


def test_when_a_process_dies_the_other_one_ends_with_one_line(tmp_path, start_two):
    """torchrun would end the other process itself."""
    config = experiment(tmp_path, accumulate=1, steps=100_000, validate_every=100_000, checkpoint_every=5)
    first, second = start_two(config, tmp_path / "run")
    wait_until(lambda: checkpoints.newest(tmp_path / "run"), first)
    second.kill()
    _, message = first.communicate(timeout=300)
    assert first.returncode == 1, message
    assert "Traceback" not in message
    errors = [line for line in message.splitlines() if "asr: error:" in line]
    assert len(errors) == 1 and "another process of this training has ended" in errors[0]


def test_an_error_is_reported_by_one_process_only(tmp_path, start_two):
    processes = start_two(experiment(tmp_path, accumulate=1), tmp_path / "none", "--resume")
    messages = [process.communicate(timeout=900)[1] for process in processes]
    assert all(process.returncode != 0 for process in processes)
    assert "".join(messages).count("nothing to resume") == 1, messages


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_until(happened: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 900  # a machine may be busy with something else
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
