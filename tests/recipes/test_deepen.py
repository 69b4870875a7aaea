"""A deeper model that begins with the results of a trained one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.config import Config
from asr.datasets.manifest import Utterance, write_manifest
from asr.errors import AsrError
from asr.model_folder import Bundle, load_model
from asr.tokenizers import CharacterTokenizer

sys.path.append(str(Path(__file__).resolve().parents[2] / "recipes" / "english"))
import deepen

CONFORMER = {"kind": "conformer", "n_layers": 2, "half_rate_layers": 4, "phonemes": 4, "phonemes_after": 3}
SIZES = {"d_model": 32, "n_heads": 2, "d_ffn": 48, "dropout": 0.1}


def model(encoder: dict | None = None) -> Bundle:
    """With blocks whose norms are not those of a new model, as after training."""
    torch.manual_seed(0)
    values = {"tokenizer": {"characters": "ab"}, "model": SIZES | {"encoder": encoder or CONFORMER}}
    if (encoder or CONFORMER).get("phonemes"):
        values["train"] = {"phonemes": {"symbols": "abʃ"}}
    bundle = Bundle.build(Config.model_validate(values), CharacterTokenizer.from_characters("ab")).eval()
    with torch.no_grad():
        for name, weight in bundle.module.named_parameters():
            if ".half_rate.blocks." in name and ".norm." in name.replace("_residual.norm", ""):
                weight.mul_(3.0).add_(0.3)
    return bundle


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    rows = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * draw.standard_normal(16000 + 800 * number), 16000)
        rows.append(Utterance(str(number), path, "a", 1.0))
    write_manifest(tmp_path / "a.jsonl", rows)
    return tmp_path / "a.jsonl"


def logits(bundle: Bundle) -> torch.Tensor:
    samples = 0.1 * torch.randn(1, 24000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        memory = bundle.network.encode(*bundle.features(samples, torch.tensor([24000])))
        return bundle.network.ctc(memory)


def test_the_deeper_model_begins_with_the_results_of_the_first(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = model()
    first.save(tmp_path / "first")
    line = ["deepen.py", str(tmp_path / "first"), str(manifest), str(tmp_path / "deeper")]
    monkeypatch.setattr(sys, "argv", line)
    deepen.main()
    # A copy after the blocks 2 and 4. The phoneme head stays behind block 3, which is the fourth now.
    settings = "model.encoder.half_rate_layers=6 model.encoder.phonemes_after=4"
    assert capsys.readouterr().out.strip() == settings
    deeper = load_model(tmp_path / "deeper", "cpu")
    assert len(deeper.network.encoder.half_rate.blocks) == 6
    before, after = logits(first), logits(deeper)
    assert (after - before).abs().max() < 0.01 * before.std()
    # Every copy learns: its last layers have a gradient.
    deeper.module.requires_grad_(True)
    torch.set_grad_enabled(True)
    memory = deeper.network.encode(*deeper.features(torch.randn(1, 16000), torch.tensor([16000])))
    deeper.network.ctc(memory).square().mean().backward()
    for number in (2, 5):
        block = deeper.network.encoder.half_rate.blocks[number]
        assert not block.attention.out.weight.any() and block.attention.out.weight.grad.any()


def test_models_that_cannot_become_deeper(manifest: Path) -> None:
    with pytest.raises(AsrError, match="no Conformer encoder with 2 or more half-rate blocks"):
        deepen.deepen(model({"kind": "transformer", "n_layers": 2}), [])
    inner = {"kind": "conformer", "half_rate_layers": 2, "quarter_rate_layers": 1}
    with pytest.raises(AsrError, match="quarter_rate_layers are in the middle"):
        deepen.deepen(model(inner), [])
