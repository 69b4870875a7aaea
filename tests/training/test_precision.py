"""The choice between float32 and bfloat16 in training."""

import pytest
import torch
from test_learning import settings

from asr.run_folder import TRAINER, checkpoint_folders
from asr.training import loop, precision
from asr.training.loop import train
from asr.training.precision import bf16_gain, use_bf16

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_auto_never_emulates_bfloat16_on_a_gpu(monkeypatch):
    """A T4 can only emulate it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not use_bf16("auto", GPU, width=512)
    assert use_bf16("bf16", GPU, width=512) and not use_bf16("float32", GPU, width=512)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert use_bf16("auto", GPU, width=16)


@pytest.mark.parametrize(
    ("native", "width", "gain", "expected"),
    [(True, 256, 1.6, True), (True, 256, 1.1, False), (True, 64, 9.9, False), (False, 256, 9.9, False)],
)
def test_auto_measures_on_a_cpu_that_has_bfloat16(monkeypatch, native, width, gain, expected):
    measured = []
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    monkeypatch.setattr(precision, "bf16_gain", lambda width: measured.append(width) or gain)
    assert use_bf16("auto", CPU, width) is expected
    assert measured == ([width] if native and width >= precision.MIN_WIDTH else [])
    assert use_bf16("bf16", CPU, width) and not use_bf16("float32", CPU, width)
    assert not use_bf16("auto", torch.device("mps"), width)


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
        monkeypatch.setattr(loop, "use_bf16", lambda precision, device, width: answer)
        changed = settings({"steps": steps, "validate_every": steps, "precision": asked})
        assert train(changed, run, "if_possible", device="cpu") == 0
        assert f'"bf16": {str(answer).lower()}' in (checkpoint_folders(run)[-1] / TRAINER).read_text()
        return capsys.readouterr()

    assert "precision: bf16" in "".join(go(1, True))
    monkeypatch.setattr(loop, "use_bf16", None)  # must not be asked
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
