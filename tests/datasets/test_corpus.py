"""A corpus of manifests: the same utterances in little memory; exclusions and errors are named."""

import json
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr.config import DataConfig
from asr.datasets import corpus as module
from asr.datasets.corpus import Corpus, sort_by
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError
from asr.tokenizers import CharacterTokenizer, normalize_text


def utterance(id, text="one", duration=1.0, **rest):
    return Utterance(id, Path("wav") / f"{id}.wav", text, duration, **rest)


def write(path, *lines):
    """Lines given as utterances are written as `write_manifest` does, others as they are."""
    write_manifest(path, [line for line in lines if isinstance(line, Utterance)])
    rest = [line for line in lines if not isinstance(line, Utterance)]
    with path.open("ab") as out:
        for line in rest:
            out.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
    return path


def read(*manifests, **data):
    return Corpus.read(DataConfig(train=manifests, **data), "train")


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(words, st.floats(0.06, 29), st.sampled_from(["a", "b", None]), st.integers(0, 3000)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 12),
)
def test_a_corpus_equals_read_manifest(tmp_path, rows, cut):
    found = [
        utterance(f"u{i}", text, duration, speaker=speaker, extra={"note": "x" * length})
        for i, (text, duration, speaker, length) in enumerate(rows)
    ]
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, part in zip(paths, (found[:cut], found[cut:]), strict=True):
        write_manifest(path, part)
    expected = [
        u
        for path, part in zip(paths, (found[:cut], found[cut:]), strict=True)
        if part
        for u in read_manifest(path)
    ]
    corpus = read(*paths)
    assert list(corpus) == expected and corpus[:] == expected and len(corpus) == len(expected)
    assert [corpus[i] for i in range(-len(corpus), 0)] == expected
    assert corpus.durations.tolist() == [np.float32(u.duration) for u in expected]
    for one in (corpus, Corpus.of(expected)):
        codes = dict(zip((u.speaker for u in expected), one.speakers.tolist(), strict=True))
        assert [codes[u.speaker] for u in expected] == one.speakers.tolist()
        assert codes.get(None, -1) == -1 and len(set(codes.values())) == len(codes)
        assert CharacterTokenizer.from_characters(one.counts) == CharacterTokenizer.from_characters(
            normalize_text(u.text) for u in expected
        )
    with pytest.raises(IndexError):
        corpus[len(corpus)]


def test_blank_lines_a_missing_last_newline_and_crlf(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"id": str(i), "audio": "a.wav", "text": "é", "duration": 1}) for i in range(3)]
    path.write_bytes(f"\n{lines[0]}\r\n\n  \n{lines[1]}\n{lines[2]}".encode())
    assert [u.id for u in read(path)] == ["0", "1", "2"]


def test_filters_count_and_name_excluded_utterances(tmp_path):
    rows = [utterance(f"s{i}", duration=0.01) for i in range(5)]
    rows += [utterance("long", duration=31.0), utterance("x", speaker="eve"), utterance("y", speaker="eve")]
    rows += [utterance(f"u{i}", speaker="adam") for i in range(6)]
    corpus = read(write(tmp_path / "a.jsonl", *rows), exclude_speakers=("eve",), first=4)
    assert [u.id for u in corpus] == ["u0", "u1", "u2", "u3"]
    assert {why: (d.count, d.ids) for why, d in corpus.dropped.items()} == {
        "shorter than 0.05 s": (5, ["s0", "s1", "s2"]),
        "longer than 30.0 s": (1, ["long"]),
        "of excluded speakers": (2, ["x", "y"]),
        "after the first 4": (2, []),
    }
    assert corpus.summary() == (
        f"4 utterances, 0.00 h from {tmp_path}/a.jsonl; left out: 5 shorter than 0.05 s (s0, s1, s2, ...), "
        "1 longer than 30.0 s (long), 2 of excluded speakers (x, y), 2 after the first 4"
    )


def test_excluded_utterances_add_no_characters(tmp_path):
    path = write(tmp_path / "a.jsonl", utterance("a", "ab"), utterance("b", "z", duration=99.0))
    assert set(read(path).counts) == {"a", "b"}


def test_unknown_characters_are_named_with_the_first_line_that_has_them(tmp_path):
    first = write(tmp_path / "a.jsonl", utterance("a", "ab"), utterance("b", "bb"))
    second = write(
        tmp_path / "b.jsonl", utterance("c", "a"), utterance("d", "cafe\u0301"), utterance("e", "é")
    )
    corpus = read(first, second)
    corpus.check_characters(CharacterTokenizer.from_characters(["abcdefé"]))
    with pytest.raises(AsrError) as caught:
        corpus.check_characters(CharacterTokenizer.from_characters(["acfe"]))
    assert str(caught.value).startswith(f"{first}, line 1: the text has 'b', which the model does not know")
    assert "in 2 texts; also 'é'" in str(caught.value)
    with pytest.raises(AsrError, match=r"line 2: the text has 'é'.*in 2 texts"):
        corpus.check_characters(CharacterTokenizer.from_characters(["abcfe"]))
    with pytest.raises(AsrError, match="utterance 'd': the text has 'é'"):
        Corpus.of(list(corpus)).check_characters(CharacterTokenizer.from_characters(["abcfe"]))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{\n", "line 2: not JSON"),
        (b'{"id": "\xff"}\n', "line 2: not UTF-8 text"),
        (b"[" * 5000 + b"\n", "line 2: not JSON"),
        (b'{"id": "\\ud800"}\n', "line 2: not JSON"),
        ([1], "line 2: a JSON object is needed"),
        ({"id": "b", "audio": "b.wav", "duration": 1.0}, "line 2: no 'text'"),
        (
            {"id": "b", "audio": "b.wav", "text": "one"},
            "line 2: no 'duration'; training needs text and duration",
        ),
        ({"id": "b", "audio": "b\0", "text": "", "duration": 1.0}, "line 2: 'audio' is not a path"),
        ({"id": "b", "audio": "b", "text": "", "duration": 10**400}, "line 2: duration"),
        ({"id": "b", "audio": "b", "text": "", "duration": float("nan")}, "line 2: duration"),
        ({"id": "a", "audio": "b", "text": "", "duration": 1.0}, "line 2: duplicate id 'a'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, says):
    path = write(tmp_path / "a.jsonl", utterance("a"), line)
    readers = [read] if "no '" in says else [read, read_manifest]
    for attempt in readers:
        with pytest.raises(AsrError) as caught:
            attempt(path)
        assert str(caught.value).startswith(f"{path}, {says}") and "\n" not in str(caught.value)


def test_an_id_that_is_in_two_manifests_is_named_with_both(tmp_path):
    rows = [utterance(str(i)) for i in range(50)]
    first, second = write(tmp_path / "a.jsonl", *rows), write(tmp_path / "b.jsonl", utterance("x"), rows[7])
    with pytest.raises(AsrError) as caught:
        read(first, second)
    assert str(caught.value).startswith(f"{second}, line 2: duplicate id '7' (first in {first}, line 8)")


def test_equal_hashes_of_different_ids_are_no_duplicates(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "hash", lambda id: len(id), raising=False)
    path = write(tmp_path / "a.jsonl", utterance("a"), utterance("b"), utterance("cc"))
    assert len(read(path)) == 3
    with pytest.raises(AsrError, match=r"line 4: duplicate id 'b' \(first in .*line 2\)"):
        read(write(path, utterance("a"), utterance("b"), utterance("cc"), utterance("b")))


def test_an_empty_corpus_is_refused(tmp_path):
    with pytest.raises(AsrError, match=r"data\.train names no manifest"):
        read()
    with pytest.raises(AsrError, match=r"no\.jsonl: cannot read the manifest \(No such file"):
        read(tmp_path / "no.jsonl")
    with pytest.raises(AsrError, match="cannot read the manifest"):
        read(tmp_path)
    with pytest.raises(AsrError, match=r"data\.train: no utterance left of .*a\.jsonl \(empty\)"):
        read(write(tmp_path / "a.jsonl"))
    with pytest.raises(AsrError, match=r"no utterance left of .* \(1 longer than 30.0 s \(a\)\)"):
        read(write(tmp_path / "a.jsonl", utterance("a", duration=40.0)))


def test_a_replaced_manifest_stays_readable_and_a_changed_one_is_an_error(tmp_path):
    path = write(tmp_path / "a.jsonl", utterance("a", duration=2.0), utterance("b", duration=3.0))
    corpus = read(path)
    write(path, utterance("c", duration=4.0))  # atomically: another file of the same name
    assert [u.id for u in corpus] == ["a", "b"]
    corpus = read(path)
    for changed in (b"", b"{}", b'{"id": "x", "audio": "x", "text": "", "duration": 9}'):
        path.write_bytes(changed)
        with pytest.raises(AsrError, match=r"a\.jsonl: the file has changed"):
            corpus[0]


def test_many_threads_read_at_once(tmp_path):
    rows = [utterance(str(i), "x" * (i % 300), 1.0 + i) for i in range(20)]
    corpus = read(write(tmp_path / "a.jsonl", *rows))
    wrong = []

    def look(seed):
        for i in np.random.default_rng(seed).integers(len(rows), size=300).tolist():
            if corpus[i].id != str(i):
                wrong.append(i)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@given(
    st.lists(st.tuples(st.integers(-1, 2**15 - 1), st.integers(0, 3)), max_size=50),
)
def test_sorting_equals_sorted(pairs):
    codes = np.array([code for code, _ in pairs], np.int32)
    minor = np.array([minor for _, minor in pairs], np.uint16)
    assert sort_by(codes).tolist() == sorted(range(len(pairs)), key=lambda i: codes[i])
    expected = sorted(range(len(pairs)), key=lambda i: (codes[i], minor[i]))
    assert sort_by(codes.astype(np.int16), minor).tolist() == expected


def test_reading_needs_little_memory(tmp_path):
    """16 bytes for each utterance, and 8 for its id while reading; arrays that grow take an eighth more."""
    count = 20_000
    path = tmp_path / "a.jsonl"
    with path.open("w") as out:
        for i in range(count):
            record = {"id": f"utterance-{i}", "audio": f"{i}.wav", "text": "some words", "duration": 1.5}
            out.write(json.dumps(record | {"speaker": f"s{i % 100}"}) + "\n")
    read(path, first=10)  # what is allocated once
    tracemalloc.start()
    corpus = read(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(corpus) == count
    assert held < 20 * count + 100_000
    assert peak < 40 * count + 300_000


def test_a_byte_order_mark_shifts_all_line_offsets(tmp_path):
    path = write(tmp_path / "a.jsonl", utterance("a"), utterance("b"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(read(path)) == read_manifest(path)
