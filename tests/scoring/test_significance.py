"""Intervals cover the true value at their level, and tests equal values computed by hand."""

import json

import numpy as np
import pytest

from asr.errors import AsrError
from asr.scoring import Counts, score
from asr.scoring.align import align
from asr.scoring.significance import compare, interval, mapsswe, segment_errors, sign_test, wilcoxon_test


def utterances(generator, n, rate, length=20):
    return [Counts(hits=length - e, substitutions=e) for e in generator.binomial(length, rate, n)]


def test_intervals_cover_the_true_rate_at_their_level():
    generator = np.random.default_rng(0)
    trials, covered = 200, 0
    for trial in range(trials):
        found = interval(utterances(generator, 80, 0.1), samples=400, level=0.9, seed=trial)
        covered += found.low <= 0.1 <= found.high
    assert abs(covered / trials - 0.9) < 0.065  # three standard deviations of 200 trials


def test_speakers_who_differ_need_blocks():
    generator = np.random.default_rng(1)
    trials, covered = 100, {"utterances": 0, "speakers": 0}
    names = [f"s{i // 20}" for i in range(800)]
    for trial in range(trials):
        rates = generator.choice([0.02, 0.18], 40)  # one for each of forty speakers; 0.1 on average
        counts = [c for rate in rates for c in utterances(generator, 20, rate)]
        for kind, blocks in (("utterances", None), ("speakers", names)):
            found = interval(counts, blocks, samples=300, level=0.9, seed=trial)
            covered[kind] += found.low <= 0.1 <= found.high
    assert abs(covered["speakers"] / trials - 0.9) < 0.09
    assert covered["utterances"] / trials < 0.7


def test_an_interval_depends_on_its_seed_and_works_for_a_million_utterances():
    counts = utterances(np.random.default_rng(2), 1000, 0.1) * 1000
    found = interval(counts, seed=1)
    assert found == interval(counts, seed=1)
    assert found != interval(counts, seed=2)
    assert found.low < found.rate < found.high
    assert found.high - found.low < 0.0005


def edits(ref, hyp):
    return align(ref.split(), hyp.split()).edits


def test_segments_are_separated_by_two_words_that_both_systems_have_right():
    ref = "a b c d e f g"
    assert segment_errors(edits(ref, "a X c d e f g"), edits(ref, "a b c d Y f g")) == [(1, 0), (0, 1)]
    assert segment_errors(edits(ref, "a X c d e f g"), edits(ref, "a b c Y e f g")) == [(1, 1)]
    assert segment_errors(edits(ref, "a X c d e f g"), edits(ref, "a b c N d e f g")) == [(1, 1)]
    assert segment_errors(edits(ref, "X b c d e f g"), edits(ref, "a b c d e f g Y")) == [(1, 0), (0, 1)]
    assert segment_errors(edits(ref, ref), edits(ref, ref)) == []
    assert segment_errors(edits("", "x"), edits("", "")) == [(1, 0)]


def test_values_worked_out_by_hand():
    found = mapsswe([(1, 0), (2, 0), (0, 1), (1, 1)])  # differences 1, 2, -1, 0: mean 0.5, variance 5/3
    assert found.statistic == pytest.approx(0.5 / np.sqrt(5 / 3 / 4))
    assert found.p == pytest.approx(0.4386, abs=1e-4)
    assert sign_test([-1, -2, -1, 0, 0.5]).p == pytest.approx(0.625)  # 3 of 4: 2 (4 + 1) / 16
    assert wilcoxon_test([-1, -2, -3, -4, -5]).p == pytest.approx(2 / 2**5)
    for test in (mapsswe([]), mapsswe([(1, 0)]), sign_test([]), wilcoxon_test([0, 0])):
        assert test.p == 1.0


def two_systems(rate_a, rate_b, n=60):
    generator = np.random.default_rng(4)
    refs = {f"s{i % 6}-{i}": " ".join(map(str, range(20))) for i in range(n)}

    def recognized(rate):
        return {
            id: " ".join("X" if generator.random() < rate else word for word in text.split())
            for id, text in refs.items()
        }

    return score(refs, recognized(rate_a)), score(refs, recognized(rate_b))


def test_a_better_system_is_found_better_and_an_equal_one_is_not():
    a, b = two_systems(0.05, 0.2)
    found = compare(a, b, by={u.id: u.id.split("-")[0] for u in a.utterances})
    assert found.difference.high < 0
    assert found.probability_first_better > 0.99
    assert max(found.mapsswe.p, found.sign.p, found.wilcoxon.p) < 0.05
    assert compare(b, a).probability_first_better < 0.01
    same = compare(a, a)
    assert (same.difference.rate, same.probability_first_better, same.mapsswe.p) == (0.0, 0.5, 1.0)
    json.dumps(found.to_dict(), allow_nan=False)


def test_systems_that_cannot_be_compared_are_refused():
    a, b = score({"a": "x", "b": "y"}, {"a": "x"}), score({"a": "x", "c": "y"}, {"a": "x"})
    with pytest.raises(AsrError, match="for one system only"):
        compare(a, b)
    with pytest.raises(AsrError, match="no block"):
        compare(a, a, by={"a": "s"})
    with pytest.raises(AsrError, match="too few"):
        interval([Counts(hits=1)])
    with pytest.raises(AsrError, match="no reference has a word"):
        interval([Counts(insertions=1), Counts()])
    with pytest.raises(AsrError, match="level"):
        interval([Counts(hits=1)] * 2, level=95)
    with pytest.raises(AsrError, match="one block for each"):
        interval([Counts(hits=1)] * 2, ["a"])
