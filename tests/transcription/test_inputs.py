"""Arguments of the command line: files, folders, patterns, manifests, and the names of the output files."""

import json
import os
import re
from pathlib import Path

import pytest

from asr.errors import AsrError
from asr.transcription.inputs import Input, find_inputs, output_paths


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """The current folder, with audio files (which are not opened) and other files."""
    for name in (
        "b.wav",
        "a.flac",
        "a.txt",
        "deep/er/c.OGG",
        "deep/a.wav",
        "deep/d.v2.mp3",
        "x[1].wav",
        "none/y.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "deep/folder.wav").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found_in(*arguments):
    """The inputs of arguments that all name recordings."""
    inputs, problems = find_inputs(arguments)
    assert problems == []
    return inputs


def problem_of(*arguments):
    """The message about the only argument that names nothing; the others are found."""
    inputs, (problem,) = find_inputs(["b.wav", *arguments, "a.flac"])
    assert [each.id for each in inputs] == ["b.wav", "a.flac"]
    assert "\n" not in str(problem)
    return str(problem)


def ids(*arguments):
    return [each.id for each in found_in(*arguments)]


def test_a_file(tree):
    (found,) = found_in("deep/a.wav")
    assert found == Input("deep/a.wav", Path("deep/a.wav"), Path("a"))
    assert (found.start, found.duration) == (0.0, None)


def test_the_order_is_kept_and_so_are_repetitions(tree):
    assert ids("b.wav", "a.flac", "b.wav") == ["b.wav", "a.flac", "b.wav"]


def test_a_named_file_may_have_any_suffix(tree):
    assert ids("a.txt") == ["a.txt"]  # to be refused as audio, in its turn


def test_a_folder_is_searched_and_sorted(tree):
    found = found_in("deep")
    assert [each.id for each in found] == ["deep/a.wav", "deep/d.v2.mp3", "deep/er/c.OGG"]
    assert [each.name for each in found] == [Path("a"), Path("d.v2"), Path("er/c")]
    assert ids(".") == ["a.flac", "b.wav", "deep/a.wav", "deep/d.v2.mp3", "deep/er/c.OGG", "x[1].wav"]
    assert ids(f"{tree}/deep/") == [f"{tree}/deep/{name}" for name in ("a.wav", "d.v2.mp3", "er/c.OGG")]


def test_less_usual_suffixes_of_audio(tree):
    names = ["none/a.oga", "none/b.aifc", "none/c.wave"]
    for name in names:
        (tree / name).touch()
    assert ids("none") == names


def test_a_folder_without_audio(tree):
    assert re.match(r"none: no audio in this folder .*\.wav", problem_of("none"))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.wav", ["b.wav", "x[1].wav"]),
        ("[ab].*", ["a.flac", "a.txt", "b.wav"]),
        ("?.flac", ["a.flac"]),
        ("**/*.wav", ["b.wav", "deep/a.wav", "x[1].wav"]),
        ("deep/**", ["deep/a.wav", "deep/d.v2.mp3", "deep/er/c.OGG"]),
        ("de*", ["deep/a.wav", "deep/d.v2.mp3", "deep/er/c.OGG"]),
        ("deep/[!a]*", ["deep/d.v2.mp3", "deep/er/c.OGG"]),
    ],
)
def test_patterns(tree, pattern, found):
    (tree / "deep/folder.wav").rmdir()
    assert ids(pattern) == found
    assert ids(f"{tree}/{pattern}") == [f"{tree}/{name}" for name in found]


def test_a_pattern_without_a_match(tree):
    assert problem_of("*.aiff").startswith("*.aiff: no file matches this pattern; check")


def test_an_empty_folder_does_not_stop_the_other_matches(tree):
    (tree / "dear").mkdir()  # it comes first
    found, (problem,) = find_inputs(["de*"])
    assert [each.id for each in found] == ["deep/a.wav", "deep/d.v2.mp3", "deep/er/c.OGG"]
    assert str(problem).startswith("dear: no audio in this folder")


def test_standard_input_is_read_once(tree):
    found, (problem,) = find_inputs(["-", "b.wav", "-"])
    assert [each.id for each in found] == ["-", "b.wav"] and "only once" in str(problem)


@pytest.mark.parametrize("argument", ["", " "])
def test_an_empty_argument_is_not_the_current_folder(tree, argument):
    assert problem_of(argument).startswith("an empty argument is not a path")


def test_names_with_control_characters_are_escaped_in_messages(tree):
    assert problem_of("no\nsuch\x1b[31m*").startswith("no\\nsuch\\x1b[31m*: no file matches")


def test_standard_input(tree):
    (found,) = found_in("-")
    assert (found.id, found.name, found.path) == ("-", Path("stdin"), "")


def test_data_in_memory(tree):
    with pytest.raises(AsrError, match="an empty argument is not a path"):
        Input.of("")
    assert Input.of(b"RIFF").path == "" and Input.of(b"RIFF", id="x").id == "x"
    with (tree / "b.wav").open("rb") as file:
        assert Input.of(file).id == str(tree / "b.wav")


def test_a_name_that_looks_like_a_pattern(tree):
    assert ids("x[1].wav") == ["x[1].wav"]


def test_a_missing_file_is_an_input(tree):
    long = "n" * 300 + ".wav"  # longer than a file system allows
    assert ids("missing.wav", "no/such.flac", long) == ["missing.wav", "no/such.flac", long]
    assert "no file matches" in problem_of("n" * 300 + "*")


def test_names_that_are_not_utf_8(tree):
    try:
        Path(os.fsdecode(b"deep/er/caf\xe9.wav")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = found_in("deep/er")
    assert [os.fsencode(each.id) for each in found] == [b"deep/er/c.OGG", b"deep/er/caf\xe9.wav"]


def test_a_manifest(tree):
    lines = [
        {"id": "u/1", "audio": "b.wav", "text": "", "duration": 1.5, "start": 2.0},
        {"id": "u2", "audio": "/else/where.flac", "text": "x", "duration": 3},
    ]
    (tree / "deep/list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert found_in("deep/list.jsonl", "b.wav") == [
        Input("u/1", Path("deep/b.wav"), Path("u_1"), 2.0, 1.5),
        Input("u2", Path("/else/where.flac"), Path("u2"), 0.0, 3.0),
        Input("b.wav", Path("b.wav"), Path("b")),
    ]


def test_a_manifest_with_a_broken_line(tree):
    (tree / "list.jsonl").write_text('{"id": "1", "audio": "b.wav", "text": "", "duration": 1}\n{"id": \n')
    assert problem_of("list.jsonl").startswith("list.jsonl, line 2: not JSON")
    assert problem_of("none.jsonl").startswith("none.jsonl: cannot read the manifest")


def test_a_manifest_needs_only_audio(tree):
    (tree / "list.jsonl").write_text(
        '\ufeff{"audio": "b.wav"}\n{"audio_filepath": "a.flac"}\n', encoding="utf-8"
    )
    assert [(each.id, each.audio) for each in found_in("list.jsonl")] == [
        ("b.wav", Path("b.wav")),
        ("a.flac", Path("a.flac")),
    ]
    (tree / "empty.jsonl").touch()
    assert "empty" in problem_of("empty.jsonl")


def test_output_paths(tree):
    inputs = found_in("deep", "b.wav", "missing.wav")
    assert output_paths(inputs, Path("out"), "json") == [
        (Path("out") / name,) for name in ("a.json", "d.v2.json", "er/c.json", "b.json", "missing.json")
    ]
    assert output_paths([], Path("out"), "txt") == []


@pytest.mark.parametrize(
    ("arguments", "both"),
    [
        (["a.flac", "deep/a.wav"], "out/a.txt: both a.flac and deep/a.wav would be written to it"),
        (["deep", "b.wav", "deep/a.wav"], "out/a.txt: both deep/a.wav and deep/a.wav would be written to it"),
    ],
)
def test_two_inputs_of_one_name(tree, arguments, both):
    with pytest.raises(AsrError) as caught:
        output_paths(found_in(*arguments), Path("out"), "txt")
    assert str(caught.value).startswith(both)


def test_a_transcript_does_not_replace_a_recording(tree):
    """A named file may have any suffix. A link in the path changes nothing."""
    (tree / "link").symlink_to(tree)
    for name in ("a.txt", "link/a.txt"):
        with pytest.raises(
            AsrError, match=rf"^{name}: this is an input, and a transcript would replace it; use another"
        ):
            output_paths(found_in(name), Path(), "srt", "txt")
    assert output_paths(found_in("a.txt"), Path("out"), "txt") == [(Path("out/a.txt"),)]
    assert output_paths(found_in("a.txt"), Path(), "srt") == [(Path("a.srt"),)]


def test_the_same_name_in_different_folders(tree):
    (tree / "deep/er/a.wav").touch()
    assert output_paths(found_in("deep"), Path("o"), "txt")[:2] == [(Path("o/a.txt"),), (Path("o/d.v2.txt"),)]
    assert (Path("o/er/a.txt"),) in output_paths(found_in("deep"), Path("o"), "txt")


def test_a_pattern_mirrors_the_folders_below_it(tree):
    (tree / "deep/er/a.wav").touch()
    assert output_paths(found_in("de*/**/a.wav"), Path("o"), "srt", "txt") == [
        (Path("o/deep/a.srt"), Path("o/deep/a.txt")),
        (Path("o/deep/er/a.srt"), Path("o/deep/er/a.txt")),
    ]
    assert output_paths(found_in("deep/er/*.wav"), Path("o"), "txt") == [(Path("o/a.txt"),)]


def test_a_closed_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    inputs, problems = find_inputs(["-"])
    assert inputs == [] and str(problems[0]) == "-: standard input is closed; give a file"
