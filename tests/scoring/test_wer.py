"""Counts equal those of jiwer and of a plain Levenshtein distance, and obey general rules."""

import json
import math
import subprocess
import sys
from functools import cache

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import AsrError
from asr.scoring import Counts, UtteranceScore, score, summary

words = st.sampled_from(["a", "b", "ab", "ba", "é", "日本"])
texts = st.lists(words, max_size=6).map(" ".join)
spoken = st.lists(words, min_size=1, max_size=12).map(" ".join)
pairs = st.lists(st.tuples(texts, texts), max_size=6)


def levenshtein(ref: list[str], hyp: list[str]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not (i and j):
            return i + j
        kept = distance(i - 1, j - 1) + (ref[i - 1] != hyp[j - 1])
        return min(kept, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(ref), len(hyp))


def one(ref: str, hyp: str) -> UtteranceScore:
    return score([ref], [hyp], unit="words").utterances[0]


@given(st.lists(st.tuples(spoken, spoken), min_size=1, max_size=5))
def test_totals_are_those_of_jiwer(pairs):
    refs, hyps = map(list, zip(*pairs, strict=True))
    result, by_word = score(refs, hyps, unit="words"), jiwer.process_words(refs, hyps)
    assert result.wer == pytest.approx(by_word.wer)
    assert result.cer == pytest.approx(jiwer.cer(refs, hyps))
    assert result.words == Counts(by_word.hits, by_word.substitutions, by_word.deletions, by_word.insertions)


@given(texts, texts)
def test_errors_are_the_edit_distance_even_with_empties(ref, hyp):
    result = one(ref, hyp)
    for counts, r, h in [(result.words, ref.split(), hyp.split()), (result.chars, list(ref), list(hyp))]:
        assert counts.errors == levenshtein(r, h)
        assert counts.reference_length == len(r)
        assert counts.hits + counts.substitutions + counts.insertions == len(h)


@given(texts, texts)
def test_alignment_spells_both_texts_and_gives_the_counts(ref, hyp):
    result = one(ref, hyp)
    assert [r for _, r, _ in result.alignment if r is not None] == ref.split()
    assert [h for _, _, h in result.alignment if h is not None] == hyp.split()
    for operation, r, h in result.alignment:
        changed = "insert" if r is None else "delete" if h is None else "substitute"
        assert operation == ("equal" if r == h else changed)
    operations = [operation for operation, _, _ in result.alignment]
    assert result.words == Counts(*map(operations.count, ("equal", "substitute", "delete", "insert")))


@given(pairs, pairs)
def test_counts_add_up(some, more):
    def totals(pairs):
        result = score([r for r, _ in pairs], [h for _, h in pairs], unit="words")
        return result.words, result.chars, Counts(hits=result.sentence_errors)

    for a, b, both in zip(totals(some), totals(more), totals(some + more), strict=True):
        assert a + b == both


@given(st.lists(st.text(max_size=20), max_size=6))
def test_a_text_against_itself_has_no_errors(same):
    result = score(same, same)
    assert (result.wer, result.cer, result.sentence_error_rate) == (0.0, 0.0, 0.0)


@given(pairs)
@settings(max_examples=30)
def test_every_score_is_json_and_text(pairs):
    result = score([r for r, _ in pairs], [h for _, h in pairs])
    json.dumps(result.to_dict(), allow_nan=False)
    assert summary(result, worst=3)


def test_empty_references():
    assert one("", "").words == Counts()
    assert one("", "").words.rate == 0.0
    assert one("", "um so").words == Counts(insertions=2)
    assert one("", "um so").chars == Counts(insertions=5)
    result = score({"a": ""}, {"a": "um"})
    assert result.wer == math.inf
    assert result.to_dict()["wer"] is None
    assert "inf%" in summary(result)
    assert score(["", "a b"], ["um", "a b"]).wer == 0.5  # counted over all, not averaged


def test_scoring_nothing_is_refused():
    result = score({}, {})
    assert (result.wer, result.cer, result.sentence_error_rate) == (0.0, 0.0, 0.0)
    assert score([], []) == result


def test_matching_is_by_id_and_missing_counts_as_deleted():
    result = score({"a": "one two", "b": "three", "c": "four"}, {"x": "no", "c": "four", "a": "one too"})
    assert [u.id for u in result.utterances] == ["a", "b", "c"]
    assert result.words == Counts(hits=2, substitutions=1, deletions=1)
    assert (result.missing, result.extra) == (("b",), ("x",))
    assert result.sentence_error_rate == pytest.approx(2 / 3)
    assert score({"a": "one two"}, {}).words == Counts(deletions=2)


@pytest.mark.parametrize("space", ["\t", "\n", "\u00a0", "\u3000", "  "])
def test_any_white_space_separates_words_and_counts_once(space):
    assert one(f" a{space}b", "a b ").words == Counts(hits=2)
    assert one(f" a{space}b", "a b ").chars == Counts(hits=3)


def test_nothing_is_normalized():
    assert one("It is.", "it is").words == Counts(substitutions=2)
    assert one("é", "e\u0301").chars == Counts(substitutions=1, insertions=1)


@pytest.mark.parametrize(
    ("refs", "hyps", "message"),
    [
        (["a"], ["a", "b"], "1 references but 2 hypotheses"),
        ({"a": "x"}, ["x"], "both map ids"),
        ("a b", "a c", "both map ids"),
        ({"a": "x"}, {"b": "x"}, "no hypothesis .* has the id"),
    ],
)
def test_texts_that_cannot_be_scored_are_refused(refs, hyps, message):
    with pytest.raises(AsrError, match=message):
        score(refs, hyps)


def test_the_text_of_the_summary():
    refs = {"a": "the cat sat down", "b": "yes", "c": "no", "d": "so be it"}
    hyps = {"a": "the hat sat", "c": "no no", "d": "so be it", "x": "?"}
    assert summary(score(refs, hyps), worst=2).splitlines() == [
        "WER  44.44%  4 errors in 9 words: 1 substituted, 2 deleted, 1 inserted",
        "CER  41.38%  12 errors in 29 characters: 1 substituted, 8 deleted, 3 inserted",
        "SER  75.00%  3 of 4 utterances have an error",
        "MER  40.00%  WIL 50.00%  normalization none, unit words, costs 1/1/1",
        "without a hypothesis, counted as deletions: 1 of 4",
        "without a reference, not counted: 1",
        "",
        "Utterances with most errors, (reference->hypothesis):",
        "a (2): the (cat->hat) sat (down->*)",
        "b (1): (yes->*)",
    ]
    assert "(*->no)" in summary(score(refs, hyps))
    assert "reference->" not in summary(score(refs, hyps), worst=0)


def test_importing_scoring_does_not_import_torch():
    code = "import asr.scoring, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ids_match_without_case_if_that_is_unambiguous():
    result = score({"Ann-1": "one", "bob": "two"}, {"ANN-1": "one", "bob": "two"})
    assert (result.words, result.missing, result.extra) == (Counts(hits=2), (), ())
    exact = score({"a": "one", "A": "two"}, {"A": "two", "a": "one"})
    assert exact.words == Counts(hits=2)
    unclear = score({"ab": "one", "c": "two"}, {"AB": "one", "Ab": "one", "c": "two"})
    assert (unclear.missing, unclear.extra) == (("ab",), ("AB", "Ab"))
    unclear = score({"ab": "one", "Ab": "two", "c": "x"}, {"AB": "one", "c": "x"})
    assert (unclear.missing, unclear.extra) == (("ab", "Ab"), ("AB",))


def test_broken_braces_name_their_side():
    for ref, hyp, side in (("a (b)", "{ a", "hypothesis"), ("{ a", "a", "reference")):
        with pytest.raises(AsrError, match=f"utterance '0': {side}: '"):
            score([ref], [hyp], costs="nist")
    assert score(["a (b)"], ["a /"], costs="nist").words.errors == 1
    assert score(["(uh) 中@国"], ["中国"], costs="nist", unit="mixed").tokens.deletions == 1
