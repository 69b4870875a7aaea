"""Errors that are found before a training starts: one line that names the place."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import sections

from asr.config import Config
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError
from asr.training.recognition import RecognitionTask

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"
TEXTS = ["one two", "naïve", "three"]


@pytest.fixture
def manifest(tmp_path):
    rows = read_manifest(SAMPLES)[: len(TEXTS)]
    spoken = [Utterance(u.id, u.audio, text, u.duration) for u, text in zip(rows, TEXTS, strict=True)]
    write_manifest(tmp_path / "a.jsonl", spoken)
    return tmp_path / "a.jsonl"


def build(manifest, augment=None, characters=None, **data):
    model = sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4)
    data = {"train": [manifest], "dev": [manifest]} | data
    shown_lines = []
    config = Config.model_validate(
        {"model": model, "data": data, "augment": augment or {}, "tokenizer": {"characters": characters}}
    )
    return RecognitionTask(config, shown_lines.append), shown_lines


def refused(manifest, *args, **settings):
    with pytest.raises(AsrError) as caught:
        build(manifest, *args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def vocabulary(setup):
    return "".join(setup[0].bundle.tokenizer.characters)


def test_the_vocabulary_comes_from_the_texts_or_the_configuration(manifest):
    assert vocabulary(build(manifest)) == " aehnortvwï"
    assert vocabulary(build(manifest, characters="abc dehinortvwxnai\u0308ve\n")) == " abcdehinortvwxï"


def test_a_vocabulary_smaller_than_the_text_needs_is_refused_with_file_and_line(manifest):
    message = refused(manifest, characters="abcdefghijklmnopqrstuvwxyz ")
    assert message.startswith(f"{manifest}, line 2: the text has 'ï', which the model does not know")
    small = build(manifest, characters="abcdefghijklmnopqrstuvwxyz ", unknown_characters="unk")
    assert "ï" not in vocabulary(small)


def test_dev_texts_are_checked_too(manifest, tmp_path):
    row = read_manifest(manifest)[0]
    write_manifest(tmp_path / "dev.jsonl", [Utterance("x", row.audio, "zwei", row.duration)])
    message = refused(manifest, dev=[tmp_path / "dev.jsonl"])
    assert re.match(r".*dev\.jsonl, line 1: the text has '[zi]', which", message)


def test_what_goes_between_joined_texts_is_in_the_vocabulary(manifest):
    joined = {"join": {"per_epoch": 2, "separator": "|"}}
    assert "|" in vocabulary(build(manifest, joined))
    assert refused(manifest, joined, characters="aehnortvwï ").startswith(
        "augment.join.separator: the tokenizer"
    )


@pytest.mark.parametrize("which", ["noise", "rooms"])
def test_folders_of_noise_and_rooms_are_checked_first(manifest, tmp_path, which):
    message = refused(manifest, {which: {"folder": tmp_path / "none"}})
    assert message.startswith(f"augment.{which}.folder: {tmp_path}/none is not a folder")


def test_utterances_read_and_left_out_are_reported(manifest):
    _, shown_lines = build(manifest, first=2)
    assert shown_lines[0].startswith("data.train: 2 utterances, 0.00 h from") and shown_lines[0].endswith(
        "; left out: 1 after the first 2"
    )


def test_features_without_frequencies_cannot_be_warped(manifest, monkeypatch):
    warped = {"vocal_tract": {"factors": [0.9, 1.1]}}
    task, _ = build(manifest, warped)
    assert task.objective().vocal_tract.factors == (0.9, 1.1)
    monkeypatch.delattr("asr.features.log_mel.LogMel.frequencies")
    with pytest.raises(AsrError, match="features of kind log_mel cannot be warped"):
        task.objective()


@pytest.mark.parametrize("weights", [[3], [2, 0.5]])
def test_the_weights_of_training_manifests_do_not_repeat_dev_utterances(manifest, tmp_path, weights):
    rows = [replace(u, id=f"{u.id}-again") for u in read_manifest(manifest)]
    write_manifest(tmp_path / "b.jsonl", rows)
    manifests = [manifest, tmp_path / "b.jsonl"][: len(weights)]
    setup, _ = build(manifest, train=manifests, weights=weights)
    seen = [id for batch in setup.dev.batches(range(len(setup.dev))) for id in batch.ids]
    assert sorted(seen) == sorted(u.id for u in read_manifest(manifest))


def test_weights_that_leave_nothing_are_refused(manifest):
    assert refused(manifest, weights=[0.04]).startswith("data.weights: with these weights")


def test_a_text_that_is_too_long_for_the_decoder_is_left_out(manifest):
    """Its error would end the run, and a resumed one would meet it again."""
    model = sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4)
    model["decoder"]["positions"] = {"kind": "learned", "max_length": 6}
    data = {"train": [manifest], "dev": [manifest]}
    task = RecognitionTask(Config.model_validate({"model": model, "data": data}), print)
    for batches in (task.pool(0, 0), task.dev):
        found = list(batches.batches(range(len(batches))))
        assert sorted(text for batch in found for text in batch.texts) == ["naïve", "three"]
        assert [line for batch in found for line in batch.bad if "only 5 positions" in line]
