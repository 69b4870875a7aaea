"""Tar files of other tools: what is read from them, and what is named."""

import io
import json
import tarfile

import numpy as np
import pytest
import soundfile

from asr import audio
from asr.datasets.corpora.webdataset import read_webdataset
from asr.datasets.manifest import read_manifest
from asr.datasets.prepare import prepare_corpus
from asr.datasets.sharding import write_shards
from asr.errors import AsrError


def sound(seed, kind="FLAC"):
    out = io.BytesIO()
    samples = 0.1 * np.random.default_rng(seed).standard_normal(1600)
    soundfile.write(out, samples, 16000, format=kind)
    return out.getvalue()


def write(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            data = data if isinstance(data, bytes) else data.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_members_are_grouped_by_the_path_up_to_the_first_dot(tmp_path):
    described = {"text": "größer", "speaker": "s1", "language": "de", "duration": 0.1, "snr": 3, "audio": "x"}
    members = [
        ("./a/42.json", json.dumps(described)),
        ("./a/43.txt", b"\xef\xbb\xbf two \n words\n"),
        ("./a/42.flac", sound(1)),
        ("./a/43.mic.wav", sound(2, "WAV")),
        ("./a/43.cls", "7"),
        ("./b/42.WAV", sound(3, "WAV")),
        ("./b/42.txt", "three"),
        ("./a/.hidden.wav", "x"),
    ]
    write(tmp_path / "in" / "000000.tar", members)
    prepared = prepare_corpus("webdataset", tmp_path / "in", tmp_path / "out")
    assert not prepared.bad
    found = {u.id: u for u in read_manifest(tmp_path / "out" / "all.jsonl")}
    assert {key: u.text for key, u in found.items()} == {
        "000000/a/42": "größer",
        "000000/a/43": "two words",
        "000000/b/42": "three",
    }
    first = found["000000/a/42"]
    assert (first.speaker, first.lang, first.duration, first.extra) == ("s1", "de", 0.1, {"snr": 3})
    expected, _ = soundfile.read(io.BytesIO(sound(1)), dtype="float32")
    np.testing.assert_array_equal(audio.read(first.audio), expected)


def test_what_cannot_be_used_is_named(tmp_path):
    two = [("one.wav", sound(1, "WAV")), ("one.flac", sound(1)), ("one.txt", "one")]
    members = [*two, ("two.wav", sound(1, "WAV")), ("three.txt", "three"), ("four.json", "{")]
    members += [("four.flac", sound(2)), ("five.txt", b"\xff"), ("five.flac", sound(2))]
    write(tmp_path / "a.tar", [*members, ("good.flac", sound(2)), ("good.txt", "x")])
    bad = []
    (group,) = read_webdataset(tmp_path / "a.tar", bad).values()
    assert [u.id for u in group] == ["a/good"]
    for line in (
        "a.tar: one: 2 recordings of one utterance (one.wav, one.flac)",
        "a.tar/two.wav: a recording without a text",
        "a.tar: three: a text without a recording",
        "a.tar/four.json: not JSON",
        "a.tar/five.txt: not UTF-8 text",
    ):
        assert any(line in found for found in bad), (line, bad)


def test_folders_of_tar_files_are_splits(tmp_path):
    for split in ("dev", "train"):
        for number in range(2):
            write(tmp_path / split / f"{number}.tar", [("a.flac", sound(number)), ("a.txt", split)])
    splits = read_webdataset(tmp_path, [])
    assert {name: [u.id for u in group] for name, group in splits.items()} == {
        "dev": ["0/a", "1/a"],
        "train": ["0/a", "1/a"],
    }
    # Shards of our own are read as well, and no key is taken for one of the manifest.
    prepared = prepare_corpus("webdataset", tmp_path / "dev", tmp_path / "out")
    assert write_shards(tmp_path / "out" / "all.jsonl", tmp_path / "shards") == (2, [])
    assert read_webdataset(tmp_path / "shards", []).keys() == prepared.splits.keys()
    (group,) = read_webdataset(tmp_path / "shards", []).values()
    assert sorted((u.id, u.text, u.extra) for u in group) == [("0/a", "dev", {}), ("1/a", "dev", {})]


def test_what_is_refused(tmp_path):
    write(tmp_path / "packed" / "a.tar.gz", [("a.flac", sound(0)), ("a.txt", "x")], "w:gz")
    (tmp_path / "packed" / "cut").mkdir()
    write(tmp_path / "damaged.tar", [(f"{n}.txt", "x" * 3000) for n in range(9)])
    data = bytearray((tmp_path / "damaged.tar").read_bytes())
    data[3584 * 4 + 100] ^= 255
    (tmp_path / "damaged.tar").write_bytes(data)
    (tmp_path / "shar").mkdir()
    (tmp_path / "shar" / "cuts.000000.jsonl.gz").touch()
    (tmp_path / "empty" / "a").mkdir(parents=True)
    for name, message in (
        ("packed", "a.tar.gz: compressed, so single members cannot be read; decompress it"),
        ("damaged.tar", "damaged.tar: damaged, compressed or not a tar file"),
        ("shar", "shar: this is a Lhotse Shar"),
        ("empty", "no tar file in it"),
        ("none.tar", "none.tar: cannot be read"),
    ):
        with pytest.raises(AsrError, match=message):
            read_webdataset(tmp_path / name, [])
