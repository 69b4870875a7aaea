"""Resuming: settings that may change, damaged checkpoints, changed data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import sections

from asr.config import Config
from asr.datasets.manifest import read_manifest, write_manifest
from asr.errors import AsrError
from asr.model_folder import load_tensors, save_tensors
from asr.training.checkpoints import damage_of, newest, resumable
from asr.training.loop import train

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"


def settings(data=(), optim=(), model=(), **train_settings) -> Config:
    return Config.model_validate(
        {
            "model": sections(d_model=16, n_heads=2, d_ffn=32) | dict(model),
            "data": {"train": [SAMPLES], "dev": [SAMPLES], "first": 4, "max_batch": 2} | dict(data),
            "optim": {"warmup_steps": 2} | dict(optim),
            "train": {"steps": 6, "validate_every": 3, "checkpoint_every": 2, "average": 1} | train_settings,
        }
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run of six steps, with resumable checkpoints of steps 4 and 6."""
    run = tmp_path_factory.mktemp("original") / "run"
    assert train(settings(), run, device="cpu") == 0
    assert [path.name for path in resumable(run)] == ["step-00000006", "step-00000004"]
    return run


@pytest.fixture
def run(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "run"))


def refused(run, config, resume="always"):
    with pytest.raises(AsrError) as caught:
        train(config, run, resume=resume, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tensors(folder, name="optimizer.safetensors"):
    return load_tensors(folder / name)[0]


# ------------------------------------------------------------------------------------------------ settings


def test_settings_that_may_change_are_named_and_the_run_continues(run, capsys):
    changed = settings(
        {"workers": 1, "max_bad": 1}, {"lr": 5e-4}, steps=8, validate_every=4, max_skipped=3, show=0
    )
    assert train(changed, run, resume="always", device="cpu") == 0
    shown_lines = capsys.readouterr().err
    (line,) = [line for line in shown_lines.splitlines() if line.startswith("resumed with other settings: ")]
    for part in ("optim.lr 0.0005 (was 0.001)", "train.steps 8 (was 6)", "data.workers 1 (was 2)"):
        assert part in line
    assert newest(run).name == "step-00000008"
    assert json.loads((run / "config.json").read_text())["optim"]["lr"] == 5e-4


def test_settings_that_must_not_change_are_all_named(run):
    message = refused(run, settings({"batch_seconds": 50}, model={"d_ffn": 48}, label_smoothing=0.2))
    assert (
        "train.label_smoothing 0.1 (now 0.2)" in message and "data.batch_seconds 120.0 (now 50.0)" in message
    )
    assert "model.encoder.d_ffn 32 (now 48)" in message
    assert train(settings(), run, resume="always", device="cpu") == 0  # the run was not changed


def test_the_run_folder_decides_whether_there_is_something_to_resume(run, tmp_path, capsys):
    assert "add --resume" in refused(run, settings(), "never")
    assert "nothing to resume" in refused(tmp_path / "new", settings())
    assert train(settings(steps=2), tmp_path / "new", resume="if_possible", device="cpu") == 0
    assert "nothing to resume; starting at step 0" in capsys.readouterr().err
    assert train(settings(steps=3), tmp_path / "new", resume="if_possible", device="cpu") == 0
    assert "resumed from" in capsys.readouterr().err
    assert newest(tmp_path / "new").name == "step-00000003"


@pytest.mark.parametrize("resume", ["never", "if_possible", "always"])
def test_a_model_whose_checkpoints_were_removed_is_not_trained_over(run, resume):
    shutil.rmtree(run / "checkpoints")
    weights = (run / "model.safetensors").read_bytes()
    assert f"train.init={run}" in refused(run, settings(), resume)
    assert (run / "model.safetensors").read_bytes() == weights


def test_a_resumed_run_keeps_the_metadata_of_its_model(run):
    checkpoint = newest(run)
    tensors, metadata = load_tensors(checkpoint / "model.safetensors")
    save_tensors(checkpoint / "model.safetensors", tensors, metadata | {"length_normalization": "1.0"})
    sums = json.loads((checkpoint / "trainer.json").read_text())
    (checkpoint / "trainer.json").write_text(json.dumps({k: v for k, v in sums.items() if k != "checksums"}))
    assert train(settings(steps=8), run, resume="always", device="cpu") == 0
    assert load_tensors(newest(run) / "model.safetensors")[1]["length_normalization"] == "1.0"


# -------------------------------------------------------------------------------------------- damaged files


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "config.json", "trainer.json"]
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_resumed_from(original, run, capsys, name):
    flip(run / "checkpoints" / "step-00000006" / name)
    assert train(settings(), run, resume="always", device="cpu") == 0
    shown_lines = capsys.readouterr().err
    assert "step-00000006 is damaged" in shown_lines and name in shown_lines
    assert f"resumed from {run}/checkpoints/step-00000004" in shown_lines
    for file in ("model.safetensors", "optimizer.safetensors"):
        found, expected = (tensors(newest(where), file) for where in (run, original))
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert damage_of(newest(run)) is None


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "trainer.json"])
def test_a_checkpoint_without_one_of_its_files_is_not_resumed_from(run, name):
    (run / "checkpoints" / "step-00000006" / name).unlink()
    assert train(settings(), run, resume="always", device="cpu") == 0
    assert newest(run).name == "step-00000006"


@pytest.mark.parametrize("resume", ["always", "if_possible"])
def test_a_run_never_starts_at_step_0_because_of_damage(run, resume):
    for folder in resumable(run):
        flip(folder / "model.safetensors")
    message = refused(run, settings(), resume)
    assert "no checkpoint is intact" in message and "step-00000004 is damaged" in message
    for folder in resumable(run):
        (folder / "optimizer.safetensors").unlink()
    assert "no checkpoint is intact (none has its optimizer state)" in refused(run, settings(), resume)


def test_a_checkpoint_of_an_older_version_has_no_checksums_and_can_be_resumed_from(run):
    for folder in resumable(run):
        values = json.loads((folder / "trainer.json").read_text())
        epoch, _, position = values["position"]
        old = {key: values[key] for key in ("step", "seconds", "history", "bad", "skipped")}
        (folder / "trainer.json").write_text(json.dumps(old | {"epoch": epoch, "position": position}))
    assert train(settings(steps=7), run, resume="always", device="cpu") == 0
    assert newest(run).name == "step-00000007"


# ----------------------------------------------------------------------------------------------------- data


def test_moved_manifests_are_accepted_and_changed_ones_are_not(run, tmp_path):
    utterances = read_manifest(SAMPLES)
    write_manifest(tmp_path / "moved.jsonl", utterances)
    moved = {"train": [tmp_path / "moved.jsonl"], "dev": [tmp_path / "moved.jsonl"]}
    assert train(settings(moved, steps=7), run, resume="always", device="cpu") == 0

    first, second, *rest = utterances
    exchanged = [replace(first, duration=second.duration), replace(second, duration=first.duration), *rest]
    for others in ([first, replace(second, id="other"), *rest], exchanged):
        write_manifest(tmp_path / "changed.jsonl", others)
        for key in ("train", "dev"):
            message = refused(run, settings(moved | {key: [tmp_path / "changed.jsonl"]}, steps=8))
            assert "the data have changed since this run began (then train: 4 utterances" in message
