"""`asr data check`: what it counts and what it finds."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from architectures import config
from helpers import sections
from typer.testing import CliRunner

from asr.commands import app
from asr.config import Config
from asr.datasets.check import Limits, check_data, clipped_samples, loudest, model_limits
from asr.datasets.check_report import histogram
from asr.datasets.manifest import Utterance, write_manifest
from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer


def noise(seconds=0.5, seed=0, gain=0.1):
    return gain * np.random.default_rng(seed).standard_normal(round(seconds * 8000))


@pytest.fixture
def sets(tmp_path):
    """A training set with one of each problem, and a dev set that shares something with it."""
    sounds = {f"good{n}": noise(seed=n) for n in range(3)}
    sounds |= {
        "clipped": np.clip(noise(gain=2), -1, 1),
        "silent": noise(gain=1e-5),
        "short": noise(0.2, 7),
        "copy": noise(seed=1),
    }
    for name, samples in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 8000, subtype="FLOAT")
    (tmp_path / "broken.wav").write_bytes((tmp_path / "good0.wav").read_bytes()[:30])
    names = ("good0", "good1", "clipped", "silent", "short", "broken")
    train = [Utterance(n, tmp_path / f"{n}.wav", "aab c", 0.5, f"s{i}") for i, n in enumerate(names)]
    train[0] = replace(train[0], text="a" * 9 + "ß")
    dev = [
        Utterance("good2", tmp_path / "good2.wav", "b", 0.5, "s0"),
        Utterance("copy", tmp_path / "copy.wav"),
    ]
    for name, group in (("train", train), ("dev", dev)):
        write_manifest(tmp_path / f"{name}.jsonl", group)
    return tmp_path / "train.jsonl", tmp_path / "dev.jsonl"


def test_what_is_found(sets):
    result = check_data(sets)
    train, dev = result.manifests
    assert (len(train.utterances), len(train.speakers), len(dev.speakers)) == (6, 6, 1)
    assert train.characters["a"] == 9 + 2 * 5 and train.characters["ß"] == 1
    assert train.quantiles["median"] == 0.5 and dev.durations == [0.5]
    found = {kind: len(lines) for kind, lines in result.problems.items()}
    assert found == {
        "no text": 1,
        "no duration": 1,
        "speaker in several manifests": 1,
        "broken recording": 1,
        "clipped recording": 1,
        "silent recording": 1,
        "recording shorter than its duration": 1,
        "equal recordings": 1,
    }
    assert "clipped: " in result.problems["clipped recording"][0]
    assert "copy has the samples of good1" in result.problems["equal recordings"][0]
    assert result.problems["speaker in several manifests"] == [f"s0: {sets[0]} and {sets[1]}"]
    with pytest.raises(AsrError, match="given twice"):
        check_data([sets[0], sets[0].parent / "." / "train.jsonl"])


def test_shared_ids_and_pieces(sets, tmp_path):
    again = tmp_path / "again.jsonl"
    again.write_text(sets[1].read_text())
    problems = check_data([sets[1], again], recordings=False).problems
    assert len(problems["id in several manifests"]) == 2
    assert len(problems["piece of a recording in several manifests"]) == 2


def test_against_a_model(sets):
    limits = Limits(CharacterTokenizer.from_characters("ab c"), lambda seconds: 8)
    problems = check_data(sets, limits, recordings=False).problems
    assert problems["character that the model lacks"] == ["'ß' (U+00DF): 1 times"]
    # Nine equal letters need a blank between each two: 10 tokens and 8 blanks.
    assert problems["text longer than CTC allows"] == [f"{sets[0]}: good0: 18 states needed, 8 there"]


@pytest.mark.parametrize(
    "name", ["transformer", "stacked frames", "conformer at half rate", "Listen, Attend and Spell"]
)
def test_limits_of_a_model_are_those_of_its_encoder(name, tmp_path):
    """To the state, with features of any kind and recordings as short as they get."""
    for features in ({"kind": "log_mel"}, {"kind": "kaldi_fbank"}, {"kind": "whisper_log_mel"}):
        settings = config(name, features=features)
        bundle = Bundle.build(settings, CharacterTokenizer.from_characters(["ab"])).eval()
        bundle.save(tmp_path)
        limits = model_limits(tmp_path)
        for seconds in (0.05, 0.31, 0.322, 1.0, 1.234, 2.77):
            samples = round(seconds * settings.features.sample_rate)
            with torch.inference_mode():
                given = bundle.features(torch.zeros(1, samples), torch.tensor([samples]))
                assert limits.states(seconds) == int(bundle.network.encode(*given).lengths[0])


def test_every_recording_has_the_states_of_a_window(tmp_path):
    """Whisper's features pad each recording to a window, and refuse longer ones."""
    sizes = sections(d_model=16, n_heads=2, d_ffn=16, encoder_layers=1, decoder_layers=1, conv_channels=4)
    features = {"kind": "whisper_log_mel", "window_seconds": 2}
    config = Config.model_validate({"model": sizes, "features": features})
    Bundle.build(config, CharacterTokenizer.from_characters(["ab"])).save(tmp_path, longest_seconds=2.0)
    limits = model_limits(tmp_path)
    assert limits.states(0.3) == limits.states(2.0) == 50


def test_levels():
    assert clipped_samples(np.array([1, 1, 0.2, 1, 1, 1, -1, -1, -1, -1, 0.5])) == 7
    assert loudest(np.zeros(100), 8000) == -math.inf
    quiet = np.concatenate([np.zeros(800), np.full(160, 0.1), np.zeros(800)])
    assert loudest(quiet, 8000) == pytest.approx(-20)
    assert histogram([], "s") == "" and histogram([1.0, 2.0, 2.0], "s", 2).count("<rect") == 2


def test_command(sets, tmp_path):
    page, data = tmp_path / "page.html", tmp_path / "data.json"
    arguments = ["data", "check", *map(str, sets), "--html", str(page), "--json", str(data)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "clipped recording: 1" in result.output and "6 characters" not in result.output
    assert result.output.splitlines()[0].split()[:3] == ["manifest", "utterances", "hours"]
    record = json.loads(data.read_text())
    assert record["manifests"][0]["utterances"] == 6 and len(record["problems"]) == 8
    text = page.read_text()
    assert text.count("<svg") == 4 and "clipped recording: 1" in text
    clean = tmp_path / "clean.jsonl"
    write_manifest(clean, [Utterance("good0", Path(tmp_path / "good0.wav"), "a", 0.5)])
    result = CliRunner().invoke(app, ["data", "check", str(clean)])
    assert result.exit_code == 0 and "no problem found" in result.output


def test_phonemes_take_the_place_of_a_text(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(), 8000)
    write_manifest(tmp_path / "m.jsonl", [Utterance("a", tmp_path / "a.wav", None, 0.5, phonemes="ab")])
    assert "no text" not in check_data([tmp_path / "m.jsonl"]).problems
