"""Consistency of CTC between two augmented views of each utterance (CR-CTC, Yao et al. 2024)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import sections
from torch.distributions import Categorical, kl_divergence

from asr.config import Config
from asr.datasets.manifest import read_manifest, write_manifest
from asr.datasets.settings import AugmentConfig
from asr.features.settings import SpecAugmentConfig
from asr.training.loop import train
from asr.training.losses import consistency_loss
from asr.training.recognition import RecognitionTask

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"
MASKS = SpecAugmentConfig(frequency_masks=1, frequency_width=20, time_masks=3, time_width=0.2)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Four recordings of digits; the second one has no text, the third one no phonemes."""
    phonemes, texts = ["θri", "tu", None, "tu"], ["three", None, "two", "two"]
    rows = [
        replace(utterance, text=text, phonemes=spoken, speaker="one")
        for utterance, text, spoken in zip(read_manifest(SAMPLES), texts, phonemes, strict=False)
    ]
    write_manifest(tmp_path / "train.jsonl", rows)
    return tmp_path / "train.jsonl"


def config(manifest: Path, masks: SpecAugmentConfig | None, **changes: object) -> Config:
    settings = sections(d_model=16, n_heads=2, d_ffn=24, dropout=0.0)
    settings["encoder"] = dict(kind="conformer", half_rate_layers=2, phonemes=6, phonemes_after=1)
    return Config.model_validate(
        {
            "model": settings,
            "data": {"train": [manifest], "dev": [manifest], "max_batch": 4},
            "augment": AugmentConfig(specaugment=masks).model_dump(),
            "train": {"phonemes": {"symbols": "θritu", "weight": 0.5}, "steps": 1} | changes,
        }
    )


def sums(task: RecognitionTask) -> dict[str, float]:
    """The sums of the losses of the first batch, in training."""
    torch.manual_seed(0)
    found, unalignable = task.objective().train()(next(task.pool(0, 0).batches([0])))
    assert len(unalignable) == 4
    return dict(zip(task.loss_names, found.tolist(), strict=True))


def task(*args: object, **changes: object) -> RecognitionTask:
    return RecognitionTask(config(*args, **changes), lambda line: None)  # type: ignore[arg-type]


def test_the_loss_is_the_mean_of_both_divergences_within_the_lengths() -> None:
    log_probs = torch.randn(4, 5, 3).log_softmax(-1)
    lengths, mask = torch.tensor([5, 2, 5, 2]), torch.tensor([True, True])
    expected = torch.zeros(())
    for row, length in enumerate(lengths[:2].tolist()):
        one, other = (Categorical(logits=log_probs[each, :length]) for each in (row, row + 2))
        expected = expected + (kl_divergence(one, other) + kl_divergence(other, one)).sum() / 2
    torch.testing.assert_close(consistency_loss(log_probs, lengths, mask), expected)
    without = consistency_loss(log_probs, lengths, torch.tensor([True, False]))
    assert 0 < float(without) < float(expected)


def test_each_view_learns_from_the_other_one_only() -> None:
    """The gradient with respect to the logits of a view is its distribution less that of the other view."""
    logits = torch.randn(2, 1, 4, requires_grad=True)
    one = torch.tensor([1, 1])
    consistency_loss(logits.log_softmax(-1), one, torch.tensor([True])).backward()
    first, second = logits.detach().softmax(-1)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0], (first - second) / 2)
    torch.testing.assert_close(logits.grad[1], (second - first) / 2)


def test_equal_views_have_the_losses_of_one_view(manifest: Path) -> None:
    one, both = (sums(task(manifest, None, consistency=share)) for share in (0.0, 0.2))
    assert both == pytest.approx(one, rel=1e-4)
    assert both["consistency_loss"] == pytest.approx(0, abs=1e-5)


def test_masked_views_differ_and_the_difference_is_added_with_its_weight(manifest: Path) -> None:
    one, both = (sums(task(manifest, MASKS, consistency=share)) for share in (0.1, 0.3))
    assert one["consistency_loss"] == pytest.approx(both["consistency_loss"]) and one["consistency_loss"] > 0
    assert both["loss"] - one["loss"] == pytest.approx(0.2 * both["consistency_loss"], rel=1e-3)


def test_rows_without_a_target_of_a_head_have_no_difference_there(manifest: Path) -> None:
    """The row without a text counts at the phoneme head alone, the row without phonemes at the other one."""
    found = task(manifest, MASKS, consistency=0.2)
    objective, batch = found.objective(), next(found.pool(0, 0).batches([0]))
    assert batch.has_text.sum() == batch.has_phonemes.sum() == 3
    doubled = batch.repeated(2)
    features, lengths = objective.extract(batch)
    masked = torch.cat([features, features * (torch.rand_like(features) < 0.7)])
    memory = objective.network.encode(masked, lengths.repeat(2))
    losses = {}
    for text, phonemes in ((False, False), (False, True), (True, False), (True, True)):
        changed = replace(
            doubled,
            has_text=doubled.has_text & text,
            has_phonemes=doubled.has_phonemes & phonemes,
        )
        losses[text, phonemes] = float(objective.consistency_loss(changed, memory).detach())
    assert losses[False, False] == 0 < min(losses[False, True], losses[True, False])
    assert losses[True, True] == pytest.approx(losses[True, False] + losses[False, True], rel=1e-4)
    everything = replace(doubled, has_text=torch.ones_like(doubled.has_text))
    assert float(objective.consistency_loss(everything, memory).detach()) > losses[True, True]


def test_validation_has_one_view(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = task(manifest, MASKS, consistency=0.2)
    network, rows = found.bundle.network, []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda x, lengths: rows.append(len(x)) or encode(x, lengths))
    batch = next(found.pool(0, 0).batches([0]))
    total, unalignable = found.objective().eval()(batch)
    assert float(total[-1].detach()) == 0 and len(unalignable) == 4
    found.objective().train()(batch)
    assert rows == [4, 8]


def test_a_run_trains_with_it(manifest: Path, tmp_path: Path) -> None:
    train(config(manifest, MASKS, consistency=0.2), tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_consistency_needs_ctc(manifest: Path) -> None:
    with pytest.raises(ValueError, match=r"set train\.ctc_weight above 0, or consistency to 0"):
        config(manifest, MASKS, consistency=0.2, ctc_weight=0.0)
