"""The mean of several runs, as the script that copies a run into the package stores it."""

import sys
from pathlib import Path

import pytest
import torch

from asr.errors import AsrError

sys.path.append(str(Path(__file__).resolve().parents[2] / "recipes"))
import ship


def test_the_mean_of_runs_is_stored(tiny_model, tmp_path, monkeypatch):
    from asr.model_folder import load_model

    first, second = load_model(tiny_model, "cpu"), load_model(tiny_model, "cpu")
    with torch.no_grad():
        for weight in second.network.parameters():
            weight.add_(2.0)
    second.save(tmp_path / "second")
    monkeypatch.setattr(ship, "SHIPPED", tmp_path)
    monkeypatch.setattr(sys, "argv", ["ship.py", str(tiny_model), str(tmp_path / "second"), "mean"])
    ship.main()
    stored = dict(load_model(tmp_path / "mean", "cpu").network.named_parameters())
    for name, weight in first.network.named_parameters():
        torch.testing.assert_close(stored[name], weight + 1.0, atol=2e-3, rtol=2e-3)  # float16 in the file


def test_runs_of_different_sizes_have_no_mean():
    with pytest.raises(AsrError, match="different sizes"):
        ship.mean_weights([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}])
