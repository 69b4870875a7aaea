"""Muon: equal to torch.optim.Muon, stored in checkpoints, and refused where it has nothing to train."""

import pytest
import torch
from test_learning import ALONE, SAMPLES, settings, take
from torch import nn

from asr.errors import AsrError
from asr.training.loop import train
from asr.training.muon import orthogonalized
from asr.training.optimizer import block_matrices, build_optimizer
from asr.training.recognition import RecognitionTask


def network() -> nn.Module:
    torch.manual_seed(0)
    blocks = nn.ModuleList([nn.Linear(12, 20), nn.Sequential(nn.Linear(20, 8), nn.LayerNorm(8))])
    return nn.ModuleDict({"embed": nn.Embedding(5, 12), "blocks": blocks, "out": nn.Linear(8, 5)})


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_orthogonalized_sets_singular_values_to_about_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1e-3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonalized(matrix) @ v.T
    assert torch.all((inside.diagonal() > 0.65) & (inside.diagonal() < 1.25))
    assert torch.allclose(inside, inside.diagonal().diag(), atol=1e-3)  # the singular vectors are the same


def test_steps_equal_those_of_torch_for_blocks_and_of_adamw_for_the_rest():
    ours, theirs = network(), network()
    config = settings(optim={"optimizer": "muon", "lr": 0.1, "weight_decay": 0.3}).optim
    optimizer = build_optimizer(ours, config, ALONE)
    optimizer.dtype = torch.bfloat16  # as torch.optim.Muon, on any CPU
    matrices = [theirs["blocks"][0].weight, theirs["blocks"][1][0].weight]
    rest = [p for p in theirs.parameters() if all(p is not matrix for matrix in matrices)]
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": 0.3},
        {"params": [p for p in rest if p.dim() == 1], "weight_decay": 0.0},
    ]
    references = [
        torch.optim.Muon(matrices, lr=0.1, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=0.1, betas=config.betas, eps=config.eps),
    ]
    for step in range(3):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            generator = torch.Generator().manual_seed(step)
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for each in (optimizer, *references):
            each.step()
    before = network()
    for (name, a), b, c in zip(
        ours.named_parameters(), theirs.parameters(), before.parameters(), strict=True
    ):
        assert torch.allclose(a, b, atol=2e-3), name
        assert (a - c).abs().mean() > 0.02, name


def test_only_linear_layers_of_blocks_are_trained_with_muon():
    task = RecognitionTask(settings(), lambda line: None)
    names = {id(p): name for name, p in task.bundle.network.named_parameters()}
    chosen = [names[id(p)] for p in block_matrices(task.bundle.network)]
    assert {name.split(".")[0] for name in chosen} == {"encoder", "decoder"}
    assert not any(
        name.startswith(("front_end", "ctc_head", "decoder.out", "decoder.embed")) for name in chosen
    )
    assert all(name.endswith(".weight") for name in chosen)


def test_a_model_learns_and_a_resumed_run_equals_one_that_was_not_stopped(tmp_path):
    muon = {"optimizer": "muon", "lr": 3e-3}
    losses = [step.losses["loss"] for step in take(settings(optim=muon), 12)[0]]
    assert losses[-1] < 0.9 * losses[0]

    def run(steps, folder, resume="never"):
        config = settings({"steps": steps, "checkpoint_every": 2}, {"train": [SAMPLES]}, muon)
        assert train(config, tmp_path / folder, resume, device="cpu") == 0
        return (
            tmp_path / folder / "checkpoints" / f"step-{steps:08d}" / "optimizer.safetensors"
        ).read_bytes()

    whole = run(4, "whole")
    run(2, "parts")
    assert run(4, "parts", "always") == whole


def test_a_resumed_run_cannot_change_the_optimizer(tmp_path):
    train(settings({"steps": 1}), tmp_path, device="cpu")
    with pytest.raises(AsrError, match=r"optim\.optimizer adamw"):
        train(settings({"steps": 2}, optim={"optimizer": "muon"}), tmp_path, "always", device="cpu")


def test_muon_without_a_matrix_to_train_is_refused():
    config = settings(optim={"optimizer": "muon"}).optim
    plain = nn.Linear(4, 4)
    with pytest.raises(AsrError, match="use adamw"):
        build_optimizer(plain, config, ALONE)
    frozen = network()
    frozen["blocks"].requires_grad_(False)
    with pytest.raises(AsrError, match="use adamw"):
        build_optimizer(frozen, config, ALONE)
