"""The estimate of a training: operations, and the report before it starts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import sections

from asr import audio
from asr.config import Config
from asr.datasets.batching import EpochPlan
from asr.datasets.manifest import Utterance, write_manifest
from asr.errors import AsrError
from asr.flops import count_flops
from asr.model.kernels import Linear, attention
from asr.training.distributed import Ranks
from asr.training.estimate import dry_run, estimate
from asr.training.recognition import RecognitionTask

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"


@pytest.mark.parametrize("rows", [5, 300])  # by either library
def test_a_linear_layer_counts_two_for_each_weight_and_row_and_twice_that_backwards(rows: int) -> None:
    layer, x = Linear(8, 12), torch.randn(1, rows, 8, requires_grad=True)
    forward = 2 * rows * 8 * 12
    assert count_flops(lambda: layer(x)) == forward
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * forward


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_counts_its_two_products_and_twice_that_backwards(dtype: torch.dtype) -> None:
    query, key, value = (torch.randn(3, 2, n, 8, dtype=dtype, requires_grad=True) for n in (5, 7, 7))
    forward = 2 * 2 * 3 * 2 * 5 * 7 * 8
    assert count_flops(lambda: attention(query, key, value, None, False, 0.0)) == forward
    assert count_flops(lambda: attention(query, key, value, None, False, 0.0).sum().backward()) == 3 * forward


def test_an_estimate_names_what_cannot_be_read(tmp_path: Path) -> None:
    found = []
    for number in range(4):
        path = tmp_path / f"{number}.wav"
        audio.write(path, 0.1 * np.random.default_rng(number).standard_normal(8000 * (number + 1)))
        found.append(Utterance(str(number), path, "ab", 0.5 * (number + 1)))
    write_manifest(tmp_path / "m.jsonl", found)
    (tmp_path / "3.wav").unlink()
    sizes = sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4)
    manifests = [tmp_path / "m.jsonl"]
    data = {"train": manifests, "dev": manifests, "max_batch": 1, "cache_mb": 0}
    config = Config.model_validate({"model": sizes, "data": data})
    task = RecognitionTask(config, lambda line: None)
    lines = list(estimate(task, config, Ranks(0, 1, torch.device("cpu"))))
    assert [line for line in lines if "3.wav" in line] == [
        f"cannot be read: {tmp_path / '3.wav'}: no such file; check the path"
    ]
    assert any(line.startswith("heaviest batch: 1 utterances, 2 s padded: fits") for line in lines)
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    lines = list(estimate(task, config, Ranks(0, 1, torch.device("cpu"))))
    assert lines[-1] == "no batch could be read: the time is not known"
    assert any(line.startswith("heaviest batch: 1 utterances, 2 s padded: fits") for line in lines)


def test_an_estimate_describes_the_plan_and_does_not_change_the_weights() -> None:
    sizes = sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4)
    config = Config.model_validate(
        {
            "model": sizes,
            "data": {"train": [SAMPLES], "dev": [SAMPLES], "first": 6, "batch_seconds": 8},
            "optim": {"accumulate": 2},
            "train": {"steps": 12},
        }
    )
    task = RecognitionTask(config, lambda line: None)
    before = {name: p.clone() for name, p in task.bundle.network.named_parameters()}
    lines = list(estimate(task, config, Ranks(0, 1, torch.device("cpu"))))
    message = "\n".join(lines)
    assert len(lines) == 7
    assert f"weights: {task.bundle.parameters():,} (front_end " in message

    plan = EpochPlan(task.loader.corpus, config.data, config.augment, 0, epoch=0)
    padded = sum(len(plan[i]) * max(plan.seconds[e.parts[0]] for e in plan[i]) for i in range(len(plan)))
    share = 1 - plan.seconds.sum() / padded
    steps = -(-len(plan) // 2)
    hours = plan.seconds.sum() / 3600
    assert f"6 examples, {hours:.2f} h at most, in {len(plan)} batches" in message
    assert f"with {share:.1%} padding: {steps} steps" in message
    assert f"12 steps: {12 / steps:.1f} epochs" in message
    assert re.search(r"operations: \d+\.\d+ GFLOP per second of audio", message)
    assert re.search(r"speed: \d+\.\d s of audio/s on cpu", message)
    assert re.search(r"time: \d+ min \d+ s an epoch, \d+ min \d+ s in all", message)
    for name, parameter in task.bundle.network.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.grad is None


def test_a_dry_run_reports_size_steps_operations_and_time_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sizes = sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4)
    data = {"train": [SAMPLES], "dev": [SAMPLES], "max_batch": 3}
    config = Config.model_validate({"model": sizes, "data": data, "train": {"steps": 40}})
    dry_run(config, "cpu")
    message = capsys.readouterr().out
    assert "10 examples" in message and "in 4 batches" in message and "4 steps" in message
    assert "40 steps: 10.0 epochs" in message
    assert re.search(
        r"weights: [\d,]+ \(front_end [\d,]+, encoder [\d,]+, decoder [\d,]+, ctc_head [\d,]+\)", message
    )
    assert re.search(r"operations: \d+\.\d\d GFLOP per second of audio", message)
    assert "heaviest batch: 3 utterances" in message and "fits" in message
    assert re.search(r"time: \d+ min \d+ s an epoch", message)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_refuses_what_training_would_refuse(tmp_path):
    config = Config.model_validate(
        {"data": {"train": [SAMPLES], "dev": [SAMPLES]}, "train": {"freeze": ["no such weight"]}}
    )
    with pytest.raises(AsrError, match="no such weight"):
        dry_run(config, "cpu")
