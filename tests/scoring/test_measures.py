"""Units, normalization, mappings, breakdowns and confusions."""

import builtins

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import AsrError
from asr.scoring import Counts, confusions, groups, score, summary
from asr.scoring.normalize import basic, normalizer, word_mapper

lines = st.lists(st.sampled_from(["a", "b", "ab", "c"]), min_size=1, max_size=8).map(" ".join)


@given(st.lists(st.tuples(lines, lines), min_size=1, max_size=5))
def test_mer_and_wil_are_those_of_jiwer(pairs):
    refs, hyps = map(list, zip(*pairs, strict=True))
    result, theirs = score(refs, hyps), jiwer.process_words(refs, hyps)
    assert (result.mer, result.wil) == pytest.approx((theirs.mer, theirs.wil))


@pytest.mark.parametrize(
    ("ref", "hyp", "mer", "wil"), [("", "", 0.0, 0.0), ("", "a", 1.0, 1.0), ("a", "", 1.0, 1.0)]
)
def test_mer_and_wil_of_empty_texts(ref, hyp, mer, wil):
    result = score([ref], [hyp])
    assert (result.mer, result.wil) == (mer, wil)


@pytest.mark.parametrize("text", ["我 爱 你们", "わたし は 元気", "ผม ชอบ แมว"])
def test_characters_are_the_unit_of_scripts_without_spaces(text):
    result = score([text], [text.replace(" ", "")[:-1]])
    length = len(text.replace(" ", ""))
    assert result.measure.unit == "chars"
    assert result.tokens == result.chars == Counts(hits=length - 1, deletions=1)
    assert summary(result).startswith("CER")
    assert score([text], [text], unit="words").words.reference_length == len(text.split())


def test_mixed_takes_chinese_singly_and_other_words_whole():
    result = score(["我爱 python 你"], ["我 python 他"], unit="mixed")
    assert result.tokens == Counts(hits=2, substitutions=1, deletions=1)
    assert result.utterances[0].alignment[1] == ("delete", "爱", None)
    assert result.to_dict()["utterances"][0]["mixed"]["reference_length"] == 4


def test_alternatives_count_with_nist_costs_only():
    ref, hyp = "the { colour / color } (uh) was red", "The color was red"
    assert score([ref], [hyp], costs="nist", normalize="case").words.errors == 0
    assert score([ref], [hyp]).words.errors > 3
    with pytest.raises(AsrError, match="utterance '0' has alternatives"):
        score([ref], [hyp], costs="nist", normalize="basic")
    with pytest.raises(AsrError, match=r"utterance '0': .*'{' without"):
        score(["{ a / b"], ["a"], costs="nist")


@pytest.mark.parametrize(
    "options", [{"unit": "letters"}, {"costs": "free"}, {"normalize": "french"}], ids=lambda o: next(iter(o))
)
def test_unknown_names_are_refused(options):
    with pytest.raises(AsrError, match="choose one of"):
        score(["a"], ["a"], **options)


def test_basic_normalization():
    assert basic("“Don’t,” he  message – zero-based! １２ STRASSE straße") == (
        "don't he message zero-based 12 strasse strasse"
    )
    assert basic("हिन्दी, ไทย! 'quoted' -5") == "हिन्दी ไทย quoted 5"
    assert basic("धीरे-धीरे - बहुत-") == "धीरे-धीरे बहुत"  # a sign of a vowel is before the first hyphen
    assert normalizer("none") is None
    assert normalizer("case")("{ A / @ } (Uh)") == "{ a / @ } (uh)"


@given(st.text(max_size=30))
def test_basic_normalization_is_idempotent(text):
    assert basic(basic(text)) == basic(text)


def test_english_normalization_and_the_message_when_it_is_not_installed(monkeypatch):
    pytest.importorskip("whisper_normalizer")
    result = score(["He can't have twenty-one colours."], ["he can not have 21 colors"], normalize="english")
    assert result.wer == 0
    assert result.to_dict()["normalization"] == "english"
    assert "normalization english" in summary(result)
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("whisper_normalizer"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(AsrError, match=r"pip install whisper-normalizer"):
        normalizer("english")


def test_breakdowns_add_up():
    refs = {"a": "x", "b": "x y z q r s", "c": "", "d": "x y"}
    speakers = {"a": {"speaker": "ann"}, "b": {"speaker": "bob"}, "d": {"speaker": "ann"}}
    result = score(refs, {"a": "x", "b": "x y z", "c": "um", "d": "x z"}, attributes=speakers)
    by_length = groups(result, "length")
    assert [g.name for g in by_length] == ["0", "1-5", "6-10"]
    by_speaker = groups(result, "speaker")
    assert [(g.name, g.utterances, g.counts.errors) for g in by_speaker] == [
        ("-", 1, 1), ("ann", 2, 1), ("bob", 1, 3)
    ]  # fmt: skip
    for found in (by_length, by_speaker):
        assert sum((g.counts for g in found), Counts()) == result.tokens
        assert sum(g.sentence_errors for g in found) == result.sentence_errors
    assert groups(result, "length")[0].to_dict()["error_rate"] is None
    with pytest.raises(AsrError, match=r"no utterance has 'accent'.*length, speaker"):
        groups(result, "accent")


def test_confusions_are_counted_and_ordered():
    result = score(["a b c", "a b", "a c"], ["x b", "x b y", "y c"])
    found = confusions(result, most=1)
    assert found.substitutions == (("a", "x", 2),)
    assert (found.deletions, found.insertions) == ((("c", 1),), (("y", 1),))


@pytest.mark.parametrize(
    ("ref", "hyp", "unit", "expected"),
    [
        ("{ 天气 / 天氣 } 好 (的) 人", "天氣好人", "chars", Counts(hits=5)),
        ("{ 天气 / 天氣 } 好 (的) 人", "天气好的您", "chars", Counts(hits=4, substitutions=1)),
        ("{ 天气 / 天氣 } very 好", "天氣 vary 好", "mixed", Counts(hits=3, substitutions=1)),
        ("{ good / fine } morning 好", "fine morning 好", "mixed", Counts(hits=3)),
        # A space counts between words of other scripts, whichever alternative is chosen.
        ("{ @ / a b } cd", "cd", "chars", Counts(hits=2)),
        ("{ @ / a b } cd", "a b cd", "chars", Counts(hits=6)),
        ("x { @ / a b } cd", "x cd", "chars", Counts(hits=4)),
        ("x { ab / c } (uh)", "x ab", "chars", Counts(hits=7)),
    ],
)
def test_alternatives_of_characters(ref, hyp, unit, expected):
    result = score([ref], [hyp], unit=unit, costs="nist")
    assert result.tokens == expected
    operations = [operation for operation, _, _ in result.utterances[0].alignment]
    assert operations.count("equal") == expected.hits


def test_characters_and_words_of_alternatives():
    result = score(["{ 天气 / 天氣 } very (的) 好"], ["天氣 vary 好"], unit="mixed", costs="nist")
    assert result.words == Counts(hits=3, substitutions=1)
    assert result.chars == Counts(hits=6, substitutions=1)
    result = score(["{ colour / color } was"], ["color wax"], unit="chars", costs="nist")
    assert result.words == Counts(hits=1, substitutions=1)


def test_mapping_takes_the_longest_key_and_whole_words():
    change = word_mapper({"a b": "x", "a": "y", "x": "z", "uh": ""}, nothing="@")
    assert change("a  b a ab uh") == "x y ab @"
    assert word_mapper({"Uh": "", "It's": "It is"}, basic)("it's uh so") == "it is  so"
    with pytest.raises(AsrError, match="removes the whole"):
        word_mapper({"...": "dots"}, basic)
    result = score(["{ uh / @ } so"], ["so"], costs="nist", mapping={"uh": ""})
    assert result.tokens == Counts(hits=1)
    assert score(["a b"], ["c d"], mapping={"a": "c", "d": "b"}).words == Counts(hits=2)


def test_marks_of_alternatives_do_not_decide_the_unit():
    assert score(["{ 天 / 夭 / @ }"], ["夭"], costs="nist").tokens == Counts(hits=1)
    assert score(["{ 天 / 夭 / @ }"], ["夭"], costs="nist").measure.unit == "chars"
