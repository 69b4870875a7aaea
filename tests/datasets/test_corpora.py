"""Corpora in the layouts of others, made small."""

import gzip
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr import audio
from asr.datasets.corpora.folder import read_folder
from asr.datasets.corpora.fsdd import WORDS, read_fsdd, write_strings
from asr.datasets.corpora.kaldi import read_kaldi
from asr.datasets.corpora.lhotse import read_lhotse
from asr.datasets.corpora.splits import read_splits
from asr.datasets.corpora.tsv import read_tsv
from asr.datasets.durations import measure
from asr.datasets.manifest import Utterance
from asr.errors import AsrError


def sound(path, seconds=0.5, rate=8000, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    soundfile.write(path, samples, rate)
    return path


def refused(reader, source, match):
    with pytest.raises(AsrError, match=match) as caught:
        reader(source, [])
    assert "\n" not in str(caught.value) and str(source) in str(caught.value)


# -------------------------------------------------------------------------------------------------- a folder


def test_folder(tmp_path):
    for name in ("b.wav", "a/x.flac", "a/y.OGG", "a/silent.wav", "a/latin.wav", "._b.wav"):
        sound(tmp_path / name)
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf  two\n words \n")
    (tmp_path / "a/x.txt").write_text("größer")
    (tmp_path / "a/y.txt").write_text("")
    (tmp_path / "a/latin.txt").write_bytes(b"gr\xf6\xdfer")
    bad = []
    (group,) = read_folder(tmp_path, bad).values()
    assert [(u.id, u.text) for u in group] == [("a/x", "größer"), ("a/y", ""), ("b", "two words")]
    assert group[0].audio == tmp_path / "a/x.flac"
    assert len(bad) == 2 and "latin.txt: not UTF-8" in bad[0] and "silent.txt" in bad[1]
    refused(read_folder, tmp_path / "a/none", "no audio")


def test_a_large_folder_takes_time_in_proportion(tmp_path, monkeypatch):
    for folder, suffix in (("a", "wav"), ("b", "txt")):
        (tmp_path / folder).mkdir()
        for number in range(1000):
            (tmp_path / folder / f"{number}.{suffix}").touch()
    compared = 0
    parent = Path.parent

    def counting(self):
        nonlocal compared
        compared += 1
        return parent.fget(self)

    monkeypatch.setattr(Path, "parent", property(counting))
    bad = []
    read_folder(tmp_path, bad)
    assert compared < 100_000
    assert len(bad) == 2000 and "b/0.txt: a text without a recording" in bad[0]


# ------------------------------------------------------------------------------------------------------- tsv


def test_common_voice(tmp_path):
    columns = "client_id\tpath\tsentence\tup_votes\tage\tgender\tlocale"
    rows = 'c1\tx.mp3\tShe said "no.\t2\ttwenties\t\tcy\nc2\ty.mp3\t"Quoted"\t2\t\tfemale\tcy\nc3\n'
    for name in ("train", "test", "validated"):
        (tmp_path / f"{name}.tsv").write_text(f"{columns}\n{rows}")
    (tmp_path / "reported.tsv").write_text("sentence\treason\nx\ty\n")
    for name in "xy":
        sound(tmp_path / f"clips/{name}.mp3")
    bad = []
    splits = read_tsv(tmp_path, bad)
    assert list(splits) == ["train", "test"]
    first, second = splits["train"]
    assert first.audio == tmp_path / "clips/x.mp3"
    assert (first.id, first.text, first.speaker, first.lang) == ("x", 'She said "no.', "c1", "cy")
    assert first.extra == {"age": "twenties"} and second.extra == {"gender": "female"}
    assert second.text == '"Quoted"'
    assert len(bad) == 2 and "train.tsv, line 4: " in bad[0]
    assert list(read_tsv(tmp_path / "validated.tsv", [])) == ["validated"]


def test_plain_tsv(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_bytes(b"\xef\xbb\xbftext\tpath\r\none\tdeep/a.wav\r\n")
    sound(tmp_path / "deep/a.wav")
    (group,) = read_tsv(path, []).values()
    assert (group[0].id, group[0].text, group[0].audio) == ("deep/a", "one", tmp_path / "deep/a.wav")
    assert list(read_tsv(tmp_path, [])) == ["mine"]
    path.write_text("file\ttranscript\na\tb\n")
    refused(read_tsv, path, "line 1: needs columns path and sentence")
    refused(read_tsv, tmp_path, "no TSV or CSV file")
    path.write_bytes(b"path\ttext\na\t\xff\n")
    refused(read_tsv, path, "UTF-8")


def test_a_clip_is_not_looked_for_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "corpus/a.wav", "corpus/de/clips/b.wav", "corpus/de/c.wav"):
        sound(tmp_path / name)
    table = tmp_path / "corpus/de/train.tsv"
    table.write_text("path\ttext\na.wav\tone\nb.wav\ttwo\nc.wav\tthree\n.\tfour\n")
    bad = []
    (group,) = read_tsv(table, bad).values()
    assert [u.audio for u in group] == [table.parent / "clips/b.wav", table.parent / "c.wav"]
    where = "beside the table or in its clips/"
    assert bad == [
        f"{table}, line 2: no recording 'a.wav' {where}",
        f"{table}, line 5: no recording '.' {where}",
    ]


def test_lines_of_a_csv_are_counted_as_an_editor_does(tmp_path):
    table = tmp_path / "a.csv"
    table.write_bytes(b'path,text\r\na.wav,"one\r\ntwo"\r\nb.wav,three\r\n')
    bad = []
    read_tsv(table, bad)
    assert ["line 2: no recording 'a.wav'" in bad[0], "line 4: no recording 'b.wav'" in bad[1]] == [True] * 2
    table.write_bytes(b"path,text\na.wav,\xf6\n")
    refused(read_tsv, table, "line 2: not UTF-8 text")


# ----------------------------------------------------------------------------------------------------- kaldi


def kaldi(folder, **tables):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (folder / name.replace("_", ".")).write_text(text)


def test_kaldi_whole_recordings(tmp_path):
    data = tmp_path / "recipe/data/train"
    wav = sound(tmp_path / "elsewhere/a.wav")
    sound(tmp_path / "recipe/wavs/b.wav")
    kaldi(data, wav_scp=f"a {wav}\nb\twavs/b.wav\nc c.wav\n", text="a one two\nb  three\nd four\n")
    kaldi(data, utt2spk="a s1\nb s2\n")
    bad = []
    (group,) = read_kaldi(data, bad).values()
    assert [(u.id, u.audio, u.text, u.speaker) for u in group] == [
        ("a", wav, "one two", "s1"),
        ("b", tmp_path / "recipe/wavs/b.wav", "three", "s2"),
    ]
    assert len(bad) == 2 and "d: no audio" in bad[0] and "no entry for c" in bad[1]
    assert list(read_kaldi(data.parent, [])) == ["train"]


def test_kaldi_segments(tmp_path):
    sound(tmp_path / "r.wav", 3.0)
    kaldi(tmp_path, wav_scp="r r.wav\n", text="u1 one\nu2 two\nu3 three\nu4 four\n")
    kaldi(tmp_path, segments="u1 r 0.5 1.5\nu2 r 2 -1\nu3 r 2.5 3.25\nu4 r 2 9\n")
    bad = []
    splits = measure(read_kaldi(tmp_path, bad), bad)
    assert [(u.id, u.start, u.duration) for u in splits["all"]] == [
        ("u1", 0.5, 1.0),
        ("u2", 2.0, 1.0),
        ("u3", 2.5, 0.5),  # cut at the end of the recording
    ]
    assert len(bad) == 1 and "'u4' from 2 to 9 s ends after the recording (3 s)" in bad[0]


def test_kaldi_refuses(tmp_path):
    refused(read_kaldi, tmp_path, "no wav.scp")
    kaldi(tmp_path, wav_scp="a sph2pipe -f wav a.sph |\n")
    refused(read_kaldi, tmp_path, r"wav.scp, entry 1 \(a\): not a plain path")
    kaldi(tmp_path, wav_scp="a a.wav\n")
    refused(read_kaldi, tmp_path, "text: this file of the corpus cannot be read")
    kaldi(tmp_path, text="a one\na two\n")
    refused(read_kaldi, tmp_path, "text, line 2: duplicate key 'a'")
    for line in ("a r 1 x", "a r 2 1", "a r"):
        kaldi(tmp_path, text="a one\n", segments=line)
        refused(read_kaldi, tmp_path, "segments: a: .* is not recording, start, end")


# ---------------------------------------------------------------------------------------------------- lhotse


def cut(identity, place, supervisions, **changes):
    recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": place}]}
    recording |= {"sampling_rate": 8000, "num_samples": 24000, "duration": 3.0, "channel_ids": [0]}
    timed = [
        {"id": f"{identity}-{number}", "recording_id": "r", "channel": 0} | supervision
        for number, supervision in enumerate(supervisions)
    ]
    plain = {"id": identity, "start": 1.0, "duration": 2.0, "channel": 0, "type": "MonoCut"}
    return plain | {"recording": recording | changes, "supervisions": timed}


def test_lhotse(tmp_path):
    lhotse = pytest.importorskip("lhotse")
    sound(tmp_path / "r.wav", 3.0)
    one = {"start": 0.0, "duration": 2.0, "text": "one", "speaker": "s", "language": "English"}
    one |= {"gender": "f", "custom": {"age": 7, "vector": [1.0]}}
    two = {"start": 1.5, "duration": 0.5, "text": "two"}
    stereo = {"sources": [{"type": "file", "channels": [0, 1], "source": "r.wav"}], "channel_ids": [0, 1]}
    command = {"sources": [{"type": "command", "channels": [0], "source": "cat r.wav"}]}
    cuts = [
        cut("whole", "r.wav", [one]),
        cut("parts", "r.wav", [one, two]),
        cut("stereo", "r.wav", [one], **stereo),
        cut("command", "r.wav", [one], **command),
        cut("untold", "r.wav", []),
        lhotse.MonoCut.from_dict(cut("padded", "r.wav", [one])).pad(duration=3.0).to_dict(),
    ]
    path = tmp_path / "cuts_dev.jsonl.gz"
    with gzip.open(path, "wt") as out:
        out.writelines(json.dumps(item) + "\n" for item in cuts)
    bad = []
    splits = measure(read_lhotse(path, bad), bad)
    assert [(u.id, u.text, u.start, u.duration) for u in splits["cuts_dev"]] == [
        ("whole", "one", 1.0, 2.0),
        ("parts-0", "one", 1.0, 2.0),
        ("parts-1", "two", 2.5, 0.5),
    ]
    first = splits["cuts_dev"][0]
    assert (first.audio, first.speaker, first.lang) == (tmp_path / "r.wav", "s", "en")
    assert first.extra == {"age": 7, "gender": "f"}
    assert len(bad) == 4 and "takes channel 0 of 2" in bad[0] and "no text" in bad[2]
    for text in ("{\n", '{"id": "a", "audio": "a.wav", "text": "", "duration": 1}\n', "text", ""):
        (tmp_path / "broken.jsonl").write_text(text)
        refused(read_lhotse, tmp_path / "broken.jsonl", "lhotse cannot read it")
    assert list(read_lhotse(tmp_path, [])) == ["dev"]


def test_lhotse_channels_that_are_files(tmp_path):
    """AMI's ihm and mdm: each microphone is a file, and a cut has all of them."""
    lhotse = pytest.importorskip("lhotse")
    sources = [lhotse.AudioSource("file", [n], str(sound(tmp_path / f"{n}.wav", 2.0))) for n in range(3)]
    recording = lhotse.Recording("r", sources, 8000, 16000, 2.0, [0, 1, 2])
    segments = [
        lhotse.SupervisionSegment(f"s{n}", "r", 0.25 * n, 1.0, channel=channel, text=f"t{n}")
        for n, channel in enumerate((2, 0, [1, 2]))
    ]
    lhotse.RecordingSet.from_recordings([recording]).to_file(tmp_path / "recordings_dev.jsonl.gz")
    lhotse.SupervisionSet.from_segments(segments).to_file(tmp_path / "supervisions_dev.jsonl.gz")
    bad = []
    (group,) = read_lhotse(tmp_path, bad).values()
    assert not bad and sorted((u.id, u.audio.name, u.text, u.start) for u in group) == [
        ("s0", "2.wav", "t0", 0.0),
        ("s1", "0.wav", "t1", 0.25),
        ("s2", "1.wav", "t2", 0.5),
    ]
    (tmp_path / "recording.000000.tar").touch()
    refused(read_lhotse, tmp_path, "a Lhotse Shar")


def test_without_lhotse_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lhotse", None)
    refused(read_lhotse, tmp_path / "cuts.jsonl.gz", r"pip install lhotse")


# -------------------------------------------------------------------------------------------------- manifest


def test_manifest_by_split(tmp_path):
    lines = [{"id": str(number), "audio": "a.wav", "text": "", "duration": 1} for number in range(3)]
    lines[1]["split"] = "test"
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for source in (tmp_path, tmp_path / "manifest.jsonl"):
        splits = read_splits(source, [])
        assert {name: [u.id for u in group] for name, group in splits.items()} == {
            "all": ["0", "2"],
            "test": ["1"],
        }
    lines[2]["split"] = None
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(read_splits(tmp_path, [])) == ["all", "test"]


# ------------------------------------------------------------------------------------------------------ fsdd


def digits(folder, suffix, speakers=("theo", "lucas"), count=9):
    for digit in range(10):
        for number, speaker in enumerate(speakers):
            for index in range(count):
                seed = 1000 * number + 100 * digit + index
                sound(folder / f"{digit}_{speaker}_{index}.{suffix}", 0.2, seed=seed)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    source = tmp_path_factory.mktemp("fsdd")
    digits(source / "recordings", "wav")
    (source / "recordings" / "README.wav").touch()
    return source


def test_fsdd(corpus, tmp_path):
    splits = read_fsdd(corpus, [])
    assert {name: len(group) for name, group in splits.items()} == {"train": 40, "dev": 40, "test": 100}
    assert {u.id.split("_")[2] for u in splits["dev"]} == {"5", "6"}
    assert {u.id.split("_")[2] for u in splits["test"]} == set("01234")
    for utterance in splits["train"]:
        digit, speaker, _ = utterance.id.split("_")
        assert (utterance.text, utterance.speaker, utterance.lang) == (WORDS[int(digit)], speaker, "en")
    sound(tmp_path / "audio" / "7_theo_10.flac")
    assert read_fsdd(tmp_path, [])["train"][0].text == "seven"
    refused(read_fsdd, tmp_path / "audio", "free-spoken-digit-dataset")
    # The archive has a folder of its own.
    shutil.copytree(corpus, tmp_path / "unpacked" / "free-spoken-digit-dataset-master")
    assert len(read_fsdd(tmp_path / "unpacked", [])["train"]) == len(splits["train"])


def test_fsdd_strings(corpus, tmp_path):
    splits = read_fsdd(corpus, [])
    strings = write_strings(splits, tmp_path / "a")
    assert {name: len(group) for name, group in strings.items()} == {"test_strings": 100, "dev_strings": 20}
    used = dict.fromkeys((u.id for u in splits["test"]), 0)
    for string in strings["test_strings"]:
        parts = string.extra["recordings"]
        assert 3 <= len(parts) <= 10
        assert string.text == " ".join(WORDS[int(part[0])] for part in parts)
        assert {part.split("_")[1] for part in parts} == {string.speaker}
        pauses = string.duration - 0.2 * len(parts)
        assert 0.1 * (len(parts) - 1) <= pauses + 1e-3 and pauses <= 0.5 * (len(parts) - 1)
        for part in parts:
            used[part] += 1
    # Each recording of a speaker is used once before any is repeated.
    assert min(used.values()) >= max(used.values()) - 2

    string = strings["test_strings"][0]
    samples = audio.read(string.audio, 8000)
    assert len(samples) == round(string.duration * 8000)
    first = audio.read(corpus / "recordings" / f"{string.extra['recordings'][0]}.wav", 8000)
    np.testing.assert_array_equal(samples[: len(first)], first)
    pause = samples[len(first) : len(first) + 700]
    assert 20 * np.log10(np.sqrt(np.mean(pause**2))) == pytest.approx(-70, abs=1)

    again = write_strings(splits, tmp_path / "b")
    assert [u.audio.read_bytes() for u in again["dev_strings"]] == [
        u.audio.read_bytes() for u in strings["dev_strings"]
    ]
    other = write_strings({"dev": splits["dev"]}, tmp_path / "c", seed=1)
    assert [u.text for u in other["dev_strings"]] != [u.text for u in strings["dev_strings"]]


# --------------------------------------------------------------------------------------------------- measure


def test_files_that_cannot_be_read_are_left_out(tmp_path):
    good = sound(tmp_path / "good.wav", 0.5)
    (tmp_path / "bad.wav").write_text("text")
    group = [
        Utterance("a", good, "one"),
        Utterance("b", tmp_path / "bad.wav", "two"),
        Utterance("c", Path("none.wav"), "three", 1.0),
        Utterance("d", good, "four", start=0.25),
        Utterance("e", good, "five", 0.1, start=0.5),
    ]
    bad = []
    splits = measure({"all": group}, bad)
    assert [(u.id, u.duration) for u in splits["all"]] == [("a", 0.5), ("d", 0.25)]
    assert len(bad) == 3 and "bad.wav" in bad[0] and "none.wav: no such file" in bad[1]
