"""Every architecture trains, and a run that was stopped and resumed equals one that was not, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, config

from asr.model_folder import load_tensors
from asr.training.checkpoints import newest
from asr.training.loop import train

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_resuming_is_exact(name, tmp_path):
    """Dropout, SpecAugment, noise and masks are random in every step; the first step is not repeated."""
    settings = config(
        name,
        data={"train": [SAMPLES], "dev": [SAMPLES], "first": 2, "max_batch": 1},
        optim={"warmup_steps": 1},
        train={"steps": 2, "validate_every": 2, "checkpoint_every": 1, "average": 1, "token_noise": 0.1},
    )
    assert train(settings, tmp_path / "whole", device="cpu") == 0
    last = newest(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / last.relative_to(tmp_path / "whole"))
    before = newest(tmp_path / "resumed")
    assert before.name.endswith("1")
    assert train(settings, tmp_path / "resumed", resume="always", device="cpu") == 0
    again = newest(tmp_path / "resumed")
    for file in ("model.safetensors", "optimizer.safetensors"):
        expected, found = load_tensors(last / file)[0], load_tensors(again / file)[0]
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), file
    first, second = (load_tensors(each / "model.safetensors")[0] for each in (before, again))
    moved = [key for key in first if key.startswith("network.") and not torch.equal(first[key], second[key])]
    assert len(moved) > len(first) // 2
