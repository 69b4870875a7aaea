"""Model folders: names of the models that ship, folders of earlier versions, and bad weights."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr.errors import AsrError
from asr.model.interfaces import CachedForward, HasCTC, HasDecoder
from asr.model_folder import SHIPPED, check_model_folder, load_model, pick_device, read_config


def test_models_that_ship_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_model_folder("english") == SHIPPED / "english"
    with pytest.raises(AsrError, match="no such model folder"):
        check_model_folder("klingon")
    (tmp_path / "english").mkdir()  # a folder of one's own has priority
    with pytest.raises(AsrError, match=r"no config\.json in this model folder"):
        check_model_folder("english")


def test_the_english_model_has_ctc_and_a_decoder_and_is_small():
    network = load_model("english", "cpu").network
    assert isinstance(network, HasCTC) and isinstance(network, HasDecoder)
    assert sum(file.stat().st_size for file in (SHIPPED / "english").iterdir()) < 40e6


def test_the_digits_model_of_an_earlier_version_loads():
    """Its configuration has the settings of all parts in `model`, and its weights have older names."""
    old = json.loads((SHIPPED / "digits" / "config.json").read_text())
    assert old["model"]["encoder_layers"] == 4
    bundle = load_model("digits", "cpu")
    assert bundle.config.model.encoder.n_layers == 4
    assert isinstance(bundle.network, CachedForward) and isinstance(bundle.network, HasCTC)


def test_weights_that_are_not_finite_are_refused(tiny_model, tmp_path):
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["network.ctc_head.bias"][0] = torch.nan
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(AsrError, match=r"network\.ctc_head\.bias is NaN or infinite"):
        load_model(tmp_path, "cpu")


@pytest.mark.parametrize(("weight", "part"), [(0.0, "ctc_head"), (1.0, "decoder")])
def test_an_older_folder_with_an_untrained_part_loads_without_it(tiny_model, tmp_path, weight, part):
    """Earlier versions stored every part, trained or not."""
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    values = json.loads((tmp_path / "config.json").read_text())
    values["train"]["ctc_weight"] = weight
    (tmp_path / "config.json").write_text(json.dumps(values))
    network = load_model(tmp_path, "cpu").network
    assert not hasattr(network, part) and isinstance(network, HasCTC if part == "decoder" else HasDecoder)


@pytest.mark.parametrize("values", [{"model": None}, {"model": 5}, {"data": None}, {"kind": []}])
def test_a_configuration_without_sections_gives_one_clear_line(values, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(AsrError, match=f"config.json: {next(iter(values))}") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_older_configuration_may_name_no_alignment_heads(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"kind": "language model", "model": {"alignment_heads": []}})
    )
    read_config(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({"model": {"decoder": {"kind": "mask_predict", "alignment_heads": []}}})
    )
    assert read_config(tmp_path).model.decoder.kind == "mask_predict"


@pytest.mark.parametrize("name", ["hpu", "no such", "meta"])
def test_a_device_that_cannot_be_used_is_refused(name):
    with pytest.raises(AsrError, match=f"device '{name}' cannot be used here"):
        pick_device(name)
