"""Formats of transcripts: what other programs read from them is what the transcript says."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asr.config import Config
from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.scoring.formats import read_texts
from asr.tokenizers import CharacterTokenizer
from asr.transcription.formats import FORMATS, to_rttm, to_textgrid
from asr.transcription.job import transcribe_inputs
from asr.transcription.output import Output, write_text
from asr.transcription.recognizer import Recognizer
from asr.transcription.subtitles import LINE, LINES, LONGEST, cues_of, to_srt, to_vtt
from asr.transcription.transcript import Character, Segment, Transcript, Word

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/transcript.schema.json").read_text())


def transcript(*words, duration=None, separator=" "):
    """One segment of words, each (text, start, end)."""
    made = tuple(Word(t, a, b, 0.5, tuple(Character(c, a, b) for c in t)) for t, a, b in words)
    text = separator.join(word.text for word in made)
    end = words[-1][2] if words else 0.0
    segments = (Segment(0.0, end, text, 0.5, words=made),) if words else ()
    return Transcript("talks/a b.wav", "talks/a b.wav", text, duration or end, segments)


spoken = st.lists(
    st.tuples(st.text("abcdefghij", min_size=1, max_size=60), st.floats(0.05, 3), st.floats(0, 2.5)),
    min_size=1,
    max_size=60,
)


@given(spoken)
def test_cues_can_be_read_and_say_everything(parts):
    at, words = 0.0, []
    for text, length, gap in parts:
        words.append((text, at, at + length))
        at += length + gap
    whole = transcript(*words)
    cues = cues_of(whole)
    assert "".join(cue.text for cue in cues).replace(" ", "").replace("\n", "") == whole.text.replace(" ", "")
    for cue in cues:
        lines = cue.text.split("\n")
        assert len(lines) <= LINES and max(map(len, lines)) <= LINE
        assert cue.end - cue.start <= max(LONGEST, 3.001)
    for cue, following in pairwise(cues):
        assert cue.start < cue.end <= following.start + 1e-9
        words = [w for line in cue.lines for w in line]
        if following.start > words[-1].end + 7:
            assert cue.end - cue.start >= min(7, len(cue.text) / 17) - 1e-6


def test_a_cue_stays_until_it_is_read_but_not_into_the_next():
    alone, crowded = (
        cues_of(transcript(("yes", 1.0, 1.2), ("no", later, later + 0.3)))[0] for later in (9.0, 2.5)
    )
    assert (alone.start, alone.end) == (1.0, 2.0)
    assert crowded.end <= 2.5 - 0.08
    long = cues_of(transcript(("a" * 34, 0.0, 0.5), ("b", 9.0, 9.1)))[0]
    assert long.end == pytest.approx(2.0)  # 17 characters a second


def test_lines_are_balanced_and_scripts_without_spaces_are_whole():
    words = [
        (w, i * 0.2, i * 0.2 + 0.2)
        for i, w in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
    ]
    (cue,) = cues_of(transcript(*words))
    assert cue.text == "one two three four five\nsix seven eight nine ten"
    chinese = transcript(*[(c, i * 0.1, i * 0.1 + 0.1) for i, c in enumerate("机器学习" * 8)], separator="")
    assert cues_of(chinese)[0].text.replace("\n", "") == "机器学习" * 8
    assert all(len(line) <= LINE // 2 for cue in cues_of(chinese) for line in cue.text.split("\n"))


def test_spaces_in_cues_are_those_of_the_text():
    """Of a model of a script without spaces, every character is a word."""
    text = "我用 iPhone 手机"
    places = [(c, i * 0.2, i * 0.2 + 0.2) for i, c in enumerate(text.replace(" ", ""))]
    mixed = transcript(*places)
    mixed = replace(mixed, text=text, segments=(replace(mixed.segments[0], text=text),))
    (cue,) = cues_of(mixed)
    assert cue.text == text
    assert "<u>i</u>Phone" in to_srt(mixed, highlight=True) and "我用 <u>i" in to_srt(mixed, highlight=True)
    assert re.sub("<.*?>", "", to_vtt(mixed, highlight=True)).split("\n")[3] == text
    one, two = (transcript((c, t, t + 0.3)).segments[0] for c, t in (("好", 0.0), ("是", 0.5)))
    for between in ("", " "):
        (cue,) = cues_of(Transcript("a", "a", f"好{between}是", 2.0, (one, two)))
        assert cue.text == f"好{between}是"


def test_srt_and_vtt():
    short = transcript(("a<b", 0.5, 1.0), ("c", 1.0, 1.25), ("later", 3661.5, 3662.9))
    assert to_srt(short) == (
        "1\n00:00:00,500 --> 00:00:01,500\na<b c\n\n2\n01:01:01,500 --> 01:01:02,900\nlater\n\n"
    )
    assert to_vtt(short).startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.500\na&lt;b c\n\n01:01:01.500 -->")
    marked = to_srt(short, highlight=True)
    assert re.findall("<u>(.*?)</u>", marked) == ["a<b", "c", "later"]
    assert "00:00:00,500 --> 00:00:01,000\n<u>a<b</u> c\n" in marked
    assert "<00:00:01.000><c>c</c>" in to_vtt(short, highlight=True)


def test_ctm_and_trn_are_read_by_the_scorer(tmp_path):
    spoken_text = transcript(("one", 0.5, 1.0), ("two", 1.0, 1.25))
    for name in ("ctm", "trn"):
        (tmp_path / f"hyp.{name}").write_text(FORMATS[name].write(spoken_text))
        ((_, text),) = read_texts(tmp_path / f"hyp.{name}").items()
        assert text == "one two"
    assert FORMATS["ctm"].write(spoken_text).startswith("talks/a_b.wav 1 0.500 0.500 one 0.500\n")
    assert FORMATS["trn"].write(spoken_text) == "one two (talks/a_b.wav)\n"


def test_textgrid_tiers_have_no_gaps():
    spoken_text = transcript(('say "x"', 0.5, 1.0), ("b", 0.9, 1.25), duration=2.0)  # the times overlap
    grid = to_textgrid(spoken_text)
    assert '"say ""x"""' in grid and grid.count('class = "IntervalTier"') == 3
    for tier in grid.split("item [")[2:]:
        times = [float(t) for t in re.findall(r"xm(?:in|ax) = ([\d.]+)", tier)][2:]
        assert times[0] == 0 and times[-1] == 2.0
        assert all(times[i] == times[i + 1] for i in range(1, len(times) - 1, 2))
        assert all(a < b for a, b in zip(times[::2], times[1::2], strict=True))
        assert int(re.search(r"size = (\d+)", tier)[1]) == len(times) // 2
    assert "size = 1" in to_textgrid(transcript(duration=1.0))  # nothing was spoken


def test_channels_that_overlap_have_their_own_cues_and_tiers():
    one = transcript(("hello", 0.0, 1.0), ("goodbye", 15.0, 18.0)).segments[0]
    two = transcript(("yes", 3.0, 4.0), ("here", 8.0, 9.0)).segments[0]
    segments = (replace(one, channel=1), replace(two, channel=2))
    call = Transcript("call", "call.wav", "hello goodbye yes here", 20.0, segments)
    assert [(c.start, c.text) for c in cues_of(call)] == [
        (0.0, "hello"), (3.0, "yes"), (8.0, "here"), (15.0, "goodbye"),
    ]  # fmt: skip
    assert [line.split()[3] for line in to_rttm(call).splitlines()] == ["0.000", "3.000", "8.000", "15.000"]
    many = Transcript("a", "a", "", 9.0, tuple(replace(one, channel=c) for c in (10, 2, 1)))
    assert list(many.by_channel()) == [1, 2, 10]
    grid = to_textgrid(call)
    tiers = re.findall('name = "(.*)"', grid)
    assert tiers == [f"{n} {c}" for c in (1, 2) for n in ("segments", "words", "characters")]
    assert all(f'text = "{word}"' in grid for word in ("hello", "goodbye", "yes", "here"))


def test_rttm_joins_words_that_are_near():
    spoken_text = transcript(("a", 0.5, 1.0), ("b", 1.2, 1.5), ("c", 2.5, 3.0))
    assert [line.split()[3:5] for line in to_rttm(spoken_text).splitlines()] == [
        ["0.500", "1.000"],
        ["2.500", "0.500"],
    ]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, 0.3 * random.standard_normal(12000), 16000)
    return folder


def test_every_format_at_once_and_json_follows_the_schema(tiny_model, sounds, tmp_path):
    output = Output(folder=tmp_path, formats=tuple(FORMATS))
    assert transcribe_inputs([str(sounds)], output, tiny_model, "cpu") == 0
    suffixes = {(format.suffix or name) for name, format in FORMATS.items()}
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}.{s}" for n in "ab" for s in suffixes}
    assert (tmp_path / "a.tsv").read_text().startswith("id\tstart\tend\tconfidence\ttext\n")
    record = json.loads((tmp_path / "a.json").read_text())
    jsonschema.validate(record, SCHEMA)
    segment = record["segments"][0]
    assert [w["text"] for w in segment["words"]] == segment["text"].split()
    times = [t for w in segment["words"] for c in w["characters"] for t in (c["start"], c["end"])]
    assert times == sorted(times) and segment["start"] <= times[0] and times[-1] <= segment["end"]
    for broken in ({**record, "txt": ""}, {**record, "duration": -1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)

    (tmp_path / "a.srt").unlink()
    (tmp_path / "b.txt").write_text("mine")
    assert transcribe_inputs([str(sounds)], replace(output, resume=True), tiny_model, "cpu") == 0
    assert (tmp_path / "a.srt").exists() and (tmp_path / "b.txt").read_text() == "mine"


def test_one_stream_of_tsv(tiny_model, sounds, tmp_path, capsys):
    output = Output(file=tmp_path / "all.tsv", formats=("tsv",))
    assert transcribe_inputs([str(sounds)], output, tiny_model, "cpu") == 0
    lines = (tmp_path / "all.tsv").read_text().splitlines()
    assert lines[0].startswith("id\t") and len(lines) == 3 and lines[2].startswith(f"{sounds}/b.wav\t")
    assert transcribe_inputs([str(sounds)], Output(formats=("tsv",)), tiny_model, "cpu") == 0
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_name_that_is_not_utf_8(name, tmp_path):
    """Files are UTF-8 whatever the name is, and the escape of its bytes is the same in all formats."""
    made = replace(
        transcript(("one", 0.0, 0.5), ("two", 0.5, 1.0)), id="caf\udce9.wav", audio="caf\udce9.wav"
    )
    Output(folder=tmp_path, formats=(name,)).write_files([tmp_path / "a"], made)
    with Output(file=tmp_path / "b", formats=(name,)).open() as file:
        write_text(file, Output(file=tmp_path / "b", formats=(name,)).stream_text(made))
    for path in (tmp_path / "a", tmp_path / "b"):
        content = path.read_text(encoding="utf-8")
        assert "two" in content or name == "rttm"
        assert (r"caf\udce9.wav" in content) == (name in ("json", "tsv", "ctm", "trn", "rttm"))


def test_words_of_a_model_without_ctc_are_refused(sounds, tmp_path):
    config = Config.model_validate({"model": {"preset": "tiny", "ctc": False}, "train": {"ctc_weight": 0}})
    bundle = Bundle.build(config, CharacterTokenizer.from_characters("ab ")).eval()
    bundle.save(tmp_path / "model")
    output = Output(folder=tmp_path / "out", formats=("json", "ctm"))
    with pytest.raises(
        AsrError, match=r"--format ctm: needs the times of words.*choose txt, json, tsv, trn, rttm"
    ):
        transcribe_inputs([str(sounds)], output, tmp_path / "model", "cpu")
    assert not (tmp_path / "out").exists()
    assert all(not s.words for s in Recognizer(bundle).transcribe(sounds / "a.wav").segments)
    with pytest.raises(AsrError, match=r"min_confidence: this model gives no confidence of words; omit"):
        Recognizer(bundle, min_confidence=0.2)
