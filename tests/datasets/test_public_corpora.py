"""Public corpora: each is read from a small tree that is laid out as its makers publish it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.datasets.corpora.base import Subsets
from asr.datasets.corpora.table import CORPORA, table_page
from asr.datasets.durations import measure
from asr.datasets.normalization import recorded
from asr.datasets.prepare import Options, prepare_corpus
from asr.errors import AsrError
from asr.scoring.run import Options as ScoreOptions
from asr.scoring.run import run


@pytest.fixture
def root(tmp_path):
    """A path with a space and letters that are not ASCII."""
    return tmp_path / "Körper 語"


def sound(path, seconds=0.1, rate=16000, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(len(path.name)).standard_normal(round(seconds * rate))
    soundfile.write(path, samples, rate, **how)


def write(path, *lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))


def read(name, source, *subsets):
    bad, selected = [], Subsets(subsets)
    splits = CORPORA[name].read()(source, bad, selected)
    selected.refuse_unknown(source)
    return measure(splits, bad), bad


def texts(group):
    return [(u.id, u.text, u.speaker) for u in group]


def librispeech(root):
    top = root / "LibriSpeech"
    write(top / "SPEAKERS.TXT", ";ID  |SEX| SUBSET", "84   | F | dev-clean        | 8.02  | Christie Nowak")
    for subset in ("dev-clean", "train-clean-5"):
        folder = top / subset / "84" / "121123"
        write(folder / "84-121123.trans.txt", "84-121123-0000 GO DO YOU HEAR", "84-121123-0001 BUT IN")
        for number in (0, 1):
            sound(folder / f"84-121123-000{number}.flac")
    return top


def test_librispeech(root):
    top = librispeech(root)
    splits, bad = read("librispeech", root)
    assert list(splits) == ["dev-clean", "train-clean-5"] and not bad
    assert texts(splits["dev-clean"]) == [
        ("84-121123-0000", "GO DO YOU HEAR", "84"),
        ("84-121123-0001", "BUT IN", "84"),
    ]
    first = splits["dev-clean"][0]
    assert (first.lang, first.extra, first.duration) == ("en", {"gender": "f"}, 0.1)
    assert list(read("librispeech", top, "dev-clean")[0]) == ["dev-clean"]
    sound(top / "dev-clean" / "85" / "84-121123-0000.flac")
    _, bad = read("librispeech", top, "dev-clean")
    assert len(bad) == 1 and "85/84-121123-0000.flac: a second recording of 84-121123-0000; " in bad[0]
    with pytest.raises(AsrError, match="no subset 'dev-other' there; it has dev-clean, train-clean-5"):
        read("librispeech", top, "dev-other")
    with pytest.raises(AsrError, match="give the unpacked corpus"):
        read("librispeech", top / "dev-clean" / "84")


def test_what_does_not_match_is_named(root):
    folder = librispeech(root) / "dev-clean/84/121123"
    (folder / "84-121123-0001.flac").unlink()
    sound(folder / "84-121123-0002.flac")
    (folder / "84-121123-0003.flac").touch()
    sound(folder / "84-121123-0004.flac", 0)
    sound(folder / "84-121123-0005.flac", 0.5)
    data = (folder / "84-121123-0005.flac").read_bytes()
    (folder / "84-121123-0005.flac").write_bytes(data[: len(data) // 2])
    table = (folder / "84-121123.trans.txt").read_text()
    table += "".join(f"84-121123-000{number} X\n" for number in (3, 4, 5)) + "84-121123-0000 AGAIN\n"
    (folder / "84-121123.trans.txt").write_text("\ufeff" + table)
    splits, bad = read("librispeech", root, "dev-clean")
    assert texts(splits["dev-clean"]) == [("84-121123-0000", "GO DO YOU HEAR", "84")]
    expected = (
        "84-121123-0001: a text without a recording",
        "duplicate id '84-121123-0000'",
        "0002.flac: a recording without a text",
        "0003.flac: empty file (0 bytes)",
        "0004.flac: ",
        "0005.flac: ",
    )
    assert len(bad) == len(expected)
    for message, line in zip(expected, bad, strict=True):
        assert message in line
    table = (folder / "84-121123.trans.txt").read_bytes() + "84-121123-0006 É\n".encode("latin-1")
    (folder / "84-121123.trans.txt").write_bytes(table)
    with pytest.raises(AsrError, match=r"trans.txt, line 7: not UTF-8 text \(perhaps Latin-1\)"):
        read("librispeech", root)


def test_aishell(root):
    top = root / "data_aishell"
    names = {"train": "BAC009S0002W0122", "dev": "BAC009S0724W0121", "test": "BAC009S0764W0121"}
    lines = [f"{name} 而 对 楼市 成交" for name in names.values()]
    write(top / "transcript/aishell_transcript_v0.8.txt", *lines, "BAC009S0002W0999 没有")
    for split, name in names.items():
        sound(top / "wav" / split / name[6:11] / f"{name}.wav")
    sound(top / "wav/dev/S0724/BAC009S0724W0200.wav")
    splits, bad = read("aishell", root)
    assert {split: texts(group) for split, group in splits.items()} == {
        split: [(name, "而对楼市成交", name[6:11])] for split, name in names.items()
    }
    assert len(bad) == 2 and "W0200.wav: a recording without a text" in bad[0] and "W0999" in bad[1]
    assert list(read("aishell", top, "test")[0]) == ["test"]
    write(top / "transcript/aishell_transcript_v0.8.txt", *lines, f"{names['test']} 又")
    splits, bad = read("aishell", top, "test")
    assert splits["test"][0].text == "而对楼市成交"
    assert len(bad) == 1 and f"duplicate id '{names['test']}'; the first is kept" in bad[0]
    packed = root / "packed"
    write(packed / "wav/S0002.tar.gz")
    with pytest.raises(AsrError, match="still packed"):
        read("aishell", packed)


def common_voice(folder, language):
    header = "client_id\tpath\tsentence_id\tsentence\tup_votes\tage\tgender\taccents\tlocale"
    for number, split in enumerate(("train", "dev", "test", "validated")):
        name = f"common_voice_{language}_{number}.mp3"
        write(folder / f"{split}.tsv", header, f'c{number}\t{name}\ts\tYr "haf".\t2\t\t\t\t{language}')
        sound(folder / "clips" / name, 0.2, format="MP3")
    write(folder / "reported.tsv", "sentence\treason", "a\tb")


def test_common_voice(root):
    for language in ("cy", "ga-IE"):
        common_voice(root / "cv-corpus-21.0-2025-03-14" / language, language)
    splits, bad = read("common_voice", root)
    assert not bad
    assert list(splits) == [f"{lang}_{name}" for lang in ("cy", "ga-IE") for name in ("train", "dev", "test")]
    (first,) = splits["cy_dev"]
    assert (first.text, first.lang, first.speaker) == ('Yr "haf".', "cy", "c1")
    one = root / "cv-corpus-21.0-2025-03-14/cy"
    assert list(read("common_voice", one)[0]) == ["train", "dev", "test"]
    assert list(read("common_voice", one, "validated")[0]) == ["validated"]
    assert list(read("common_voice", root, "ga-IE")[0]) == ["ga-IE_train", "ga-IE_dev", "ga-IE_test"]
    with pytest.raises(AsrError, match="no subset 'xx' there; it has train"):
        read("common_voice", one, "xx")
    common_voice(root / "cv-corpus-9.0-2022-04-27" / "cy", "cy")
    with pytest.raises(AsrError, match=r"this folder has 2 releases .*9.0.*; give the folder of one release"):
        read("common_voice", root)


def test_tedlium(root):
    legacy = root / "TEDLIUM_release-3" / "legacy"
    for split, talk in (("dev", "AlGore_2009"), ("test", "BillGates_2010")):
        write(
            legacy / split / "stm" / f"{talk}.stm",
            f"{talk} 1 {talk} 0.00 0.10 <o,f0,male> ignore_time_segment_in_scoring",
            f"{talk} 1 {talk} 0.10 0.35 <o,f0,male> and it 's <unk> {{NOISE}} a( 2 ) test(2)",
            f"{talk} 1 {talk} 0.40 0.35 <o,f0,male> backwards",
            "Nobody 1 Nobody 0.1 0.2 <o,f0,male> lost",
        )
        sound(legacy / split / "sph" / f"{talk}.sph", 0.5, format="NIST", subtype="PCM_16")
    splits, bad = read("tedlium3", root)
    assert list(splits) == ["dev", "test"]
    (first,) = splits["dev"]
    assert (first.text, first.start, first.duration) == ("and it's a( 2 ) test", 0.1, 0.25)
    assert (first.id, first.speaker) == ("AlGore_2009-0000010-0000035", "AlGore_2009")
    assert len(bad) == 4 and "line 3: impossible times" in bad[0] and "no recording Nobody.sph" in bad[1]
    # Speech without a known word is no silence.
    path = legacy / "dev" / "stm" / "AlGore_2009.stm"
    write(path, "AlGore_2009 1 AlGore_2009 0.10 0.35 <o,f0,male> <unk> {NOISE}")
    splits, bad = read("tedlium3", root)
    assert splits["dev"] == [] and "AlGore_2009.stm, line 1: no words in" in bad[0]


@pytest.mark.parametrize("suffix", ["flac", "opus"])
def test_mls(root, suffix):
    top = root / ("mls_polish_opus" if suffix == "opus" else "mls_polish")
    write(top / "metainfo.txt", "SPEAKER | GENDER | PARTITION", "  6892  |   M    |  dev | 1 | 2 | T")
    for split in ("train", "dev", "test"):
        write(top / split / "transcripts.txt", "6892_10049_000000\tzażółć gęślą jaźń")
        how = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
        sound(top / split / "audio/6892/10049" / f"6892_10049_000000.{suffix}", **how)
    splits, bad = read("mls", root)
    assert list(splits) == ["polish_train", "polish_dev", "polish_test"] and not bad
    (first,) = splits["polish_dev"]
    assert (first.text, first.speaker, first.lang) == ("zażółć gęślą jaźń", "6892", "pl")
    assert first.extra == {"gender": "m"}
    assert list(read("mls", top)[0]) == ["train", "dev", "test"]
    assert list(read("mls", root, "polish")[0]) == list(splits)


def test_voxpopuli(root):
    folder = root / "transcribed_data" / "de"
    identity = "20170313-0900-PLENARY-20-de_20170313-21:02:42_1"
    header = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender"
    for split in ("train", "dev", "test"):
        write(folder / f"asr_{split}.tsv", header, f"{split}-{identity}\tIch 2\tich zwei\t28\t{split}\tmale")
        sound(folder / "2017" / f"{split}-{identity}.ogg")
    write(
        folder / "asr_dev.tsv",
        header,
        f"dev-{identity}\tIch 2\tich zwei\tNone\tdev\tmale",
        "x\ta\ta\t1\tdev\tf",
    )
    splits, bad = read("voxpopuli", root)
    assert list(splits) == ["de_train", "de_dev", "de_test"]
    assert texts(splits["de_train"]) == [(f"train-{identity}", "ich zwei", "28")]
    assert splits["de_dev"][0].speaker is None and splits["de_dev"][0].extra["raw_text"] == "Ich 2"
    assert len(bad) == 1 and "x: a text without a recording" in bad[0]
    sound(folder / "2017" / "untold.ogg")
    assert "untold.ogg: a recording without a text in" in read("voxpopuli", root)[1][1]
    splits, bad = read("voxpopuli", folder, "test")
    assert list(splits) == ["test"] and not bad
    write(folder / "asr_dev.tsv", "id\ttext", "a\tb")
    with pytest.raises(AsrError, match="no column 'normalized_text'"):
        read("voxpopuli", folder)
    (folder / "asr_dev.tsv").write_text("")
    with pytest.raises(AsrError, match="line 1: no column 'id'"):
        read("voxpopuli", folder)


def test_fleurs(root):
    folder = root / "de_de"
    for split in ("train", "dev", "test"):
        row = "1675\t10013.wav\tEs ist 1 Test.\tes ist 1 test\te s | i s t |\t1600\tMALE"
        write(folder / f"{split}.tsv", row, "too\tshort")
        sound(folder / "audio" / split / "10013.wav")
    splits, bad = read("fleurs", root, "de_de")
    assert list(splits) == ["de_de_train", "de_de_dev", "de_de_test"]
    (first,) = splits["de_de_dev"]
    assert (first.id, first.text, first.lang, first.speaker) == ("10013", "es ist 1 test", "de", None)
    assert first.extra == {"sentence": "1675", "raw_text": "Es ist 1 Test.", "gender": "male"}
    assert len(bad) == 3 and "dev.tsv, line 2: 2 fields instead of 7" in bad[1]
    assert list(read("fleurs", folder, "dev")[0]) == ["dev"]


def test_ljspeech(root):
    top = root / "LJSpeech-1.1"
    names = ("LJ001-0001", "LJ002-0001", "LJ003-0001", "LJ050-0278")
    write(top / "metadata.csv", *(f'{name}|In 1, "so|In one, "so' for name in names), "LJ001-0002|two")
    for name in names:
        sound(top / "wavs" / f"{name}.wav", rate=22050)
    splits, bad = read("ljspeech", root)
    found = {split: [u.id for u in group] for split, group in splits.items()}
    assert found == {"train": [names[0]], "dev": [names[1], names[3]], "test": [names[2]]}
    assert splits["train"][0].text == 'In one, "so' and splits["train"][0].extra == {"raw_text": 'In 1, "so'}
    assert len(bad) == 1 and "line 5: 2 fields instead of 3" in bad[0]


def test_an4(root):
    top = root / "an4"
    write(top / "etc/an4_train.transcription", "<s> YES </s> (an251-fash-b)", "<s> NO (an252-fash-b")
    write(top / "etc/an4_test.transcription", "P I T T S (an406-fcaw-b)")
    sound(top / "wav/an4_clstk/fash/an251-fash-b.sph", format="NIST", subtype="PCM_16")
    sound(top / "wav/an4test_clstk/fcaw/an406-fcaw-b.sph", format="NIST", subtype="PCM_16")
    splits, bad = read("an4", root)
    assert {split: texts(group) for split, group in splits.items()} == {
        "train": [("an251-fash-b", "YES", "fash")],
        "test": [("an406-fcaw-b", "P I T T S", "fcaw")],
    }
    assert len(bad) == 1 and "line 2: not <s> TEXT </s> (id)" in bad[0]


def test_speechocean762(root):
    top = root / "speechocean762"
    for split, speaker in (("train", "0001"), ("test", "0003")):
        name = f"{speaker}0011"
        write(top / split / "wav.scp", f"{name}\tWAVE/SPEAKER{speaker}/{name}.WAV")
        write(top / split / "text", f"{name}\tWE CALL IT BEAR")
        write(top / split / "utt2spk", f"{name} {speaker}")
        write(top / split / "spk2age", f"{speaker}\t6")
        write(top / split / "spk2gender", f"{speaker}\tm")
        sound(top / "WAVE" / f"SPEAKER{speaker}" / f"{name}.WAV", format="WAV")
    splits, bad = read("speechocean762", root)
    assert not bad and texts(splits["test"]) == [("00030011", "WE CALL IT BEAR", "0003")]
    assert splits["train"][0].extra == {"gender": "m", "age": 6}
    assert list(read("speechocean762", top, "train")[0]) == ["train"]


def test_yesno(root):
    for name in ("0_0_0_0_1_1_1_1", "0_1_0_0_0_1_1_0", "1_0_0_0_0_0_0_0", "1_1_1_0_0_0_0_1", "README"):
        sound(root / "waves_yesno" / f"{name}.wav", rate=8000)
    splits, bad = read("yesno", root)
    assert [u.id[0] for u in splits["train"]] == ["0", "0"] and [u.id[0] for u in splits["test"]] == [
        "1",
        "1",
    ]
    assert splits["train"][0].text == "NO NO NO NO YES YES YES YES"
    assert len(bad) == 1 and "README.wav" in bad[0]


def test_lhotse_folder(root):
    lhotse = pytest.importorskip("lhotse")
    root.mkdir()
    for split in ("dev", "test"):
        sound(root / f"{split}.wav", 0.5)
        recording = lhotse.Recording.from_file(root / f"{split}.wav")
        segments = [
            lhotse.SupervisionSegment(f"{split}-{n}", split, n / 5, 0.2, text=f"t{n}") for n in (0, 1)
        ]
        lhotse.RecordingSet.from_recordings([recording]).to_file(root / f"x_recordings_{split}.jsonl.gz")
        supervisions = lhotse.SupervisionSet.from_segments(segments)
        supervisions.to_file(root / f"x_supervisions_{split}.jsonl.gz")
    splits, bad = read("lhotse", root)
    assert not bad and list(splits) == ["dev", "test"]
    assert [(u.id, u.text, u.start, u.duration) for u in splits["dev"]] == [
        ("dev-0", "t0", 0.0, 0.2),
        ("dev-1", "t1", 0.2, 0.2),
    ]
    (root / "x_recordings_test.jsonl.gz").unlink()
    with pytest.raises(AsrError, match="no recordings of the split 'test'"):
        read("lhotse", root)


# ------------------------------------------------------------------------------------------------ preparation


def test_the_table_of_the_docs():
    page = (Path(__file__).parents[2] / "docs/corpora.md").read_text(encoding="utf-8")
    assert table_page() in page
    assert all(f"| `{entry.name}` |" in page for entry in CORPORA.values() if not entry.license)


def test_csv_with_quotes(root):
    write(root / "own.csv", "path,text,speaker", '"a, b.wav","one, ""two""\nthree",s', encoding="utf-8-sig")
    sound(root / "a, b.wav")
    splits, _ = read("tsv", root)
    assert texts(splits["own"]) == [("a, b", 'one, "two"\nthree', "s")]


def test_tables_without_lines_and_with_open_quotes(root):
    for name, content, message in (
        ("empty.tsv", "", "line 1: needs columns path and sentence"),
        ("empty.csv", "", "line 1: needs columns path and sentence"),
        ("quote.csv", 'path,text\na.wav,"' + "x" * 200_000, "not a CSV table"),
    ):
        root.mkdir(exist_ok=True)
        (root / name).write_text(content)
        with pytest.raises(AsrError, match=f"{name}.*{message}"):
            read("tsv", root / name)
        (root / name).unlink()


def test_a_name_that_is_too_long_is_a_missing_file(root):
    write(root / "own.tsv", "path\ttext", "x" * 300 + ".wav\tone", "a.wav\ttwo")
    sound(root / "a.wav")
    splits, bad = read("tsv", root)
    assert texts(splits["own"]) == [("a", "two", None)] and len(bad) == 1


def test_a_text_without_a_recording_in_a_folder(root):
    sound(root / "a.wav")
    for name in ("a", "b", "README"):
        write(root / f"{name}.txt", "text")
    splits, bad = read("folder", root)
    assert [u.id for u in splits["all"]] == ["a"]
    assert bad == [f"{root / 'b.txt'}: a text without a recording"]


def test_normalization_is_recorded(root, tmp_path):
    pytest.importorskip("num2words")
    librispeech(root)
    table = root / "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt"
    table.write_text("84-121123-0000 It's 21, and 1,000.5; the 2nd!\n84-121123-0001 ...\n")
    options = Options(subsets=("dev-clean",), normalize="numbers,basic")
    prepared = prepare_corpus("librispeech", root, tmp_path / "out", options)
    (utterance,) = prepared.splits["dev-clean"]
    assert utterance.text == "it's twenty one and one thousand point five the second"
    assert len(prepared.bad) == 1 and "nothing is left of its text '...'" in prepared.bad[0]
    record = json.loads((tmp_path / "out/corpus.json").read_text())
    (split,) = record["splits"].values()
    assert split["normalize"] == "numbers,basic" and split["license"] == "CC BY 4.0"
    assert (split["utterances"], split["hours"], split["speakers"]) == (1, 0.0, 1)
    manifest = tmp_path / "out/dev-clean.jsonl"
    assert recorded(manifest) == "numbers,basic" and recorded(tmp_path / "out/other.jsonl") == ""
    report = run(manifest, manifest, ScoreOptions())
    assert "normalized at preparation (numbers,basic)" in report.warnings[0]
    assert (tmp_path / "out/left_out.txt").read_text().count("\n") == 1


def test_gzip_is_not_needed_to_be_a_folder(root, tmp_path):
    root.mkdir()
    with gzip.open(root / "x.tgz", "wb") as out:
        out.write(b"x")
    with pytest.raises(AsrError, match="not a folder; unpack the corpus"):
        prepare_corpus("aishell", root / "x.tgz", tmp_path / "out")
