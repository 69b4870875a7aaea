"""`asr data preview`: the files have what the loader makes, and the page shows it."""

import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image
from typer.testing import CliRunner

from asr import audio
from asr.commands import app
from asr.config import load_config
from asr.datasets.batching import EpochPlan
from asr.datasets.corpus import Corpus
from asr.datasets.loading import Loader
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.datasets.sharding import write_shards
from asr.errors import AsrError
from asr.tokenizers import CharacterTokenizer

RATE = 16000


@pytest.fixture
def experiment(tmp_path):
    """Six recordings of loud noise, and a configuration that does everything to them."""
    found = []
    (tmp_path / "noise").mkdir()
    for i in range(6):
        samples = 0.5 * np.random.default_rng(i).standard_normal(5000 + 800 * i)
        audio.write(tmp_path / f"{i}.wav", samples.clip(-1, 1))
        text = "<b>one</b> & two"
        found.append(Utterance(f"u{i}", tmp_path / f"{i}.wav", text, len(samples) / RATE, speaker="s"))
        audio.write(tmp_path / "noise" / f"hum{i}.wav", 0.1 * samples[::-1])
    write_manifest(tmp_path / "train.jsonl", found)
    augment = {"gain_db": 12, "silence": 1, "join": {"per_epoch": 3}, "speeds": [0.9, 1.1]}
    augment |= {"noise": {"folder": str(tmp_path / "noise")}, "edge_silence": 0.1}
    config = tmp_path / "c.yaml"
    config.write_text(
        yaml.dump(
            {"data": {"train": [str(tmp_path / "train.jsonl")], "batch_seconds": 2}, "augment": augment}
        )
    )
    return config


def preview(*arguments):
    return CliRunner().invoke(app, ["data", "preview", *map(str, arguments)])


def test_the_audio_equals_the_loader_s_bit_for_bit(experiment, tmp_path):
    result = preview(experiment, "--out", tmp_path / "out", "--examples", 100, "--epoch", 3)
    assert result.exit_code == 0 and result.output == f"10 examples are in {tmp_path}/out/index.html\n"
    config = load_config(experiment)
    corpus = Corpus.read(config.data, "train")
    plan = EpochPlan(corpus, config.data, config.augment, config.train.seed, 3)
    tokenizer = CharacterTokenizer.from_characters(corpus.counts)
    loader = Loader(corpus, tokenizer, config.features.sample_rate, config.data, config.augment)
    expected = {}
    for batch in loader.batches(plan, range(len(plan))):
        for row, length in enumerate(batch.lengths.tolist()):
            expected[batch.waveforms[row, :length].numpy().tobytes()] = (
                batch.texts[row],
                batch.treatments[row],
            )
    rows = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert len(rows) == len(expected) == 10
    loudest = 0.0
    for row in rows:
        samples, rate = soundfile.read(row.audio, dtype="float32")
        assert rate == RATE and row.duration == len(samples) / RATE
        assert expected[samples.tobytes()] == (row.text, row.extra["treatment"])
        loudest = max(loudest, np.abs(samples).max())
        height, width = np.asarray(Image.open(row.audio.with_suffix(".png"))).shape
        assert (height, width) == (80, len(samples) // 160 + 1)
    assert loudest > 1  # nothing is clipped


def test_the_page_shows_every_example_and_escapes_texts(experiment, tmp_path):
    preview(experiment, "--out", tmp_path / "out", "--examples", 4)
    page = (tmp_path / "out" / "index.html").read_text()
    for name in re.findall(r'src="([^"]*)"', page):
        assert (tmp_path / "out" / name).is_file()
    assert page.count("<audio") == page.count("<img") == 4
    assert "&lt;b&gt;one&lt;/b&gt; &amp; two" in page and "<b>" not in page


def test_masks_follow_the_configuration(experiment, tmp_path):
    """A frequency mask that may be as high as the attention_plot, and one that is off."""

    def even(out, *settings):
        assert preview(experiment, *settings, "--out", out, "--examples", 8).exit_code == 0
        pictures = [np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))]
        return sum(int((attention_plot == 127).all(1).sum()) for attention_plot in pictures)

    wide = "augment.specaugment={frequency_masks: 1, frequency_width: 80, time_masks: 0}"
    assert even(tmp_path / "masked", wide) > 80
    assert even(tmp_path / "plain", "augment.specaugment=null") < 10


def test_vocal_tracts_follow_the_configuration(experiment, tmp_path):
    images = []
    for name, settings in (("plain", "null"), ("warped", "{factors: [1.15, 1.2], probability: 1}")):
        arguments = ("augment.specaugment=null", f"augment.vocal_tract={settings}")
        assert preview(experiment, *arguments, "--out", tmp_path / name, "--examples", 3).exit_code == 0
        images.append([np.asarray(Image.open(path)) for path in sorted((tmp_path / name).glob("*.png"))])
    assert all(not np.array_equal(plain, warped) for plain, warped in zip(*images, strict=True))


def test_all_pools_of_shards_are_shown(experiment, tmp_path):
    rows = read_manifest(tmp_path / "train.jsonl")
    shards = tmp_path / "shards"
    write_shards(tmp_path / "train.jsonl", shards, size=2)
    settings = (f"data.train=[{shards / 'manifest.jsonl'}]", "data.shard_pool=1", "augment.join.per_epoch=0")
    settings += ("augment.silence=0",)
    result = preview(experiment, *settings, "--out", tmp_path / "out", "--examples", 50)
    assert result.exit_code == 0, result.output
    shown = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert sorted(u.extra["parts"] for u in shown) == sorted(u.id for u in rows)
    # Weights can leave nothing of the first pool.
    for name in ("a", "b"):
        write_manifest(tmp_path / f"{name}.jsonl", rows[:1] if name == "a" else rows[1:])
        write_shards(tmp_path / f"{name}.jsonl", tmp_path / name, size=5)
    manifests = f"data.train=[{tmp_path / 'a' / 'manifest.jsonl'},{tmp_path / 'b' / 'manifest.jsonl'}]"
    for weights in ("[0.04,1]", "[1,0.04]"):
        arguments = (manifests, *settings[1:], f"data.weights={weights}", "--out", tmp_path / "w")
        assert preview(experiment, *arguments).exit_code == 0


def test_recordings_that_cannot_be_read_are_listed(experiment, tmp_path):
    (tmp_path / "3.wav").unlink()
    result = preview(experiment, "augment.join.per_epoch=0", "--out", tmp_path / "out", "--examples", 50)
    assert result.exit_code == 1
    assert re.search(r"left out: .*3\.wav: no such file", result.output)
    assert len(read_manifest(tmp_path / "out" / "manifest.jsonl")) == 6


def test_a_manifest_that_is_missing_is_one_line(experiment, tmp_path):
    result = preview(experiment, "data.train=[no.jsonl]", "--out", tmp_path / "out")
    assert isinstance(result.exception, AsrError) and "no.jsonl: cannot read the manifest" in str(
        result.exception
    )
    assert not (tmp_path / "out").exists()


def test_phonemes_without_text_are_training_data(experiment, tmp_path):
    rows = read_manifest(tmp_path / "train.jsonl")
    write_manifest(tmp_path / "train.jsonl", [replace(u, text=None, phonemes="ab") for u in rows])
    heads = ["train.phonemes.symbols=ab", "model.encoder.kind=conformer"]
    heads += ["model.encoder.half_rate_layers=4", "model.encoder.phonemes=3"]
    result = preview(experiment, "--out", tmp_path / "out", *heads)
    assert result.exit_code == 0, result.output
    assert {u.text for u in read_manifest(tmp_path / "out" / "manifest.jsonl")} == {""}


def test_weights_that_leave_nothing(experiment, tmp_path):
    arguments = ("data.weights=[0.04]", "augment.silence=0", "augment.join.per_epoch=0")
    result = preview(experiment, "--out", tmp_path / "out", *arguments)
    assert isinstance(result.exception, AsrError) and "data.weights" in str(result.exception)
