"""Alignments equal jiwer's, sclite's counts, and the best of all alignments."""

import json
import random
from functools import cache
from itertools import product
from pathlib import Path

import jiwer
import pytest

from asr.errors import AsrError
from asr.scoring.align import NIST, UNIT, Costs, Counts, align, count
from asr.scoring.lattice import best_path, lattice

# [reference, hypothesis, hits, substitutions, deletions, insertions]: random words, counted by sclite -D.
SCLITE = json.loads((Path(__file__).parent / "data" / "sclite.json").read_text())


def numbers(counts):
    return [counts.hits, counts.substitutions, counts.deletions, counts.insertions]


def random_pair(draw):
    words = ["a", "b", "c", "d", "e"][: draw.randint(1, 5)]
    return [[draw.choice(words) for _ in range(draw.randint(0, 9))] for _ in range(2)]


def check_jiwer(pairs):
    draw = random.Random(1)
    for _ in range(pairs):
        ref, hyp = random_pair(draw)
        found = jiwer.process_words(" ".join(ref), " ".join(hyp))
        expected = [found.hits, found.substitutions, found.deletions, found.insertions]
        assert numbers(count(ref, hyp)) == numbers(align(ref, hyp).counts) == expected


def test_unit_costs_give_the_counts_of_jiwer():
    check_jiwer(2_000)


@pytest.mark.slow
def test_unit_costs_give_the_counts_of_jiwer_on_100_000_pairs():
    check_jiwer(100_000)


def test_nist_costs_give_the_counts_of_sclite():
    for ref, hyp, *expected in SCLITE["plain"]:
        found = align(ref.split(), hyp.split(), NIST)
        assert numbers(found.counts) == expected, (ref, hyp)
        # The lattice is a second, independent way to the same alignment.
        assert align(lattice(ref), lattice(hyp), NIST).edits == found.edits


def test_alternatives_and_optional_words_give_the_counts_of_sclite():
    for ref, hyp, *expected in SCLITE["marked"]:
        assert numbers(align(lattice(ref), lattice(hyp), NIST).counts) == expected, (ref, hyp)


def least_cost(ref, hyp, costs):
    if not ref or not hyp:
        return len(hyp) * costs.insertion + len(ref) * costs.deletion
    return min(
        least_cost(ref[1:], hyp[1:], costs) + (ref[0] != hyp[0]) * costs.substitution,
        least_cost(ref[1:], hyp, costs) + costs.deletion,
        least_cost(ref, hyp[1:], costs) + costs.insertion,
    )


@pytest.mark.parametrize("costs", [UNIT, NIST, Costs(5, 1, 2), Costs(2, 7, 1)])
def test_no_alignment_costs_less(costs):
    draw = random.Random(2)
    for _ in range(150):
        ref, hyp = (side[:5] for side in random_pair(draw))
        found = align(ref, hyp, costs)
        _, s, d, i = numbers(found.counts)
        assert s * costs.substitution + d * costs.deletion + i * costs.insertion == least_cost(
            ref, hyp, costs
        )
        assert [r for _, r, _ in found.edits if r is not None] == ref
        assert [h for _, _, h in found.edits if h is not None] == hyp


def test_the_best_alternative_is_the_best_of_all_spelled_out():
    parts = (["a", "b c", ""], ["c"], ["a a", "d"])
    text = "{ a / b c / @ } c { a a / d }"
    draw = random.Random(3)
    for _ in range(100):
        hyp = [draw.choice("abcd") for _ in range(draw.randint(0, 6))]
        found = align(lattice(text), hyp, NIST).counts
        cost = 4 * found.substitutions + 3 * (found.deletions + found.insertions)
        assert cost == min(least_cost(" ".join(p).split(), hyp, NIST) for p in product(*parts))


def test_an_optional_word_left_out_is_a_hit():
    edits = align(lattice("so (uh) yes"), ["so", "yes"], NIST).edits
    assert edits == [("equal", "so", "so"), ("equal", "(uh)", None), ("equal", "yes", "yes")]
    assert align(lattice("so (uh) yes"), ["so", "uh", "yes"], NIST).counts == Counts(hits=3)
    assert align(["so", "(uh)", "yes"], ["so", "yes"], NIST).counts == Counts(hits=2, deletions=1)


def test_a_slash_outside_of_braces_belongs_to_its_word():
    assert align(lattice("24/7 {a/b}"), ["24/7", "b"], NIST).counts == Counts(hits=2)
    assert align(lattice("a / (b)"), ["a", "/"], NIST).counts == Counts(hits=3)


def test_a_space_is_left_out_with_the_optional_words_before_it():
    def errors(ref, hyp):
        return align(lattice(ref, tuple, spaces=True), tuple(hyp), NIST).counts.errors

    for hyp in ("no", "uh no", "er no", "uh er no"):
        assert errors("(uh) (er) no", hyp) == errors("{ (uh) (er) / @ } no", hyp) == 0, hyp
    assert (
        errors("{ (u) / ab } no", "no")
        == errors("{ (u) / ab } no", "ab no")
        == errors("a (uh) b", "a b")
        == 0
    )
    assert errors("{ (u) / ab } no", "abno") == errors("a (uh) b", "ab") == errors("a b (uh)", "ab") == 1


def test_an_at_sign_in_a_word_is_a_character():
    counts = align(lattice("(uh) a@b", tuple), tuple("ab"), NIST).counts
    assert (counts.errors, counts.deletions) == (1, 1)
    assert align(lattice("(uh) a@b", tuple), tuple("a@b"), NIST).counts.errors == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ a / b", "'{' without '}'"),
        ("{ a", "'{' without '}'"),
        ("{", "'{' without '}'"),
        ("a } b", "'}' without '{'"),
        ("{ a / }", "empty alternative"),
        ("{ }", "empty alternative"),
        ("{ a " * 60 + "} " * 60, "nested deeper"),
    ],
)
def test_broken_braces(text, message):
    with pytest.raises(AsrError, match=message) as error:
        lattice(text)
    assert "\n" not in str(error.value)


def test_texts_that_cannot_be_aligned_are_refused():
    with pytest.raises(AsrError, match="positive"):
        align(["a"], ["b"], Costs(1, 0, 1))
    with pytest.raises(AsrError, match="too long"):
        align(["a"] * 30_000, ["b"] * 30_000, NIST)


def test_long_utterances_with_few_errors_are_fast():
    ref = [str(i) for i in range(20_000)]
    hyp = [*ref[:500], "new", *ref[500:9_000], *ref[9_001:]]
    assert align(ref, hyp, NIST).counts == Counts(hits=19_999, deletions=1, insertions=1)


def spelled_out(draw, depth=0):
    """A random marked text."""
    parts = []
    for _ in range(draw.randint(min(depth, 1), 4)):
        kind = draw.random()
        if kind < 0.3 and depth < 2:
            choices = [spelled_out(draw, depth + 1) for _ in range(draw.randint(1, 3))]
            parts.append("{ " + " / ".join(choices) + " }")
        else:
            parts.append("@" if kind < 0.4 else "(a)" if kind < 0.5 else draw.choice("abc"))
    return " ".join(parts)


def paths(side):
    """Every sequence of words through a lattice."""
    found = {0: [[]]}
    for i in range(1, len(side.words)):
        found[i] = [[*path, side.words[i]] for arc in side.before[i] for path in found[arc]]
    return [path for arc in side.ends for path in found[arc]]


def best_cost(refs, hyps):
    """The least cost of two sequences of words with NIST costs, `@` and optional words, in thousandths."""

    @cache
    def cost(i, j):
        if i == j == 0:
            return 0
        single = [{"": 1}.get(side[k - 1], 2000 if side[k - 1][:1] == "(" else 3000) if k else None
                  for side, k in ((refs, i), (hyps, j))]  # fmt: skip
        options = [cost(i - 1, j) + single[0]] if i else []
        options += [cost(i, j - 1) + single[1]] if j else []
        if i and j:
            same = refs[i - 1].strip("()") == hyps[j - 1].strip("()")
            options.append(cost(i - 1, j - 1) + (4000 if not same else 1000 / 3 if not refs[i - 1] else 0))
        return min(options)

    return cost(len(refs), len(hyps))


def test_lattices_on_both_sides_have_the_best_of_all_paths():
    draw = random.Random(5)
    for _ in range(150):
        ref, hyp = lattice(spelled_out(draw)), lattice(spelled_out(draw))
        if len(paths(ref)) * len(paths(hyp)) > 60:
            continue
        pairs = best_path(ref, hyp, *NIST)
        left, right = ([w for w in side if w] for side in zip(*pairs, strict=True)) if pairs else ([], [])
        # The pairs do not name `@`; adding it changes the cost by some thousandths.
        assert abs(pair_cost(pairs) - min(best_cost(r, h) for r, h in product(paths(ref), paths(hyp)))) < 60
        for words, side in ((left, ref), (right, hyp)):
            assert words in [[w for w in path if w] for path in paths(side)]


def pair_cost(pairs):
    cost = 0
    for left, right in pairs:
        if left and right:
            cost += 4000 * (left.strip("()") != right.strip("()"))
        else:
            cost += 2000 if (left or right)[0] == "(" else 3000
    return cost


def test_a_long_utterance_with_an_optional_word_is_aligned():
    ref = " ".join(str(i) for i in range(9_000))
    hyp = ref.replace(" 4000 ", " x ").replace(" 7000 ", " ").split()
    found = align(lattice(ref.replace(" 5000 ", " 5000 (uh) ")), hyp, NIST)
    assert found.counts == Counts(hits=8_999, substitutions=1, deletions=1)
