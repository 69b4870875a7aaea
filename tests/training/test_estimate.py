"""What `asr train --dry-run` says."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from asr.config import Config
from asr.training.distributed import Ranks
from asr.training.estimate import count_flops, dry_run, estimate
from asr.training.setup import set_up

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "manifest.jsonl"


def config() -> Config:
    sizes = dict(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4)
    data = {"train": [SAMPLES], "dev": [SAMPLES], "max_batch": 3}
    return Config.model_validate({"model": sizes, "data": data, "train": {"steps": 40}})


def test_products_are_counted_as_they_are_done():
    a, b = torch.randn(70, 20, requires_grad=True), torch.randn(20, 30, requires_grad=True)
    assert count_flops(lambda: a @ b) == 2 * 70 * 20 * 30
    assert count_flops(lambda: (a @ b).sum().backward()) == 3 * 2 * 70 * 20 * 30


def test_a_dry_run_says_size_steps_operations_and_time_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dry_run(config(), "cpu")
    said = capsys.readouterr().out
    assert "10 examples" in said and "in 4 batches" in said and "4 steps" in said
    assert "40 steps: 10.0 epochs" in said
    assert re.search(r"weights: [\d,]+ \(encoder [\d,]+, decoder [\d,]+, CTC head [\d,]+\)", said)
    assert re.search(r"operations: \d+\.\d\d GFLOP per second of audio", said)
    assert "heaviest batch: 3 utterances" in said and "fits" in said
    assert re.search(r"time: \d+ min \d+ s an epoch", said)
    assert not list(tmp_path.iterdir())


def test_two_processes_need_half_the_steps_and_the_weights_stay():
    setup = set_up(config(), lambda line: None)
    before = {name: tensor.clone() for name, tensor in setup.bundle.module.state_dict().items()}
    lines = "\n".join(estimate(setup, Ranks(0, 2, torch.device("cpu"))))
    assert "2 steps" in lines and "40 steps: 20.0 epochs" in lines
    assert all(torch.equal(before[name], t) for name, t in setup.bundle.module.state_dict().items())
