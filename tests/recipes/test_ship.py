"""The mean of several runs, as the script that copies a run into the package stores it."""

import sys
from pathlib import Path

import pytest
import torch
from helpers import sections

from asr.errors import AsrError

sys.path.append(str(Path(__file__).resolve().parents[2] / "recipes"))
import ship


@pytest.mark.parametrize(("shares", "added"), [([], 1.0), (["--shares", "0.9", "0.3"], 0.5)])
def test_the_mean_of_runs_is_stored(tiny_model, tmp_path, monkeypatch, shares, added):
    from asr.model_folder import load_model

    first, second = load_model(tiny_model, "cpu"), load_model(tiny_model, "cpu")
    with torch.no_grad():
        for weight in second.network.parameters():
            weight.add_(2.0)
    first.metadata |= {"longest_seconds": "9.5", "dev_wer": "0.5", "step": "7"}
    first.save(tmp_path / "first")
    second.save(tmp_path / "second")
    monkeypatch.setattr(ship, "SHIPPED", tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["ship.py", str(tmp_path / "first"), str(tmp_path / "second"), "mean", *shares]
    )
    ship.main()
    metadata = load_model(tmp_path / "mean", "cpu").metadata
    assert metadata["longest_seconds"] == "9.5" and not {"dev_wer", "step"} & metadata.keys()
    stored = dict(load_model(tmp_path / "mean", "cpu").network.named_parameters())
    for name, weight in first.network.named_parameters():
        torch.testing.assert_close(stored[name], weight + added, atol=2e-3, rtol=2e-3)  # float16 in the file


def test_runs_of_different_sizes_have_no_mean():
    with pytest.raises(AsrError, match="different sizes"):
        ship.mean_weights([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}], [1.0, 1.0])


@pytest.mark.parametrize("shares", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_shares_that_do_not_fit_are_refused(shares):
    with pytest.raises(AsrError, match="give 2 numbers above 0, one for each run"):
        ship.mean_weights([{"a": torch.zeros(2)}, {"a": torch.zeros(2)}], shares)


def test_layers_that_only_training_uses_are_left_out(tmp_path, monkeypatch):
    """So the mean of runs with and without training on text exists."""
    from asr.config import Config
    from asr.model_folder import Bundle, load_model
    from asr.tokenizers import CharacterTokenizer

    for name, reads in (("with", True), ("without", False)):
        encoder = dict(kind="conformer", half_rate_layers=1, phonemes=3, phonemes_after=1)
        model = sections(d_model=16, n_heads=2, d_ffn=16) | {"encoder": encoder | {"reads_phonemes": reads}}
        train = {"phonemes": {"symbols": "ab"}, "init": tmp_path}
        if reads:
            train["text_injection"] = {"file": tmp_path / "texts.jsonl"}
        config = Config.model_validate({"model": model, "train": train})
        Bundle.build(config, CharacterTokenizer.from_characters("ab")).save(tmp_path / name)
    monkeypatch.setattr(ship, "SHIPPED", tmp_path)
    monkeypatch.setattr(sys, "argv", ["ship.py", str(tmp_path / "with"), str(tmp_path / "without"), "mean"])
    ship.main()
    stored = load_model(tmp_path / "mean", "cpu")
    assert not stored.config.model.encoder.reads_phonemes
    assert stored.config.train.init is None and stored.config.train.text_injection is None
    assert not any("phoneme_reader" in name for name, _ in stored.network.named_parameters())
