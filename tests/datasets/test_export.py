"""Manifests in the layouts of other toolkits, read back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from asr.datasets.corpora.kaldi import read_kaldi
from asr.datasets.corpora.lhotse import read_lhotse
from asr.datasets.durations import measure
from asr.datasets.export import export_manifest
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError


@pytest.fixture
def manifest(tmp_path):
    for name in ("long", "ö x"):
        soundfile.write(tmp_path / f"{name}.wav", np.full(8000, 0.1), 8000)
    utterances = [
        Utterance("b", tmp_path / "long.wav", "zwei", 0.25, "s1", "de", 0.5, extra={"gender": "f"}),
        Utterance("a", tmp_path / "long.wav", "größe  eins", 0.5, "s1", "de"),
        Utterance("c", tmp_path / "ö x.wav", "drei", 1.0),
    ]
    write_manifest(tmp_path / "m.jsonl", utterances)
    return tmp_path / "m.jsonl"


def values(group):
    return sorted(
        (u.id, u.audio.name, " ".join(u.text.split()), u.start, round(u.duration, 6)) for u in group
    )


def test_kaldi(manifest, tmp_path):
    assert export_manifest(manifest, tmp_path / "kaldi", "kaldi") == 3
    bad = []
    (group,) = measure(read_kaldi(tmp_path / "kaldi", bad), bad).values()
    # The order of the ids is not that of the speakers, which Kaldi's validate_data_dir.sh asks for.
    assert (tmp_path / "kaldi/spk2utt").read_text() == "c c\ns1 s1-a s1-b\n"
    assert (tmp_path / "kaldi/utt2spk").read_text() == "c c\ns1-a s1\ns1-b s1\n"
    group = [replace(u, id=u.id.removeprefix("s1-")) for u in group]
    assert not bad and values(group) == values(read_manifest(manifest))
    assert {u.id: u.speaker for u in group} == {"a": "s1", "b": "s1", "c": "c"}
    whole = tmp_path / "whole.jsonl"
    write_manifest(whole, read_manifest(manifest)[2:])
    export_manifest(whole, tmp_path / "kaldi", "kaldi")
    assert not (tmp_path / "kaldi/segments").exists()
    assert (tmp_path / "kaldi/wav.scp").read_text() == f"c {tmp_path / 'ö x.wav'}\n"


def test_lhotse(manifest, tmp_path):
    lhotse = pytest.importorskip("lhotse")
    export_manifest(manifest, tmp_path / "out", "lhotse")
    bad = []
    (group,) = measure(read_lhotse(tmp_path / "out", bad), bad).values()
    assert not bad and values(group) == values(read_manifest(manifest))
    supervisions = lhotse.load_manifest(tmp_path / "out/supervisions.jsonl.gz")
    recordings = lhotse.load_manifest(tmp_path / "out/recordings.jsonl.gz")
    lhotse.validate_recordings_and_supervisions(recordings, supervisions)
    assert supervisions["b"].custom == {"gender": "f"} and supervisions["b"].language == "de"


def test_nemo(manifest, tmp_path):
    export_manifest(manifest, tmp_path / "nemo.jsonl", "nemo")
    assert read_manifest(tmp_path / "nemo.jsonl") == read_manifest(manifest)


def test_what_a_layout_cannot_hold(manifest, tmp_path):
    utterance = read_manifest(manifest)[0]
    for changed, layout, message in (
        ({"id": "a b"}, "kaldi", "ids and speakers must not have spaces"),
        ({"text": None}, "nemo", "has no text, which nemo needs"),
        ({"duration": None}, "lhotse", "has no duration"),
        ({"audio": tmp_path / "none.wav"}, "lhotse", "none.wav: cannot be read"),
        ({"audio": tmp_path / "x |"}, "kaldi", "would run this path as a command"),
    ):
        write_manifest(tmp_path / "x.jsonl", [Utterance(**(vars(utterance) | changed))])
        with pytest.raises(AsrError, match=message):
            export_manifest(tmp_path / "x.jsonl", tmp_path / "out", layout)
        assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(manifest, tmp_path):
    (tmp_path / "file").touch()
    for layout in ("kaldi", "lhotse"):
        with pytest.raises(AsrError, match=f"file: this is a file, but {layout} needs a folder"):
            export_manifest(manifest, tmp_path / "file", layout)


def test_the_beginning_of_a_recording_is_a_segment_for_kaldi(manifest, tmp_path):
    (utterance,) = read_manifest(manifest)[2:]
    write_manifest(tmp_path / "part.jsonl", [replace(utterance, duration=0.5)])
    export_manifest(tmp_path / "part.jsonl", tmp_path / "kaldi", "kaldi")
    assert (tmp_path / "kaldi/segments").read_text() == "c rec-00000000 0.000000 0.500000\n"


def test_other_keys_do_not_replace_those_of_nemo(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.1), 8000)
    line = {"id": "a", "audio": "a.wav", "text": "eins", "duration": 0.5, "start": 0.25, "phonemes": "ab"}
    line |= {"audio_filepath": "old.wav", "offset": 9.0, "topic": "x"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    export_manifest(tmp_path / "m.jsonl", tmp_path / "nemo.json", "nemo")
    (found,) = read_manifest(tmp_path / "nemo.json")
    assert (found.audio, found.start, found.phonemes) == (tmp_path / "a.wav", 0.25, "ab")
    assert found.extra["topic"] == "x"
