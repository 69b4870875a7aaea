"""Each setting of a step has its effect: rate, clipping, decay, masks, dropout. Runs must learn something."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import sections

from asr.config import Config
from asr.datasets.corpus import Corpus
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError
from asr.training import checkpoints, objective, recognition, steps
from asr.training.distributed import Ranks
from asr.training.guard import WeightGuard
from asr.training.loop import train
from asr.training.optimizer import build_optimizer
from asr.training.precision import loss_scaler
from asr.training.recognition import RecognitionTask
from asr.training.train_state import TrainState

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"
ALONE = Ranks(0, 1, torch.device("cpu"))


def settings(train=(), data=(), optim=(), augment=(), model=()) -> Config:
    """Two batches an epoch, of three utterances each, and no dropout."""
    return Config.model_validate(
        {
            "model": sections(d_model=16, n_heads=2, d_ffn=32, dropout=0.0) | dict(model),
            "data": {"train": [SAMPLES], "dev": [SAMPLES], "first": 6, "max_batch": 3} | dict(data),
            "augment": {"specaugment": None} | dict(augment),
            "optim": {"warmup_steps": 0, "schedule": "constant"} | dict(optim),
            "train": {"steps": 4, "validate_every": 4, "checkpoint_every": 4} | dict(train),
        }
    )


def take(config: Config, count: int) -> tuple[list[steps.Step], RecognitionTask]:
    """So many steps of a new run."""
    task = RecognitionTask(config, lambda line: None)
    optimizer = build_optimizer(task.bundle.network, config.optim, ALONE)
    stepping = steps.steps(task, task.objective(), optimizer, config.train, config.optim, TrainState(), ALONE)
    found = [next(stepping)[0] for _ in range(count)]
    stepping.close()
    return found, task


def change(config: Config) -> float:
    """How far one step moves the weights."""
    before = RecognitionTask(config, lambda line: None).bundle.network.state_dict()
    after = take(config, 1)[1].bundle.network.state_dict()
    return float(sum((after[name] - before[name]).norm() ** 2 for name in before) ** 0.5)


# ---------------------------------------------------------------------------------------- the optimizer step


def test_the_learning_rate_of_the_schedule_is_used():
    """AdamW's first step is as long as the learning rate, whatever the gradient."""
    assert change(settings(optim={"lr": 2e-3})) == pytest.approx(
        2 * change(settings(optim={"lr": 1e-3})), 0.05
    )
    rising = settings(optim={"warmup_steps": 10, "lr": 1e-2, "schedule": "inverse_sqrt"})
    found, _ = take(rising, 3)
    assert [step.learning_rate for step in found] == pytest.approx([1e-3, 2e-3, 3e-3])
    assert change(rising) == pytest.approx(change(settings(optim={"lr": 1e-3})), 0.05)


def test_gradients_are_clipped(monkeypatch):
    norms = []
    original = torch.optim.AdamW.step

    def step(self, *given):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        return original(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    (found,), _ = take(settings(optim={"clip_norm": 0.01}), 1)
    assert norms[0] == pytest.approx(0.01, rel=1e-3) and found.gradient_norm > 0.1


def test_matrices_decay_and_biases_and_norms_do_not():
    task = RecognitionTask(settings(), lambda line: None)
    optimizer = build_optimizer(
        task.bundle.network, settings(optim={"weight_decay": 0.5, "lr": 0.1}).optim, ALONE
    )
    before = {name: p.detach().clone().fill_(1.0) for name, p in task.bundle.network.named_parameters()}
    for parameter in task.bundle.network.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in task.bundle.network.named_parameters():
        expected = before[name] * (0.95 if parameter.dim() > 1 else 1.0)
        assert torch.allclose(parameter, expected), name
    assert any("bias" in name for name in before) and any("norm" in name for name in before)


def test_spec_augment_masks_training_alone(monkeypatch):
    calls = Counter()
    original = objective.spec_augment

    def spec_augment(features, lengths, config):
        masked = original(features, lengths, config)
        calls["changed"] += int(not torch.equal(masked, features))
        return torch.zeros_like(masked)

    plain, _ = take(settings(), 2)
    monkeypatch.setattr(objective, "spec_augment", spec_augment)
    masked, task = take(settings(augment={"specaugment": {}}), 2)
    assert calls["changed"] == 2
    assert masked[0].losses["loss"] != pytest.approx(plain[0].losses["loss"], rel=1e-3)  # the result is used
    task.validate(ALONE)
    assert calls["changed"] == 2


def test_dropout_differs_from_step_to_step_and_not_from_run_to_run():
    """The learning rate is so low that only dropout changes the loss of the one batch."""
    config = settings(data={"max_batch": 6}, optim={"lr": 1e-30}, model={"dropout": 0.3})
    first, second = ([step.losses["loss"] for step in take(config, 3)[0]] for _ in range(2))
    assert first == second and len(set(first)) == 3


def test_dropout_differs_between_the_batches_of_a_step(monkeypatch):
    seeds = []
    original = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.append(seed) or original(seed))
    config = settings(data={"max_batch": 2}, optim={"accumulate": 3})
    task = RecognitionTask(config, lambda line: None)
    batches = list(task.pool(0, 0).batches(range(3)))
    seeds.clear()
    for step in (0, 1):
        scaler = loss_scaler("float32", ALONE.device, {})
        steps.backward(task.objective(), batches, ALONE, (0, step), 1.0, scaler)
    assert len(set(seeds)) == 6


# ---------------------------------------------------------------------------------------------- validation


def test_every_dev_utterance_is_scored(monkeypatch):
    """Seven utterances in batches of two: the last batch has only one."""
    task = RecognitionTask(settings(data={"first": 7, "max_batch": 2}), lambda line: None)
    scored = {}
    original = recognition.score

    def score(references, hypotheses, **options):
        scored.update(references)
        return original(references, hypotheses, **options)

    monkeypatch.setattr(recognition, "score", score)
    task.validate(ALONE)
    assert scored == {u.id: u.text for u in read_manifest(SAMPLES)[:7]}


def test_a_script_without_spaces_is_validated_by_cer_alone(tmp_path, capsys):
    rows = [replace(u, text="今天天气很好"[i:]) for i, u in enumerate(read_manifest(SAMPLES)[:4])]
    write_manifest(tmp_path / "m.jsonl", rows)
    data = {"train": [tmp_path / "m.jsonl"], "dev": [tmp_path / "m.jsonl"]}
    assert train(settings({"stop_wer": 99.0, "validate_every": 2}, data), tmp_path / "run", device="cpu") == 0
    message = capsys.readouterr().err
    assert "no WER: the script has no spaces" in message and "train.stop_wer is reached" in message
    state = json.loads((checkpoints.newest(tmp_path / "run") / "trainer.json").read_text())
    assert state["step"] == 2 and set(state["history"][0]) == {"step", "loss", "cer"}


# ------------------------------------------------------------------------ texts that are too long for CTC


def test_texts_too_long_for_ctc_are_named_and_counted(tmp_path, capsys):
    rows = read_manifest(SAMPLES)[:6]
    rows = [replace(u, text=u.text if i % 2 else "ab" * 300) for i, u in enumerate(rows)]
    write_manifest(tmp_path / "m.jsonl", rows)
    data = {"train": [tmp_path / "m.jsonl"], "dev": [tmp_path / "m.jsonl"]}
    assert train(settings({"steps": 4}, data), tmp_path / "run", device="cpu") == 0
    message = capsys.readouterr().err.splitlines()
    for epoch in (0, 1):
        assert f"epoch {epoch}: 3 texts were too long for CTC" in message
    named = [line.partition(":")[0] for line in message if "more tokens than CTC can align" in line]
    assert sorted(named) == sorted(2 * [rows[i].id for i in (0, 2, 4)])


# -------------------------------------------------------------------------------- runs that learn nothing


def test_overfitting_takes_different_texts(tmp_path):
    recordings = read_manifest(SAMPLES)
    rows = [Utterance(f"u{i}", recordings[i % 5].audio, "zero", 1.0) for i in range(8)]
    rows += [replace(u, id=f"v{i}", text=f" {i % 3}  x") for i, u in enumerate(recordings)]
    write_manifest(tmp_path / "m.jsonl", rows)
    config = settings(data={"train": [tmp_path / "m.jsonl"]}).overfit(3)
    for key in ("train", "dev"):
        assert [u.id for u in Corpus.read(config.data, key)] == ["u0", "v0", "v1"]


def test_recordings_that_cannot_be_read_are_an_error_before_the_first_step(tmp_path):
    rows = [replace(u, audio=tmp_path / "none.wav") for u in read_manifest(SAMPLES)[:6]]
    write_manifest(tmp_path / "m.jsonl", rows)
    with pytest.raises(AsrError, match=r"data\.train: no recording can be read; the first: .*none\.wav"):
        train(settings(data={"train": [tmp_path / "m.jsonl"]}), tmp_path / "run", device="cpu")


def test_steps_without_a_readable_recording_change_nothing_and_end_the_run(tmp_path, monkeypatch):
    original = RecognitionTask.pool

    class Unreadable:
        def __init__(self, pool):
            self.pool = pool

        def __len__(self):
            return len(self.pool)

        def batches(self, places):
            for place in places:
                yield self.pool.loader.load([], place)

    monkeypatch.setattr(RecognitionTask, "pool", lambda *given: Unreadable(original(*given)))
    with pytest.raises(AsrError, match=r"nothing was learned: every step was skipped"):
        train(settings(), tmp_path / "a", device="cpu")
    with pytest.raises(
        AsrError, match=r"3 steps in a row were skipped, .* none of its recordings can be read"
    ):
        train(settings({"max_skipped": 2}), tmp_path / "b", device="cpu")


def test_an_infinite_learning_rate_is_refused():
    for value in ("inf", "nan"):
        with pytest.raises(ValueError, match="finite"):
            settings(optim={"lr": float(value)})


def test_a_validation_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch):
    original = RecognitionTask.validate

    def validate(*given):
        found = original(*given)
        return replace(found, scores=found.scores | {"loss": float("nan")})

    monkeypatch.setattr(RecognitionTask, "validate", validate)
    with pytest.raises(AsrError, match=r"the validation loss of step 4 is nan: nothing was learned"):
        train(settings(), tmp_path / "run", device="cpu")
    assert checkpoints.newest(tmp_path / "run").name == "step-00000004"  # written before the validation
    assert not (tmp_path / "run" / "model.safetensors").exists()


# --------------------------------------------------------------------------------------------- ruined weights


def ruin(monkeypatch, at, factor=1e6):
    """After these steps, the weights are far too large."""
    original = torch.optim.AdamW.step
    count = 0

    def step(self, *given):
        nonlocal count
        original(self, *given)
        count += 1
        if count in at:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.mul_(factor)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)


@pytest.mark.parametrize("factor", [1e6, float("nan")])
def test_ruined_weights_are_replaced_by_the_last_good_ones(tmp_path, monkeypatch, capsys, factor):
    config = settings({"steps": 12, "validate_every": 4, "checkpoint_every": 2})
    with monkeypatch.context() as patch:
        ruin(patch, at=(6,), factor=factor)
        assert train(config, tmp_path / "run", device="cpu") == 0
    message = capsys.readouterr().err
    assert "step 6: the weights are ruined; restored those of step-00000004" in message
    state = json.loads((checkpoints.newest(tmp_path / "run") / "trainer.json").read_text())
    assert state["step"] == 12 and all(entry["loss"] < 10 for entry in state["history"])


def test_ruined_weights_between_checkpoints_are_noticed_by_the_loss(tmp_path, monkeypatch, capsys):
    config = settings({"steps": 12, "validate_every": 12, "checkpoint_every": 4})
    with monkeypatch.context() as patch:
        ruin(patch, at=(5,))
        assert train(config, tmp_path / "run", device="cpu") == 0
    assert "step 8: the weights are ruined; restored those of step-00000004" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_refused_before_any_batch_is_known():
    network = torch.nn.Linear(2, 2)
    guard = WeightGuard(network, 10, TrainState(), ALONE)
    assert guard.approves()
    network.bias.data[1] = float("inf")
    assert not guard.approves()


def test_a_learning_rate_that_always_ruins_the_weights_ends_the_run(tmp_path):
    config = settings({"steps": 60, "validate_every": 50, "checkpoint_every": 5}, optim={"lr": 1e6})
    with pytest.raises(AsrError, match=r"step 4: the weights are ruined, and are not saved; lower optim\.lr"):
        train(config, tmp_path / "run", device="cpu")
    assert checkpoints.newest(tmp_path / "run") is None
    good = config.model_copy(update={"optim": settings().optim})
    assert train(good, tmp_path / "run", resume="always", device="cpu") == 0


def test_restoring_again_and_again_ends_the_run_and_keeps_the_good_weights(tmp_path, monkeypatch):
    config = settings({"steps": 60, "validate_every": 50, "checkpoint_every": 2})
    with monkeypatch.context() as patch:
        ruin(patch, at=range(5, 100))
        with pytest.raises(
            AsrError, match=r"ruined, and are not saved; .*step-00000004 has the last good ones"
        ):
            train(config, tmp_path / "run", device="cpu")
    assert checkpoints.newest(tmp_path / "run").name == "step-00000004"


def test_skipped_steps_count_in_a_row(tmp_path, monkeypatch):
    """Every second step is skipped: four of eight, but never two in a row."""
    original = objective.RecognitionObjective.forward

    def forward(self, batch, step=0):
        losses, unalignable = original(self, batch, step)
        return losses * (float("nan") if batch.place == 1 else 1.0), unalignable

    monkeypatch.setattr(objective.RecognitionObjective, "forward", forward)
    assert train(settings({"steps": 8, "max_skipped": 1}), tmp_path / "run", device="cpu") == 0
