"""Shards: what they contain, how they are read, and training from pools of them."""

import json
import shutil
import tarfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from helpers import sections
from typer.testing import CliRunner

from asr import audio
from asr.audio.archive import read_member
from asr.commands import app
from asr.config import AugmentConfig, Config, DataConfig
from asr.datasets import sharding
from asr.datasets.batching import EpochPlan, count_pools
from asr.datasets.corpus import Corpus
from asr.datasets.export import export_manifest
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.datasets.sharding import _content, write_shards
from asr.errors import AsrError
from asr.model_folder import load_tensors
from asr.training.loop import train
from asr.training.recognition import RecognitionTask


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Nine recordings, the last of which has two utterances, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("corpus")
    for n in range(9):
        samples = 0.3 * np.random.default_rng(n).standard_normal(3200 + 160 * n).clip(-3, 3)
        soundfile.write(folder / f"{n}.wav", samples, 8000)
    (folder / "broken.wav").write_bytes((folder / "0.wav").read_bytes()[:30])
    found = [
        Utterance(
            f"ü/{n}", folder / f"{n}.wav", "ab c", 0.4 + 0.02 * n, f"s{n % 2}", "en", extra={"split": "x"}
        )
        for n in range(8)
    ]
    found += [Utterance(f"part{n}", folder / "8.wav", "b", 0.2, "s0", start=0.2 * n) for n in range(2)]
    found.append(Utterance("broken", folder / "broken.wav", "b", 0.2))
    write_manifest(folder / "all.jsonl", found)
    write_manifest(folder / "good.jsonl", found[:-1])
    return folder


@pytest.fixture(scope="module")
def shards(corpus):
    assert write_shards(corpus / "good.jsonl", corpus / "shards", size=3) == (10, [])
    return corpus / "shards" / "manifest.jsonl"


def test_utterances_and_samples_are_the_same_inside_shards(corpus, shards):
    before = {u.id: u for u in read_manifest(corpus / "good.jsonl")}
    after = read_manifest(shards)
    assert sorted(before) == sorted(u.id for u in after) != [u.id for u in after]
    assert Counter(u.audio.parent.name for u in after) == {
        "000000.tar": 3, "000001.tar": 3, "000002.tar": 3, "000003.tar": 1,
    }  # fmt: skip
    for utterance in after:
        original = before[utterance.id]
        expected = audio.read(original.audio, 8000, original.start, original.duration)
        found = audio.read(utterance.audio, 8000, utterance.start, utterance.duration)
        assert np.abs(found - expected).max() <= 2**-15 and len(found) == len(expected)
        assert audio.duration(utterance.audio) == pytest.approx(original.duration, abs=1e-3)
        assert replace(utterance, audio=original.audio, start=original.start) == original
        whole = not utterance.id.startswith("part")
        assert utterance.audio.suffix == (".wav" if whole else ".flac")
        assert not whole or read_member(utterance.audio) == original.audio.read_bytes()


def test_a_shard_describes_its_utterances(shards):
    with tarfile.open(shards.parent / "000000.tar") as tar:
        names = tar.getnames()
        assert names == [
            n for i in range(3) for n in (next(m for m in names if m.startswith(f"{i:08}")), f"{i:08}.json")
        ]
        record = json.load(tar.extractfile("00000000.json"))
    assert "audio" not in record and {"id", "text", "duration", "speaker"} <= record.keys()


def test_a_second_call_keeps_complete_shards_and_writes_others(corpus, tmp_path):
    write_shards(corpus / "good.jsonl", tmp_path, size=4)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    (tmp_path / "000001.tar").write_bytes((tmp_path / "000001.tar").read_bytes()[:700])
    write_shards(corpus / "good.jsonl", tmp_path, size=4)
    changed = {name for name, at in times.items() if (tmp_path / name).stat().st_mtime_ns != at}
    assert changed == {"000001.tar"}
    assert all(len(audio.read(u.audio)) for u in read_manifest(tmp_path / "manifest.jsonl"))
    write_shards(corpus / "good.jsonl", tmp_path, size=10, shuffle=False)
    assert [path.name for path in tmp_path.glob("*.tar")] == ["000000.tar"]
    assert [u.id for u in read_manifest(tmp_path / "manifest.jsonl")][:3] == ["ü/0", "ü/1", "ü/2"]


def test_shards_are_not_written_over_the_ones_that_are_read(corpus, shards):
    before = {path: path.read_bytes() for path in shards.parent.glob("*.tar")}
    with pytest.raises(AsrError, match=r"its recordings are in shards in .*; choose another folder"):
        write_shards(shards, shards.parent, size=2)
    assert before == {path: path.read_bytes() for path in shards.parent.glob("*.tar")}


def test_a_shard_is_written_again_when_the_place_of_a_part_changed(corpus, tmp_path):
    utterances = read_manifest(corpus / "good.jsonl")
    write_manifest(tmp_path / "all.jsonl", utterances)
    write_shards(tmp_path / "all.jsonl", tmp_path / "out", size=20)
    part = next(u for u in utterances if u.start)
    moved = [replace(u, start=u.start / 2) if u == part else u for u in utterances]
    write_manifest(tmp_path / "all.jsonl", moved)
    write_shards(tmp_path / "all.jsonl", tmp_path / "out", size=20)
    (found,) = [u for u in read_manifest(tmp_path / "out" / "manifest.jsonl") if u.id == part.id]
    expected = audio.read(part.audio, 8000, part.start / 2, part.duration)
    assert np.abs(audio.read(found.audio, 8000) - expected).max() <= 2**-15


def test_a_shard_is_written_again_when_a_recording_was_repaired(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "corpus", ignore=shutil.ignore_patterns("shards"))
    manifest, out = tmp_path / "corpus" / "good.jsonl", tmp_path / "out"
    manifest.write_text(manifest.read_text().replace(str(corpus), str(manifest.parent)))
    write_shards(manifest, out, size=3)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    samples, rate = soundfile.read(manifest.parent / "4.wav")
    soundfile.write(manifest.parent / "4.wav", -samples, rate)
    write_shards(manifest, out, size=3)
    assert len([name for name, at in before.items() if (out / name).stat().st_mtime_ns != at]) == 1
    (found,) = [u for u in read_manifest(out / "manifest.jsonl") if u.id == "ü/4"]
    assert read_member(found.audio) == (manifest.parent / "4.wav").read_bytes()
    (manifest.parent / "4.wav").unlink()
    assert write_shards(manifest, out, size=3) == (10, [])  # the copy in the shard is kept


def test_shards_replace_only_their_own(corpus, tmp_path):
    write_manifest(tmp_path / "dev.jsonl", read_manifest(corpus / "good.jsonl")[:2])
    write_shards(corpus / "good.jsonl", tmp_path / "out", size=3)
    (tmp_path / "tar").mkdir()
    (tmp_path / "tar" / "000004.tar").write_bytes(b"of someone else")
    (tmp_path / "json").mkdir()
    shutil.copy(tmp_path / "dev.jsonl", tmp_path / "json" / "manifest.jsonl")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder, message in (
        ("out", r"out: has the shards of .*good.jsonl; choose another folder"),
        ("tar", r"000004.tar: not written by `asr data shard`; choose another folder"),
        ("json", r"manifest.jsonl: not written by"),
    ):
        with pytest.raises(AsrError, match=message):
            write_shards(tmp_path / "dev.jsonl", tmp_path / folder)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_many_tar_files_are_read_without_reading_their_indexes_again(shards, tmp_path, monkeypatch):
    names = [tmp_path / f"{n}.tar" for n in range(100)]
    for name in names:
        name.symlink_to(shards.parent / "000000.tar")
    member = next(u.audio.name for u in read_manifest(shards) if u.audio.parent.name == "000000.tar")
    first = [read_member(name / member) for name in names]
    monkeypatch.setattr(tarfile, "open", None)
    assert [read_member(name / member) for name in names] == first


def test_a_part_is_read_without_asking_for_the_length_of_its_recording(corpus, monkeypatch):
    """The length of a container is known only when all of it is decoded."""
    part = read_manifest(corpus / "good.jsonl")[-1]
    monkeypatch.setattr(audio, "duration", None)
    suffix, data = _content(part, whole=True)
    assert suffix == ".flac" and audio.read(data, 8000).size == 0.2 * 8000


def test_a_recording_that_cannot_be_read_is_listed_and_left_out(corpus, tmp_path):
    command = ["data", "shard", str(corpus / "all.jsonl"), str(tmp_path), "--size", "4"]
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1 and "broken.wav" in result.output and "10 utterances" in result.output
    assert len(read_manifest(tmp_path / "manifest.jsonl")) == 10
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "manifest.jsonl")])
    assert "broken" not in result.output and "10" in result.output


def test_what_is_wrong_with_a_tar_file_is_said(corpus, shards, tmp_path):
    with pytest.raises(AsrError, match="no such member"):
        audio.read(shards.parent / "000000.tar" / "other.wav")
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    with pytest.raises(AsrError, match="not a tar file"):
        audio.read(tmp_path / "a.tar" / "b.wav")
    (tmp_path / "b.tar").write_bytes((shards.parent / "000000.tar").read_bytes()[:2000])
    with pytest.raises(AsrError, match=r"copy it again|no such member"):
        audio.read(tmp_path / "b.tar" / read_manifest(shards)[0].audio.name)
    with pytest.raises(AsrError, match="no such file"):
        audio.read(tmp_path / "c.tar" / "b.wav")
    with pytest.raises(AsrError, match="in a shard"):
        export_manifest(shards, tmp_path / "kaldi", "kaldi")
    with pytest.raises(AsrError, match=r"line 1: .*/0.wav is not in a shard|line 1: 0.wav is not in a shard"):
        Corpus.read(DataConfig(train=(corpus / "good.jsonl",), shard_pool=1), "train")


def plans(shards, epoch=0, augment=None, **settings):
    data = DataConfig(train=(shards,), batch_seconds=1.0, **{"shard_pool": 2} | settings)
    corpus = Corpus.read(data, "train")
    augment = augment or AugmentConfig()
    return corpus, [EpochPlan(corpus, data, augment, 3, epoch, n) for n in range(count_pools(corpus, data))]


def parts(plan):
    return [i for batch in (plan[n] for n in range(len(plan))) for example in batch for i in example.parts]


def test_the_pools_of_an_epoch_have_every_utterance_once_and_whole_shards(shards):
    orders = set()
    for epoch in range(4):
        corpus, pools = plans(shards, epoch)
        assert len(pools) == 2
        assert sorted(i for plan in pools for i in parts(plan)) == list(range(10))
        for plan in pools:
            assert {int(corpus.shards[i]) for i in parts(plan)} == set(plan.shards.tolist())
        orders.add(tuple(tuple(plan.shards.tolist()) for plan in pools))
        keys = [e.key for plan in pools for n in range(len(plan)) for e in plan[n]]
        assert len(set(keys)) == len(keys)  # all random changes are of their own
    assert len(orders) > 1
    (_, pools), (_, again) = plans(shards, 1), plans(shards, 1)
    assert [p[n] for p in pools for n in range(len(p))] == [p[n] for p in again for n in range(len(p))]


def test_weights_strings_and_silence_are_divided_among_the_pools(shards):
    join = {"per_epoch": 7, "min_items": 2, "max_items": 2}
    augment = AugmentConfig.model_validate({"join": join, "silence": 5})
    corpus, pools = plans(shards, augment=augment, weights=(2.5,), shard_pool=1)
    assert len(pools) == 4
    found = [e for plan in pools for n in range(len(plan)) for e in plan[n]]
    assert len([e for e in found if not e.parts]) == 5
    singles = Counter(e.parts[0] for e in found if len(e.parts) == 1)
    assert set(singles) == set(range(10)) and sorted(singles.values()) == [2] * 5 + [3] * 5
    assert len([e for e in found if len(e.parts) == 2]) == 7
    for plan in pools:
        assert {int(corpus.shards[i]) for i in parts(plan)} == set(plan.shards.tolist())


def settings(shards, steps, **data):
    return Config.model_validate(
        {
            "features": {"sample_rate": 8000},
            "model": sections(d_model=16, n_heads=2, d_ffn=16),
            "data": {"train": [shards], "dev": [shards], "max_batch": 2, "shard_pool": 1, "workers": 1}
            | data,
            "train": {"steps": steps, "validate_every": 20, "checkpoint_every": 1, "average": 1},
        }
    )


def test_a_run_that_was_stopped_inside_a_pool_equals_one_that_was_not(shards, tmp_path):
    for run, stops in {"once": (5,), "parts": (1, 3, 5)}.items():  # pools of two batches or one
        for steps in stops:
            assert train(settings(shards, steps), tmp_path / run, "if_possible", "cpu") == 0
    once, resumed = (
        load_tensors(tmp_path / run / "checkpoints" / "step-00000005" / "optimizer.safetensors")[0]
        for run in ("once", "parts")
    )
    assert once.keys() == resumed.keys() and all(torch.equal(once[name], resumed[name]) for name in once)


def test_two_processes_share_the_batches_of_every_pool_without_doubles(shards, monkeypatch):
    asked = []
    monkeypatch.setattr("asr.training.recognition.read_ahead", asked.append)
    config = settings(shards, 1, shard_pool=2)
    tasks = [RecognitionTask(config, lambda line: None) for _ in range(2)]
    found = []
    for number in range(tasks[0].pools):
        for rank, task in enumerate(tasks):
            asked.clear()
            pool = task.pool(0, number)
            assert {path.name for path in asked} == {
                u.audio.parent.name for u in map(task.loader.corpus.__getitem__, parts(pool.plan))
            }
            found += [id for batch in pool.batches(range(rank, len(pool), 2)) for id in batch.ids]
    assert sorted(found) == sorted(u.id for u in read_manifest(shards))


def test_a_pool_that_a_weight_left_empty_is_passed_over(shards, tmp_path):
    assert any(not len(plan) for plan in plans(shards, weights=(0.2,), shard_pool=1)[1])
    assert train(settings(shards, 3, weights=[0.2]), tmp_path / "run", device="cpu") == 0


def test_an_interrupted_second_call_leaves_no_manifest_of_the_first(corpus, tmp_path, monkeypatch):
    """The texts of the first call would belong to other recordings."""
    write_shards(corpus / "good.jsonl", tmp_path, size=4)
    original = sharding._write_shard

    def interrupted(path, *rest):
        if path.name == "000001.tar":
            raise KeyboardInterrupt
        return original(path, *rest)

    monkeypatch.setattr(sharding, "_write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shards(corpus / "good.jsonl", tmp_path, size=4, shuffle=False)
    assert not (tmp_path / "manifest.jsonl").exists()


def test_parts_of_a_container_keep_their_sample_rate(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.m4a"), "w") as out:
        track = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    suffix, content = _content(Utterance("a", tmp_path / "a.m4a", "x", 0.5, start=0.25), False)
    assert (suffix, audio.sample_rate(content)) == (".flac", 48000)


def test_the_manifest_of_the_recordings_is_not_replaced(corpus, tmp_path):
    (tmp_path / "manifest.jsonl").write_bytes((corpus / "good.jsonl").read_bytes())
    with pytest.raises(AsrError, match="would replace it; choose another folder"):
        write_shards(tmp_path / "manifest.jsonl", tmp_path, size=4)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.jsonl"]
