"""`asr train`: configurations and manifests that are refused before the first step."""

import json

import pytest


@pytest.fixture
def experiment(sounds, tmp_path):
    """Manifests and a configuration that no test here trains with."""
    for split, text in (("train", "one"), ("dev", "no")):
        record = {"id": f"{split}1", "audio": "a.wav", "text": text, "duration": 0.3}
        (sounds / f"{split}.jsonl").write_text(json.dumps(record) + "\n")
    config = tmp_path / "experiment.yaml"
    config.write_text(f"data:\n  train: [{sounds}/train.jsonl]\n  dev: [{sounds}/dev.jsonl]\n")
    return config


def test_an_unknown_key_in_the_configuration(asr, experiment, tmp_path):
    experiment.write_text(experiment.read_text() + "  batch_secs: 3\n")
    status, out, err = asr("train", experiment, "--run", tmp_path / "run")
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"asr: error: {experiment}, line 4: data.batch_secs: unknown key; this section")
    assert not (tmp_path / "run").exists()


def test_an_unknown_character_in_a_dev_text(asr, experiment, sounds, tmp_path):
    dev = sounds / "dev.jsonl"
    dev.write_text(dev.read_text().replace('"no"', '"né"'))
    status, _, err = asr("train", experiment, "--run", tmp_path / "run")
    assert status == 1 and [line[:5] for line in err] == [
        "data.",
        "data.",
        "asr: ",
    ]  # the counts of the manifests, then the error
    assert err[2].startswith(f"asr: error: {dev}, line 1: the text has 'é', which the model does not")
