"""`asr info`, and models that are missing or broken."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file


def with_broken(tiny_model, folder, name, change):
    shutil.copytree(tiny_model, folder)
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if (changed := change(content)) is not None:
        path.write_bytes(changed)
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tokenizer.json", lambda old: None, "m: no tokenizer.json in this model folder; a model needs"),
        ("config.json", lambda old: None, "m: no config.json in this model folder"),
        ("model.safetensors", lambda old: None, "m: no model.safetensors in this model folder"),
        ("tokenizer.json", lambda old: b'{"tokens": [1, 2]}', "m/tokenizer.json: not a"),
        ("tokenizer.json", lambda old: b"\xff\xfe", "m/tokenizer.json: not a tokenizer; copy"),
        ("tokenizer.json", lambda old: old.replace(b', "z"', b""), "m: model.safetensors does not fit"),
        ("config.json", lambda old: b'{\n"nose": 1}', "m/config.json: nose: unknown key; this"),
        ("config.json", lambda old: b'{"model": {"d_model": 100000000}}', "the model cannot be built ("),
        ("config.json", lambda old: b"{[", "m/config.json: not JSON"),
        ("model.safetensors", lambda old: b"", "m/model.safetensors: cannot be read as safetensors"),
        ("model.safetensors", lambda old: old[:5000], "m/model.safetensors: cannot be read as safetensors"),
        ("model.safetensors", lambda old: b"\xa5" * 5000, "m/model.safetensors: cannot be read as"),
    ],
)
@pytest.mark.parametrize("verb", [["transcribe", "a.wav"], ["info"]])
def test_a_broken_model(asr, tiny_model, tmp_path, monkeypatch, name, change, message, verb):
    monkeypatch.chdir(tmp_path)
    with_broken(tiny_model, tmp_path / "m", name, change)
    status, out, err = asr(*verb, "--model", "m")
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"asr: error: {message}")


def test_no_model(asr, sounds, tmp_path):
    for model in (tmp_path / "none", sounds / "a.wav", tmp_path / ("m" * 300)):
        status, out, err = asr("transcribe", sounds, "--model", model)
        assert (status, out, len(err)) == (1, [], 1)
        assert err[0].startswith(f"asr: error: {model}: no such model folder; give the folder")


def test_weights_of_another_model_are_refused(asr, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "m")
    save_file({"other": np.zeros(3)}, tmp_path / "m/model.safetensors")
    status, _, err = asr("info", "--model", tmp_path / "m")
    assert status == 1 and len(err) == 1 and f"{tmp_path}/m: model.safetensors does not fit" in err[0]


def test_info(asr, tiny_model):
    status, out, err = asr("info", "--model", tiny_model)
    assert (status, err) == (0, [])
    rows = dict(line.split("  ", 1) for line in out)
    rows = {key: value.strip() for key, value in rows.items()}
    assert rows["model folder"] == str(tiny_model)
    assert rows["encoder"].startswith("transformer, ") and "n_layers 1" in rows["encoder"]
    assert "d_model 32" in rows["decoder"] and "n_mels 80" in rows["features"]
    assert rows["model"].startswith("encoder_decoder")
    assert rows["characters"] == "16: ' efghinorstuvwxz'"
    assert rows["trained: longest_seconds"] == "2.0"
    assert "cpu" in rows["devices"] and int(rows["parameters"].replace(",", "")) > 10000
    assert "model card" not in rows
