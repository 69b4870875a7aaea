"""Normalization at preparation, and splits by speaker."""

from pathlib import Path

import pytest

from asr.datasets.manifest import Utterance
from asr.datasets.normalization import number_speller, text_normalizer
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
    ],
)
def test_numbers(text, lang, spoken):
    pytest.importorskip("num2words")
    assert number_speller()(text, lang) == spoken


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
    splits = hold_out({"all": group}, {"test": 0.2, "dev": 0.1})
    assert {name: len(part) for name, part in splits.items()} == {"train": 140, "test": 40, "dev": 20}
    speakers = [{u.speaker for u in part} for part in splits.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 20
    again = hold_out({"train": group[::-1]}, {"test": 0.2, "dev": 0.1})
    assert {u.id for u in again["test"]} == {u.id for u in splits["test"]}


def test_without_speakers_equal_texts_stay_together():
    group = [utterance(f"text {n % 50}", number=n) for n in range(100)]
    splits = hold_out({"all": group, "other": []}, {"dev": 0.3})
    assert len(splits["dev"]) == 30 and "other" in splits
    assert not {u.text for u in splits["dev"]} & {u.text for u in splits["train"]}


def test_what_cannot_be_held_out():
    group = [utterance("a", speaker="s", number=n) for n in range(3)]
    for splits, shares, message in (
        ({"train": group, "dev": group}, {"dev": 0.1}, "has a split dev of its own"),
        ({"test": group}, {"dev": 0.1}, "no split train or all"),
        ({"all": group}, {"dev": 0.6, "test": 0.5}, "give smaller shares"),
        ({"all": group}, {"dev": 0.1}, "too few different texts for a split train"),
    ):
        with pytest.raises(AsrError, match=message):
            hold_out(splits, shares)
