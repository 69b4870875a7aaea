"""Whole runs on synthesized speech: overfitting, stopping and resuming, and settings that are refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from helpers import sections

from asr.config import Config
from asr.datasets.manifest import read_manifest, write_manifest
from asr.errors import AsrError
from asr.model_folder import load_model, load_tensors
from asr.training import checkpoints
from asr.training.loop import train
from asr.training.monitor import Monitor
from asr.training.runs import read_run
from asr.transcription.recognizer import Recognizer

DATA = Path(__file__).parents[2] / "data"
SAMPLES = DATA / "samples" / "digits" / "manifest.jsonl"


def settings(**train_settings) -> Config:
    """A very small model on the samples, with everything random switched on."""
    return Config.model_validate(
        {
            "model": sections(
                d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4
            ),
            "data": {"train": [SAMPLES], "dev": [SAMPLES], "first": 6, "batch_seconds": 8},
            "augment": {
                "speeds": [0.9, 1.0, 1.1],
                "gain_db": 6,
                "noise_db": [-60, -40],
                "edge_silence": 0.2,
                "silence": 1,
                "join": {"per_epoch": 4, "min_items": 2, "max_items": 2},
            },
            "optim": {"accumulate": 2, "warmup_steps": 5, "ema": 0.9},
            "train": {"steps": 12, "validate_every": 5, "checkpoint_every": 4, "average": 2} | train_settings,
        }
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(checkpoints.newest(run) / "model.safetensors")[0]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, expected: int, number: signal.Signals) -> None:
    """Send this process a signal in the middle of a step."""
    original = Monitor.step

    def step(self, done):
        original(self, done)
        if done.number == expected:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Monitor, "step", step)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run without any interruption."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert train(settings(), run, device="cpu") == 0
    return run


@pytest.mark.parametrize("stop", [1, 7])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path, monkeypatch, alone, stop
):
    with monkeypatch.context() as patch:
        interrupt_at(patch, stop, signal.SIGTERM)
        assert train(settings(), tmp_path / "stopped", device="cpu") == 128 + signal.SIGTERM
    assert checkpoints.newest(tmp_path / "stopped").name == f"step-{stop:08d}"
    torch.rand(3)  # the state of the global generator must not matter
    assert train(settings(), tmp_path / "stopped", resume="always", device="cpu") == 0

    expected, found = weights(alone), weights(tmp_path / "stopped")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    final = [load_tensors(run / "model.safetensors")[0] for run in (alone, tmp_path / "stopped")]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[0])


def test_other_seeds_give_other_weights(tmp_path):
    for seed in (0, 1):
        train(settings(seed=seed, steps=2), tmp_path / str(seed), device="cpu")
    a, b = weights(tmp_path / "0"), weights(tmp_path / "1")
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_ctrl_c_saves_and_ends(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 3, signal.SIGINT)
    assert train(settings(), tmp_path / "run", device="cpu") == 128 + signal.SIGINT
    assert checkpoints.newest(tmp_path / "run").name == "step-00000003"


def test_every_checkpoint_is_a_model_folder_and_old_ones_are_deleted(alone):
    folders = sorted((alone / "checkpoints").iterdir())
    assert len(folders) <= 4  # the newest two and the best two
    assert [f.name for f in folders if (f / "optimizer.safetensors").exists()] == [
        f.name for f in folders[-2:]
    ]
    for folder in [*folders, alone]:
        assert load_model(folder, "cpu").parameters() > 0
        assert float(load_model(folder, "cpu").metadata["longest_seconds"]) > 1
    assert list((alone / "tensorboard").glob("events*"))


def test_an_unfinished_checkpoint_is_never_resumed_from(tmp_path, monkeypatch):
    """If a process dies while it writes, the previous checkpoint is used."""
    run = tmp_path / "run"

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, signal.SIGTERM)
        train(settings(), run, device="cpu")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "training_tensors", die)
        train(settings(), run, resume="always", device="cpu")
    assert checkpoints.newest(run).name == "step-00000004"
    assert train(settings(), run, resume="always", device="cpu") == 0


def overfit(count: int, run: Path) -> None:
    sizes = dict(d_model=96, n_heads=4, d_ffn=192, encoder_layers=2, decoder_layers=1, conv_channels=16)
    # The numbers of transcription: a model of a hundred steps is not sure enough for others.
    values = {"model": sections(**sizes), "data": {"train": [SAMPLES]}, "train": {"precision": "float32"}}
    config = Config.model_validate(values)
    assert train(config.overfit(count), run, device="cpu") == 0


def test_overfitting_three_utterances_reaches_wer_0(tmp_path):
    overfit(3, tmp_path / "run")
    result = read_run(tmp_path / "run")
    assert result.wer == 0 and result.step < 200 and "train.stop_wer is reached" in result.status


@pytest.mark.slow
def test_a_model_of_eight_utterances_transcribes_them(tmp_path):
    overfit(8, tmp_path / "run")
    recognizer = Recognizer(tmp_path / "run", device="cpu")
    for utterance in read_manifest(SAMPLES)[:8]:
        assert recognizer.transcribe(utterance.audio).text == utterance.text


def test_a_folder_with_a_run_is_refused_without_resume(tmp_path):
    train(settings(steps=1), tmp_path / "run", device="cpu")
    with pytest.raises(AsrError, match="--resume"):
        train(settings(steps=1), tmp_path / "run", device="cpu")


def test_resume_without_a_run_is_refused(tmp_path):
    with pytest.raises(AsrError, match="nothing to resume"):
        train(settings(steps=1), tmp_path / "run", resume="always", device="cpu")


def test_settings_that_cannot_be_trained_are_refused_before_the_first_step(tmp_path):
    missing = settings().model_copy(
        update={"data": settings().data.model_copy(update={"train": (Path("no.jsonl"),)})}
    )
    with pytest.raises(AsrError, match=r"no\.jsonl"):
        train(missing, tmp_path / "run", device="cpu")

    empty = tmp_path / "empty.jsonl"
    empty.touch()
    nothing = settings().model_copy(update={"data": settings().data.model_copy(update={"train": (empty,)})})
    with pytest.raises(AsrError, match="no utterance left"):
        train(nothing, tmp_path / "run", device="cpu")


def test_a_character_never_trained_on_is_named(tmp_path):
    utterances = read_manifest(SAMPLES)
    strange = tmp_path / "dev.jsonl"
    write_manifest(strange, [utterances[0].__class__(**{**vars(utterances[0]), "text": "naïve"})])
    config = settings().model_copy(update={"data": settings().data.model_copy(update={"dev": (strange,)})})
    with pytest.raises(AsrError, match=r"dev\.jsonl.*has 'a'|dev\.jsonl.*'ï'"):
        train(config, tmp_path / "run", device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_the_gpu_overfits(tmp_path):
    config = Config.model_validate({"model": {"preset": "tiny"}, "data": {"train": [SAMPLES]}}).overfit(8)
    assert train(config, tmp_path / "run", device="cuda") == 0
    assert Recognizer(tmp_path / "run", device="cuda").transcribe(read_manifest(SAMPLES)[0].audio).text
