"""Faults that training survives, their limits, and the rules that end it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers import sections

from asr.config import Config
from asr.errors import AsrError
from asr.files import claimed
from asr.model_folder import load_model, load_tensors
from asr.training import checkpoints, loop, memory_check
from asr.training.loop import train
from asr.training.objective import RecognitionObjective
from asr.training.recognition import RecognitionTask
from asr.training.runs import read_run

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"


def settings(train_settings: dict | None = None, **others) -> Config:
    """Two batches an epoch, of three utterances each."""
    sizes = sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4)
    data = {"train": [SAMPLES], "dev": [SAMPLES], "first": 6, "batch_seconds": 100, "max_batch": 3}
    given = {"steps": 4, "validate_every": 2, "checkpoint_every": 2} | (train_settings or {})
    return Config.model_validate(
        {
            "model": sizes,
            "data": data | others.pop("data", {}),
            "augment": {"specaugment": None},
            "train": given,
        }
        | others
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(checkpoints.newest(run) / "model.safetensors")[0]


def poison(monkeypatch: pytest.MonkeyPatch, when) -> None:
    """The loss of some batches is not a number."""
    original = RecognitionObjective.forward

    def forward(self, batch, step=0):
        losses, unalignable = original(self, batch, step)
        return losses * (float("nan") if when(batch.place) else 1.0), unalignable

    monkeypatch.setattr(RecognitionObjective, "forward", forward)


def test_a_step_without_finite_gradient_is_skipped_and_its_batch_named(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        poison(patch, lambda place: place == 1)
        assert train(settings(), tmp_path / "run", device="cpu") == 0
    message = capsys.readouterr().err
    assert message.count("skipped: its gradient") == 2  # once in each of the two epochs
    assert "epoch 0, batch 1: " in message and "epoch 1, batch 1: " in message
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())


def test_too_many_skipped_steps_end_the_training(tmp_path, monkeypatch):
    poison(monkeypatch, lambda place: True)
    with pytest.raises(AsrError, match=r"2 steps in a row .* train\.max_skipped 1; lower optim\.lr"):
        train(settings({"max_skipped": 1, "steps": 10}), tmp_path / "run", device="cpu")
    monkeypatch.undo()
    assert checkpoints.newest(tmp_path / "run").name == "step-00000002"  # nothing is lost
    more = settings({"max_skipped": 5, "steps": 10})
    assert train(more, tmp_path / "run", resume="always", device="cpu") == 0


def test_patience_ends_the_training(tmp_path, monkeypatch, capsys):
    given = {"steps": 1000, "validate_every": 1, "patience": 3}
    config = settings(given, optim={"lr": 1e-12, "warmup_steps": 0})  # nothing can get better
    assert train(config, tmp_path / "run", device="cpu") == 0
    assert "no better score for 3 validations" in capsys.readouterr().err
    step = int(checkpoints.newest(tmp_path / "run").name.removeprefix("step-"))
    assert step == 4  # the first one was the best, and three have come since
    assert train(config, tmp_path / "run", resume="always", device="cpu") == 0  # it has ended, and stays so
    assert checkpoints.newest(tmp_path / "run").name == f"step-{step:08d}"


def test_fine_tuning_starts_from_the_other_model_and_leaves_frozen_weights(tmp_path, capsys):
    assert train(settings(), tmp_path / "old", device="cpu") == 0
    config = settings({"init": tmp_path / "old", "freeze": ("encoder.*",), "steps": 2})
    assert train(config, tmp_path / "new", device="cpu") == 0
    message = capsys.readouterr().err
    assert f"started from {tmp_path / 'old'}" in message and "not trained: encoder." in message
    old, new = (load_tensors(tmp_path / run / "model.safetensors")[0] for run in ("old", "new"))
    for name in old:
        if name.startswith(("network.encoder.", "features.")):
            assert torch.equal(old[name], new[name]), name
    assert not torch.equal(old["network.decoder.out.weight"], new["network.decoder.out.weight"])


def test_accumulated_batches_equal_the_larger_batch(tmp_path):
    """Gradients of three times one utterance and of one batch with all three, dropout aside."""
    found = []
    for accumulate, max_batch in ((3, 1), (1, 3)):
        config = settings(
            {"steps": 1, "validate_every": 1},
            data={"first": 3, "max_batch": max_batch},
            optim={"accumulate": accumulate, "warmup_steps": 0},
            model=sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, dropout=0.0),
        )
        run = tmp_path / str(accumulate)
        assert train(config, run, device="cpu") == 0
        found.append(load_tensors(checkpoints.newest(run) / "optimizer.safetensors")[0])
    for name, tensor in found[0].items():
        assert torch.allclose(tensor, found[1][name], atol=1e-6), name


def test_a_run_killed_before_its_first_checkpoint_resumes_at_step_0(tmp_path):
    settings().save(tmp_path / "run" / "config.json")
    assert train(settings(), tmp_path / "run", resume="always", device="cpu") == 0
    assert load_model(tmp_path / "run", "cpu").metadata["step"] == "4"


def test_too_little_memory_is_an_error_before_the_first_step(tmp_path, monkeypatch):
    def forward(self, batch, step=0):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(RecognitionObjective, "forward", forward)
    monkeypatch.setattr(loop, "steps", None)  # never reached
    with pytest.raises(AsrError, match=r"not enough memory on cpu .* lower data\.batch_seconds"):
        train(settings(), tmp_path / "run", device="cpu")


def test_the_memory_check_has_no_side_effects(tmp_path):
    task = RecognitionTask(settings(), lambda line: None)
    before = {name: tensor.clone() for name, tensor in task.bundle.module.state_dict().items()}
    assert "3 utterances" in memory_check.check_memory(task, task.objective(), epoch=0)
    assert all(torch.equal(before[n], t) for n, t in task.bundle.module.state_dict().items())
    assert all(p.grad is None for p in task.bundle.network.parameters())


def test_the_memory_check_does_not_need_the_recordings(monkeypatch):
    """A heaviest batch that cannot be read would measure nothing."""

    def read(path, *rest):
        raise AsrError(f"{path}: no such file")

    task = RecognitionTask(settings(data={"cache_mb": 0}), lambda line: None)
    with_audio = task.loader.load(task.plan(0)[0])
    monkeypatch.setattr("asr.audio.read", read)
    assert task.loader.load(task.plan(0)[0]).ids == []
    batch, description = task.heaviest_batch(0)
    assert batch.waveforms.shape == with_audio.waveforms.shape
    assert torch.equal(batch.tokens, with_audio.tokens)
    assert description.startswith("3 utterances, ")
    assert description in memory_check.check_memory(task, task.objective(), epoch=0)


def test_the_memory_check_passes_over_what_is_too_long_for_the_model():
    task = RecognitionTask(settings(data={"max_batch": 1}), lambda line: None)
    seconds = sorted(task.plan(0).seconds, reverse=True)
    task.loader.max_samples = round(seconds[1] * 16000)
    assert float(task.heaviest_batch(0)[0].amount) == pytest.approx(seconds[1], abs=1e-3)
    task.loader.max_samples = 1
    with pytest.raises(
        AsrError, match=r"data\.train: no utterance of epoch 0 fits the model; the last: .* s "
    ):
        task.heaviest_batch(0)


def test_a_full_disk_is_an_error_before_the_first_step(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(AsrError, match=r"0 MB free, and this run will need \d+ MB"):
        train(settings(), tmp_path / "run", device="cpu")


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path):
    run = tmp_path / "run"
    with claimed(run), pytest.raises(AsrError, match="another process is using this folder"):
        train(settings(), run, device="cpu")
    assert train(settings(), run, device="cpu") == 0
    assert not (run / ".claimed").exists()


def test_training_ends_with_a_validation_when_the_time_is_over(tmp_path, capsys):
    """The first step takes longer than the limit; without it there would be 4 steps."""
    config = settings({"max_minutes": 1e-6, "validate_every": 100})
    assert train(config, tmp_path / "run", device="cpu") == 0
    assert "training ends at step 1: train.max_minutes is reached" in capsys.readouterr().err
    assert load_model(tmp_path / "run", "cpu").metadata["step"] == "1"
    assert read_run(tmp_path / "run").status == "finished at 1: train.max_minutes is reached"


def test_the_schedule_of_a_step_follows_the_time_of_the_steps_before(tmp_path, monkeypatch):
    """The total number of steps is estimated from as many steps as their seconds belong to."""
    asked = []

    def estimate(step, seconds, config):
        asked.append((step, seconds))
        return config.steps

    monkeypatch.setattr("asr.training.steps.expected_steps", estimate)
    assert train(settings({"max_minutes": 100.0}), tmp_path / "run", device="cpu") == 0
    assert [step for step, _ in asked] == [0, 1, 2, 3]
    assert asked[0][1] == 0 and [seconds for _, seconds in asked] == sorted(seconds for _, seconds in asked)
