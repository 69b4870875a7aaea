"""Intermediate CTC: where the head reads, what self-conditioning changes, the loss, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import CONFORMER, ENCODER, SIZES, TRANSFORMER, bundle
from torch.nn.functional import ctc_loss

from asr.config import Config
from asr.training.recognition import RecognitionTask

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"


def encoded(model):
    features = torch.randn(2, 61, model.features.n_features, generator=torch.Generator().manual_seed(0))
    return model.network.encode(features, torch.tensor([61, 40]))


def test_the_head_reads_the_states_after_the_block():
    """After the first of two blocks: with the second one taken away, it is the encoder's output."""
    model = bundle("intermediate CTC")
    network = model.network.train()
    network.apply(lambda module: setattr(module, "p", 0.0))  # no dropout
    logits, lengths = encoded(model).intermediate["ctc 1"]
    network.encoder.blocks = network.encoder.blocks[:1]
    network.encoder.norm = torch.nn.Identity()
    memory = encoded(model)
    torch.testing.assert_close(logits, network.ctc_head(network.intermediate_ctc.norm(memory.states)))
    assert torch.equal(lengths, memory.lengths)


@torch.no_grad()
def test_only_self_conditioning_changes_the_states():
    for name, conditioned in (("intermediate CTC", False), ("self-conditioned conformer", True)):
        model = bundle(name)
        before = encoded(model)
        assert "ctc 1" in before.intermediate
        model.network.intermediate_ctc.norm.weight.mul_(-1)
        changed = not torch.equal(encoded(model).states, before.states)
        assert changed == conditioned


@torch.no_grad()
@pytest.mark.parametrize("encoder", [ENCODER | {"n_layers": 3}, CONFORMER | {"n_layers": 3}])
def test_the_loss_is_the_mean_of_the_layers_times_the_weight(encoder):
    def objective(weight):
        layers = {"layers": [1, 2], "weight": weight}
        values = {
            "model": SIZES | TRANSFORMER | {"encoder": encoder, "intermediate_ctc": layers, "dropout": 0.0},
            "data": {"train": [SAMPLES], "dev": [SAMPLES], "first": 2},
            "augment": {"specaugment": None},
        }
        task = RecognitionTask(Config.model_validate(values), lambda line: None)
        return task, task.objective().eval(), next(task.pool(0, 0).batches([0]))

    task, light, batch = objective(1e-9)
    total = float(objective(2.0)[1](batch)[0][0])
    memory = task.bundle.network.encode(*light.extract(batch))
    means = []
    for layer in (1, 2):
        log_probs = memory.intermediate[f"ctc {layer}"][0].log_softmax(-1)
        means.append(
            sum(
                float(
                    ctc_loss(
                        log_probs[row, : memory.lengths[row], None],
                        batch.tokens[row : row + 1, : batch.token_lengths[row]],
                        memory.lengths[row : row + 1],
                        batch.token_lengths[row : row + 1],
                        0,
                        "sum",
                    )
                )
                for row in range(2)
            )
        )
    assert total - float(light(batch)[0][0]) == pytest.approx(2.0 * sum(means) / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ctc": False}, "needs the CTC head, but ctc is false"),
        ({"encoder": {"kind": "pyramidal_lstm"}}, "the encoder pyramidal_lstm does not support it"),
        ({"intermediate_ctc": {"layers": [2]}}, "layers has 2, but encoder.n_layers is 2"),
        ({"intermediate_ctc": {"layers": [1, 1]}}, "names one twice"),
        ({"intermediate_ctc": {"layers": []}}, "at least 1 item"),
    ],
)
def test_settings_without_effect_are_refused(changes, message):
    model = SIZES | TRANSFORMER | {"intermediate_ctc": {"layers": [1]}} | changes
    with pytest.raises(ValueError, match=message):
        Config.model_validate({"model": model, "train": {"ctc_weight": 0.0 if "ctc" in changes else 0.3}})
