"""The precision of training: its choice, the scale of the loss in fp16; and recomputed activations."""

import architectures
import pytest
import torch
from test_learning import ALONE, SAMPLES, settings
from torch import nn

from asr.config import Config
from asr.model_folder import load_tensors
from asr.run_folder import TRAINER, checkpoint_folders
from asr.training import loop, precision, steps
from asr.training.checkpoints import read_state
from asr.training.loop import train
from asr.training.optimizer import build_optimizer
from asr.training.precision import bf16_gain, choose_precision
from asr.training.recognition import RecognitionTask
from asr.training.recompute import recompute_blocks
from asr.training.train_state import TrainState

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_auto_never_emulates_bfloat16_on_a_gpu(monkeypatch):
    """A T4 can only emulate it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_precision("auto", GPU, width=512) == "float32"
    assert choose_precision("bf16", GPU, width=512) == "bf16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert choose_precision("auto", GPU, width=16) == "bf16"


@pytest.mark.parametrize(
    ("native", "width", "gain", "expected"),
    [(True, 256, 1.6, True), (True, 256, 1.1, False), (True, 64, 9.9, False), (False, 256, 9.9, False)],
)
def test_auto_measures_on_a_cpu_that_has_bfloat16(monkeypatch, native, width, gain, expected):
    measured = []
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    monkeypatch.setattr(precision, "bf16_gain", lambda width: measured.append(width) or gain)
    assert choose_precision("auto", CPU, width) == ("bf16" if expected else "float32")
    assert measured == ([width] if native and width >= precision.MIN_WIDTH else [])
    assert all(choose_precision(each, CPU, width) == each for each in ("bf16", "float32", "fp16"))
    assert choose_precision("auto", torch.device("mps"), width) == "float32"


def test_measurement(monkeypatch):
    """The times are those of each precision, and the random numbers of the run stay the same."""
    taken = []

    def take(layer, x, bf16):
        taken.append((layer.weight.size(0), bf16))
        return 1.0 if bf16 else 3.0

    monkeypatch.setattr(precision, "_time", take)
    threads, numbers = torch.get_num_threads(), torch.get_rng_state()
    assert bf16_gain(256) == 3.0 and set(taken) == {(256, False), (256, True)}
    bf16_gain(4096)
    assert taken[-1] == (precision.MAX_WIDTH, True)
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), numbers)
    monkeypatch.undo()
    assert bf16_gain(256) > 0


def test_a_resumed_run_keeps_its_precision(tmp_path, monkeypatch, capsys):
    """Another device may prefer another precision. Asking for one changes it."""
    run = tmp_path / "run"

    def go(steps, answer, asked="auto"):
        name = "bf16" if answer else "float32"
        monkeypatch.setattr(loop, "choose_precision", lambda precision, device, width: name)
        changed = settings({"steps": steps, "validate_every": steps, "precision": asked})
        assert train(changed, run, "if_possible", device="cpu") == 0
        assert f'"precision": "{name}"' in (checkpoint_folders(run)[-1] / TRAINER).read_text()
        return capsys.readouterr()

    assert "precision: bf16" in "".join(go(1, True))
    monkeypatch.setattr(loop, "choose_precision", None)  # must not be asked
    changed = settings({"steps": 2, "validate_every": 2})
    seen = []
    original = torch.autocast.__init__

    def autocast(self, device_type, dtype=None, enabled=True, **others):
        seen.append(enabled)
        original(self, device_type, dtype=dtype, enabled=enabled, **others)

    monkeypatch.setattr(torch.autocast, "__init__", autocast)
    assert train(changed, run, "always", device="cpu") == 0
    assert "precision: bf16" in "".join(capsys.readouterr()) and any(seen)
    monkeypatch.setattr(torch.autocast, "__init__", original)
    assert "precision: float32" in "".join(go(3, False, asked="float32"))


def test_states_of_earlier_versions_keep_their_precision():
    values = TrainState(step=3).to_json()
    del values["precision"], values["loss_scale"]
    for before, now in ((True, "bf16"), (False, "float32"), (None, None)):
        state = TrainState.from_json(values | {"bf16": before})
        assert state.precision == now and state.loss_scale == {} and state.step == 3


def first_step(precision, **state):
    config = settings({"precision": precision}, optim={"clip_norm": 0.5})
    task = RecognitionTask(config, lambda line: None)
    task.precision = precision
    optimizer = build_optimizer(task.bundle.network, config.optim, ALONE)
    progress = TrainState(**state)
    stepping = steps.steps(task, task.objective(), optimizer, config.train, config.optim, progress, ALONE)
    found = next(stepping)[0]
    stepping.close()
    return found, progress, task


def test_fp16_scales_the_loss_and_not_the_gradient_that_is_used():
    found, state, task = first_step("fp16")
    expected, plain, exact = first_step("float32")
    assert not found.skipped and plain.loss_scale == {}
    assert state.loss_scale["scale"] == 2.0**16 and state.loss_scale["_growth_tracker"] == 1
    assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=0.02)
    assert found.losses["loss"] != expected.losses["loss"]
    assert found.losses["loss"] == pytest.approx(expected.losses["loss"], rel=0.01)
    for mine, other in zip(task.bundle.network.parameters(), exact.bundle.network.parameters(), strict=True):
        assert mine.dtype == torch.float32
        assert (
            float((mine - other).detach().abs().max()) < 2.5e-3
        )  # the first step of AdamW is at most the rate


def test_an_overflow_in_fp16_skips_the_step_and_halves_the_scale():
    _, state, _ = first_step("fp16")
    found, after, task = first_step("fp16", loss_scale=state.loss_scale | {"scale": 2.0**60})
    assert "scaled by 1.15292e+18, which is halved" in found.skipped and after.updates == 0
    assert after.loss_scale["scale"] == 2.0**59 and after.loss_scale["_growth_tracker"] == 0
    assert all(bool(p.isfinite().all()) for p in task.bundle.network.parameters())
    assert "scaled" not in first_step("float32", loss_scale=after.loss_scale)[0].skipped


def test_a_resumed_run_in_fp16_equals_one_that_was_not_stopped(tmp_path, capsys):
    for run, stops in {"once": (3,), "parts": (1, 3)}.items():
        for count in stops:
            changed = settings(
                {"steps": count, "precision": "fp16", "validate_every": 9, "checkpoint_every": 1}
            )
            assert train(changed, tmp_path / run, "if_possible", "cpu") == 0
    assert "precision: fp16" in capsys.readouterr().err
    once, parts = (checkpoint_folders(tmp_path / run)[-1] for run in ("once", "parts"))
    a, b = (load_tensors(folder / "optimizer.safetensors")[0] for folder in (once, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert read_state(once).loss_scale == read_state(parts).loss_scale != {}
    assert read_state(once).loss_scale["_growth_tracker"] == 3


@pytest.mark.parametrize(
    "name",
    ["transformer", "conformer at a quarter of the rate", "Listen, Attend and Spell", "intermediate CTC"],
)
def test_recomputed_activations_give_the_same_gradients(name):
    """Dropout too is the same the second time."""
    torch.manual_seed(5)
    sound = torch.randn(2, 9000)
    tokens = torch.randint(4, 9, (2, 5))
    gradients, passes = [], []
    for again in (False, True):
        bundle = architectures.bundle(name)
        network = bundle.network.train()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.3
        count = []
        block = next(m for m in network.encoder.modules() if isinstance(m, nn.ModuleList))[0]
        original = block.forward
        block.forward = lambda *a, count=count, original=original, **k: count.append(1) or original(*a, **k)
        if again:
            recompute_blocks(network)
        torch.manual_seed(7)
        features, lengths = bundle.features(sound, torch.tensor([9000, 7000]))
        memory = network.encode(features, lengths)
        loss = network.ctc(memory).square().sum() + network.decode(tokens, memory).square().sum()
        loss.backward()
        gradients.append([p.grad for p in network.parameters()])
        passes.append(len(count))
        network.eval()
        count.clear()
        network.encode(features, lengths)
        assert len(count) == 1  # nothing is computed twice outside training
    assert passes == [1, 2]
    for one, other in zip(*gradients, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def test_a_run_that_recomputes_equals_one_that_does_not(tmp_path):
    found = []
    for again in (False, True):
        changed = settings({"steps": 2, "recompute": again}, model={"dropout": 0.2})
        assert train(changed, tmp_path / str(again), device="cpu") == 0
        found.append(load_tensors(tmp_path / str(again) / "model.safetensors")[0])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fp16_with_recomputed_activations_learns_on_the_gpu(tmp_path):
    sizes = {"model": {"preset": "tiny"}, "data": {"train": [SAMPLES]}}
    config = Config.model_validate(sizes | {"train": {"precision": "fp16", "recompute": True}}).overfit(8)
    assert train(config, tmp_path / "run", device="cuda") == 0
    assert read_state(checkpoint_folders(tmp_path / "run")[-1]).loss_scale["scale"] >= 1
