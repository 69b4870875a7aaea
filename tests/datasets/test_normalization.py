"""Normalization at preparation, and splits by speaker."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asr import audio
from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.datasets.normalization import normalize_splits, recorded, text_normalizer
from asr.datasets.number_words import number_speller
from asr.datasets.prepare import Options, prepare_corpus
from asr.datasets.sharding import write_shards
from asr.datasets.splitting import hold_out
from asr.errors import AsrError


def utterance(text, lang=None, speaker=None, number=0, duration=1.0):
    return Utterance(f"u{number}", Path("a.wav"), text, duration, speaker, lang)


@pytest.mark.parametrize(
    ("text", "lang", "spoken"),
    [
        ("page 42", "en", "page forty two"),
        ("1,234 and 3.5", "en", "one thousand two hundred and thirty four and three point five"),
        ("am 21. Mai", "de", "am einundzwanzig. Mai"),
        ("1.234 und 3,5", "de", "eintausendzweihundertvierunddreißig und drei Komma fünf"),
        ("80", "fr-FR", "quatre vingts"),
        ("007 the 3rd", "en", "zero zero seven the third"),
        ("at 10:30", "en", "at ten:thirty"),
        (
            "B2B 3D 192.168.0.1",
            "en",
            "B2B 3D one hundred and ninety two one hundred and sixty eight zero one",
        ),
        ("5km in the 1990s", "en", "5km in the 1990s"),
        ("1 000 ou 2\u202f500,5", "fr", "mille ou deux mille cinq cents virgule cinq"),
        ("1995 300 fois", "fr", "mille neuf cent quatre vingt quinze trois cents fois"),
        ("call 555 123", "en", "call five hundred and fifty five one hundred and twenty three"),
        ("第3回", "ja", "第三回"),
        ("มี5คน", "th", "มีห้าคน"),
        (
            "90071992547.01",
            "en",
            "ninety billion seventy one million nine hundred and ninety two thousand five "
            "hundred and forty seven point zero one",
        ),
        ("999999999999 3", "te", "999999999999 మూడు"),
        ("3,05", "tr", "3,05"),
    ],
)
def test_numbers(text, lang, spoken):
    pytest.importorskip("num2words")
    assert number_speller()(text, lang) == spoken


def test_languages_that_num2words_cannot_spell():
    pytest.importorskip("num2words")
    for lang in ("am", "am-ET"):
        with pytest.raises(AsrError, match=f"cannot be spelled in the language '{lang}'"):
            number_speller()("1999", lang)


def test_unknown_texts_stay_unknown_and_figures_are_counted(tmp_path):
    pytest.importorskip("num2words")
    group = [replace(utterance(None, number=0), phonemes="a"), utterance("3 of 5km", "en", number=1)]
    group += [utterance("two", number=2), utterance(None, number=3)]
    bad, notes = [], []
    splits = normalize_splits({"train": group}, "numbers,upper", bad, notes)
    assert [u.text for u in splits["train"]] == [None, "THREE OF 5KM", "TWO", None] and not bad
    assert notes == ["figures are left in 1 texts, such as u1 ('THREE OF 5KM')"]
    audio.write(tmp_path / "a.wav", np.zeros(16000))
    write_manifest(tmp_path / "a.jsonl", [replace(u, audio=tmp_path / "a.wav") for u in group])
    prepared = prepare_corpus("manifest", tmp_path / "a.jsonl", tmp_path / "out", Options(normalize="upper"))
    assert prepared.notes == ["1 utterances have no text or phonemes, which training needs: u3"]
    assert read_manifest(tmp_path / "out" / "all.jsonl")[3].text is None


def test_each_split_keeps_the_record_of_its_normalization(tmp_path):
    audio.write(tmp_path / "a.wav", np.full(16000, 0.1))
    for name, normalize in (("train", "upper"), ("dev", "case"), ("test", None)):
        line = replace(utterance("Ein Wort"), audio=tmp_path / "a.wav", extra={"split": name})
        write_manifest(tmp_path / f"{name}.jsonl", [line])
        prepare_corpus("manifest", tmp_path / f"{name}.jsonl", tmp_path / "out", Options(normalize=normalize))
    names = [recorded(tmp_path / "out" / f"{name}.jsonl") for name in ("train", "dev", "test")]
    assert names == ["upper", "case", ""]
    write_shards(tmp_path / "out" / "dev.jsonl", tmp_path / "shards")
    assert recorded(tmp_path / "shards" / "manifest.jsonl") == "case"
    # Until version 0.2, all splits had one record.
    old = '{"normalize": "basic", "splits": {"train": {"utterances": 1}}}'
    (tmp_path / "out" / "corpus.json").write_text(old)
    assert [recorded(tmp_path / "out" / f"{name}.jsonl") for name in ("train", "dev")] == ["basic", ""]


def test_names_of_normalizations():
    assert text_normalizer("basic,upper")(utterance("Don't «stop»,  now")) == "DON'T STOP NOW"
    assert text_normalizer("case")(utterance("Straße A")) == "strasse a"
    with pytest.raises(AsrError, match="'lower': unknown; choose from numbers, case, basic, english, upper"):
        text_normalizer("lower")
    with pytest.raises(AsrError, match="exclude each other"):
        text_normalizer("case,basic")
    pytest.importorskip("num2words")
    with pytest.raises(AsrError, match="'u0': its language is not known; give --lang"):
        text_normalizer("numbers")(utterance("1"))
    with pytest.raises(AsrError, match="cannot be spelled in the language 'xx'"):
        text_normalizer("numbers")(utterance("1", "xx"))


def test_speakers_are_held_out_whole():
    group = [utterance("t", speaker=f"s{n % 20}", number=n) for n in range(200)]
    splits = hold_out({"all": group}, {"test": 0.2, "dev": 0.1}, [])
    assert {name: len(part) for name, part in splits.items()} == {"train": 140, "test": 40, "dev": 20}
    speakers = [{u.speaker for u in part} for part in splits.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 20
    again = hold_out({"train": group[::-1]}, {"test": 0.2, "dev": 0.1}, [])
    assert {u.id for u in again["test"]} == {u.id for u in splits["test"]}


def test_without_speakers_equal_texts_stay_together():
    group = [utterance(f"text {n % 50}", number=n) for n in range(100)]
    notes = []
    splits = hold_out({"all": group, "other": []}, {"dev": 0.3}, notes)
    assert notes == [
        "texts are held out, and speakers can be in several splits: 0 speakers are too few for 2 splits"
    ]
    assert len(splits["dev"]) == 30 and "other" in splits
    assert not {u.text for u in splits["dev"]} & {u.text for u in splits["train"]}


def test_utterances_without_a_speaker_do_not_change_the_unit():
    group = [utterance("t", speaker=f"s{n % 20}", number=n) for n in range(200)] + [
        utterance("t", number=200)
    ]
    notes = []
    splits = hold_out({"all": group}, {"dev": 0.1}, notes)
    assert not {u.speaker for u in splits["dev"]} & {u.speaker for u in splits["train"]}
    assert group[-1] in splits["train"]
    assert notes == ["whole speakers are held out; 1 utterances without a speaker are in train"]


def test_what_cannot_be_held_out():
    group = [utterance("a", speaker="s", number=n) for n in range(3)]
    for splits, shares, message in (
        ({"train": group, "dev": group}, {"dev": 0.1}, "has a split dev of its own"),
        ({"test": group}, {"dev": 0.1}, "only a split train or all"),
        ({"all": group}, {"dev": 0.6, "test": 0.5}, "give smaller shares"),
        ({"all": group}, {"dev": 0.1}, "too few different texts for a split train"),
    ):
        with pytest.raises(AsrError, match=message):
            hold_out(splits, shares, [])
