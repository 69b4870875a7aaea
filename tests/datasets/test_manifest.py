"""The manifest: written utterances are read back, and a bad line is named."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError

GOOD = {"id": "a", "audio": "a.wav", "text": "one", "duration": 1.5}

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text("abcäß日 _-.", min_size=1, max_size=8).filter(lambda name: name.strip(". "))
times = st.floats(0, 1e6, allow_nan=False)
utterances = st.builds(
    Utterance,
    id=words,
    audio=names.map(lambda name: Path("wav") / name),
    text=st.none() | words,
    duration=st.none() | times.filter(bool),
    speaker=st.none() | words,
    lang=st.none() | words,
    start=times,
    extra=st.dictionaries(st.sampled_from(["split", "gender", "age"]), words | st.integers() | st.none()),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(group=st.lists(utterances, min_size=1, max_size=5, unique_by=lambda utterance: utterance.id))
def test_round_trip(tmp_path, group):
    path = tmp_path / "manifest.jsonl"
    group = [
        Utterance(**{**vars(utterance), "audio": tmp_path / utterance.audio, "extra": dict(utterance.extra)})
        for utterance in group
    ]
    write_manifest(path, group)
    assert read_manifest(path) == group
    assert all(json.loads(line)["audio"].startswith("wav/") for line in path.open(encoding="utf-8"))


def test_audio_outside_the_manifest_s_folder_has_an_absolute_path(tmp_path):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "manifest.jsonl"
    write_manifest(path, [Utterance("a", tmp_path / "a.wav", "one", 1.0)])
    assert json.loads(path.read_text())["audio"] == str(tmp_path / "a.wav")
    assert read_manifest(path)[0].audio == tmp_path / "a.wav"


def test_other_values_do_not_take_the_place_of_ours(tmp_path):
    extra = {"audio": "x", "offset": 3.0, "text": "x", "age": 7}
    write_manifest(tmp_path / "m.jsonl", [Utterance("a", tmp_path / "a.wav", extra=extra)])
    expected = [Utterance("a", tmp_path / "a.wav", extra={"age": 7})]
    assert read_manifest(tmp_path / "m.jsonl") == expected


def test_empty_lines_and_a_moved_folder(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n" + json.dumps(GOOD) + "\n\n")
    moved = tmp_path / "moved"
    moved.mkdir()
    path = path.rename(moved / path.name)
    (utterance,) = read_manifest(path)
    assert utterance.audio == moved / "a.wav" and utterance.start == 0.0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON object is needed, not list"),
        (json.dumps({"id": "b", "text": "one", "duration": 1.5}), "no 'audio'"),
        (json.dumps(GOOD | {"duration": "1.5"}), "'duration' has the wrong type"),
        (json.dumps(GOOD | {"duration": True}), "'duration' has the wrong type"),
        (json.dumps(GOOD | {"text": 7}), "'text' has the wrong type"),
        (json.dumps(GOOD | {"speaker": 7}), "'speaker' has the wrong type"),
        (json.dumps(GOOD | {"duration": 0}), "not a possible time"),
        (json.dumps(GOOD | {"duration": math.nan}), "not a possible time"),
        (json.dumps(GOOD | {"start": -1}), "not a possible time"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, says):
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + line + "\n")
    with pytest.raises(AsrError) as caught:
        read_manifest(path)
    assert f"{path}, line 3: " in str(caught.value) and says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_audio_is_required(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"audio": "a.wav"}\n{"audio": "a.wav", "start": 2.5}\n{"id": "c", "audio": "c.wav"}\n')
    whole, part, named = read_manifest(path)
    assert (whole.id, whole.text, whole.duration, whole.start) == ("a.wav", None, None, 0.0)
    assert (part.id, part.start, named.id) == ("a.wav-2.5", 2.5, "c")


def test_names_of_nemo_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "manifest.jsonl"
    line = json.dumps({"audio_filepath": "a.wav", "offset": 1.5, "duration": 2, "text": "one", "lang": "en"})
    path.write_text(line + "\n" + json.dumps(GOOD) + "\n", encoding="utf-8-sig")
    expected = Utterance("a.wav-1.5", tmp_path / "a.wav", "one", 2.0, lang="en", start=1.5)
    assert read_manifest(path)[0] == expected
    path.write_text(json.dumps({"audio": "a.wav", "offset": 1.5, "duration": 2, "text": "one", "lang": "en"}))
    assert read_manifest(path) == [expected]


def test_bad_files(tmp_path):
    path = tmp_path / "manifest.jsonl"
    with pytest.raises(AsrError, match="No such file"):
        read_manifest(path)
    with pytest.raises(AsrError, match="directory"):
        read_manifest(tmp_path)
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(AsrError, match="UTF-8"):
        read_manifest(path)
    path.write_text("\n \n")
    with pytest.raises(AsrError, match="the manifest is empty"):
        read_manifest(path)
    path.write_text(2 * (json.dumps(GOOD) + "\n"))
    with pytest.raises(AsrError, match="line 2: duplicate id 'a'"):
        read_manifest(path)
