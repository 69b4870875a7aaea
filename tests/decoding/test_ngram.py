"""Word n-gram models: estimation, probabilities, files."""

import gzip
import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.ngram import estimate_ngram, load_ngram, read_arpa, train_ngram, write_arpa
from asr.errors import AsrError

LETTERS = st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=6), min_size=2, max_size=30)
EVERYTHING = (1, 1, 1, 1)


@lru_cache
def sentences(seed=0, count=400):
    """Random sentences in which each word depends on the one before."""
    rng = np.random.default_rng(seed)
    names = np.array([a + b for a in "abcdef" for b in "xyz"])
    lines = []
    for _ in range(count):
        words = [int(rng.integers(18))]
        for _ in range(int(rng.integers(1, 8))):
            words.append((words[-1] * 5 + int(rng.geometric(0.4))) % 18)
        lines.append(" ".join(names[words]))
    return lines


def histories(model):
    return np.arange(model.levels[model.order] if model.order > 1 else 1)


def every_probability(model):
    """P(w | history) of all words, the end and the unknown word: (histories, words)."""
    known, words = histories(model), np.arange(model.size - 1)
    found = model.probability(np.repeat(known, len(words)), np.tile(words, len(known)))
    return found.reshape(len(known), len(words))


@settings(max_examples=25)
@given(LETTERS, st.integers(1, 4), st.sampled_from([0.0, 1e-3]), st.sampled_from([EVERYTHING, (1, 3, 1, 1)]))
def test_probabilities_sum_to_one_after_every_history(words, order, prune, counts):
    lines = [" ".join(line) for line in [*words, "a", "b"]]
    model = estimate_ngram(lines, order, 5, counts, prune)
    np.testing.assert_allclose(every_probability(model).sum(1), 1, atol=1e-9)


@settings(max_examples=25)
@given(LETTERS, st.integers(1, 4), st.integers(0, 1000))
def test_the_probability_of_a_range_of_words_is_their_sum(words, order, seed):
    model = estimate_ngram([" ".join(line) for line in [*words, "a", "b"]], order, 5, EVERYTHING)
    known, rng = histories(model), np.random.default_rng(seed)
    first, last = np.sort(rng.integers(0, len(model.words) + 1, (2, len(known))), axis=0)
    expected = [p[a:b].sum() for p, a, b in zip(every_probability(model), first, last, strict=True)]
    np.testing.assert_allclose(model.range_probability(known, first, last), expected, atol=1e-12)


def test_kneser_ney_by_hand():
    # Two sentences "a b" and one "a c". Discounts cannot be estimated: 0.5, 1 and 1.5 for counts 1, 2 and 3.
    model = estimate_ngram(["a b", "a b", "a c"], 2, 10, EVERYTHING)
    # Unigrams: a follows <s>; b and c follow a; </s> follows b and c. Counts 1, 1, 1, 2 of 5; five kinds.
    shared = (3 * 0.5 + 1) / 5 / 5
    unigram = {"a": 0.5 / 5 + shared, "b": 0.5 / 5 + shared, "c": 0.5 / 5 + shared, "</s>": 1 / 5 + shared}
    # After a: b twice and c once. What the discounts take away is shared as the unigrams are.
    rest = (1 + 0.5) / 3
    b = (2 - 1) / 3 + rest * unigram["b"]
    # After <s>: a three times. After b: </s> twice.
    a = 1.5 / 3 + 0.5 * unigram["a"]
    end = (2 - 1) / 2 + 0.5 * unigram["</s>"]
    assert model.log_probs(["a", "b"]) == pytest.approx(np.log([a, b, end]))
    unseen = model.log_probs(["c", "b"])  # neither <s> c nor c b is in the text
    assert unseen[:2] == pytest.approx(np.log([0.5 * unigram["c"], 0.5 * unigram["b"]]))
    assert np.exp(model.log_probs(["zz"]))[0] == pytest.approx(0.5 * shared)


def test_longer_histories_predict_better_and_pruning_costs_a_little():
    train, test = sentences(), sentences(seed=1, count=60)
    perplexity = [estimate_ngram(train, n, 100, EVERYTHING).perplexity(test).perplexity for n in (1, 2)]
    assert perplexity[1] < 0.6 * perplexity[0]
    full = estimate_ngram(train, 3, 100, EVERYTHING)
    sizes, costs = [len(full)], [full.perplexity(train).perplexity]
    for threshold in (1e-4, 1e-3):
        pruned = estimate_ngram(train, 3, 100, EVERYTHING, threshold)
        sizes.append(len(pruned))
        costs.append(pruned.perplexity(train).perplexity)
    assert sizes[0] > sizes[1] > sizes[2] and costs[0] < costs[1] < costs[2] < 3 * costs[0]


def test_entropy_pruning_removes_the_least_useful_n_grams():
    # After x, y is as probable as everywhere; after p, q is far more probable than elsewhere.
    lines = ["p q"] * 20 + ["x y", "z y", "w y", "v y", "y x", "q z"] * 4
    full, pruned = (estimate_ngram(lines, 2, 20, EVERYTHING, prune) for prune in (0.0, 0.01))
    assert len(pruned) < len(full)
    before, after = (np.exp(m.log_probs(["p", "q"]))[1] for m in (full, pruned))
    assert after == pytest.approx(before)


def test_perplexity_and_unknown_words():
    model = estimate_ngram(["a b", "b a", "a a b c"] * 3, 2, 2, EVERYTHING)
    found = model.perplexity(["a z", "", "b"])
    assert (found.words, found.unknown, found.unknown_rate) == (3, 1, pytest.approx(1 / 3))
    first, second = model.log_probs(["a", "z"]), model.log_probs(["b"])
    known = [first[0], first[2], *second]
    assert found.perplexity == pytest.approx(math.exp(-np.mean(known)))
    assert found.perplexity_with_unknown == pytest.approx(math.exp(-np.mean([*known, first[1]])))
    with pytest.raises(AsrError, match="no text"):
        model.perplexity([])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["m.arpa", "m.arpa.gz", "m.safetensors"])
def test_files_give_the_same_model(order, name, tmp_path):
    model = estimate_ngram(sentences(), order, 15, (1, 1, 1, 2))
    path = tmp_path / name
    model.save(path) if name.endswith("safetensors") else write_arpa(model, path)
    found = load_ngram(path)
    assert found.words == model.words and found.levels == model.levels
    assert np.array_equal(found.parent, model.parent) and np.array_equal(found.word, model.word)
    for line in sentences(seed=2, count=5):
        assert found.log_probs(line.split()) == pytest.approx(model.log_probs(line.split()), abs=0.02)


def test_an_arpa_file_of_another_program(tmp_path):
    text = """made by hand

\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<UNK>
-99\t<s>\t-0.3
-0.6\t</s>
-0.5\tb\t-0.2
-0.4 a -0.1

\\2-grams:
-0.2\t<s> a
-0.3\ta b
-0.1\tb </s>

\\end\\
"""
    path = tmp_path / "x.arpa.gz"
    path.write_bytes(gzip.compress(text.encode()))
    model = read_arpa(path)
    tens = [-0.2, -0.3, -0.1]
    assert model.log_probs(["a", "b"]) == pytest.approx(np.array(tens) * math.log(10))
    tens = [
        -0.3 - 0.5,
        -0.2 - 0.4,
        -0.1 - 1.0,
        -0.6,
    ]  # all backed off
    assert model.log_probs(["b", "a", "zz"]) == pytest.approx(np.array(tens) * math.log(10))


@pytest.mark.parametrize(
    "change, message",
    [
        (("-0.3\ta b", "-0.3\ta q"), "'q' is in a 2-gram"),
        (("-0.3\ta b", "x\ta b"), "line 12: not a 2-gram"),
        (("-0.3\ta b", "-0.3\ta a b b"), "line 12: not a 2-gram"),
        (("\\end\\", ""), "cut off"),
        (("</s>", "end"), "no <s> or no </s>"),
        (("-0.3\ta b", "-0.3\ta b\n-0.4\ta b"), "duplicate 2-gram"),
    ],
)
def test_a_broken_arpa_file_is_refused(change, message, tmp_path):
    lines = [
        "\\data\\", "ngram 1=5", "ngram 2=1", "\\1-grams:", "-1\t<unk>", "-99\t<s>\t0", "-1\t</s>",
        "-1\ta\t0", "-1\tb\t0", "\\2-grams:", "", "-0.3\ta b", "\\end\\", "",
    ]  # fmt: skip
    path = tmp_path / "x.arpa"
    path.write_text("\n".join(lines).replace(*change))
    with pytest.raises(AsrError, match=message):
        load_ngram(path)


def test_other_files_and_settings_are_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing of the kind")
    (tmp_path / "x.arpa").write_text("a text")
    for name, message in (
        ("x.safetensors", "not a word n-gram model"), ("y.safetensors", "cannot read"),
        ("x.arpa", "not an ARPA file"), ("y.arpa", "cannot read"),
    ):  # fmt: skip
        with pytest.raises(AsrError, match=message):
            load_ngram(tmp_path / name)
    with pytest.raises(AsrError, match="order 5"):
        estimate_ngram(["a b"], 5)
    with pytest.raises(AsrError, match="fewer than two different words"):
        estimate_ngram(["a a"], 2)
    with pytest.raises(AsrError, match="no word of the text occurs 2 times"):
        estimate_ngram(["a b", "c"], 2, minimum_counts=(2, 1))
    with pytest.raises(AsrError, match="minimum_counts has 3 numbers, but the order is 4"):
        estimate_ngram(["a b c d e"] * 3, 4, minimum_counts=(1, 1, 2))


def test_damaged_gzip_files_are_refused(tmp_path):
    data = bytearray(gzip.compress(b"some words " * 500))
    data[12:] = b"\xff" * len(data[12:])
    for name, read in (
        ("x.arpa.gz", load_ngram),
        ("x.txt.gz", lambda path: train_ngram([path], tmp_path / "m.arpa")),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AsrError, match=f"{name}: cannot read"):
            read(tmp_path / name)


def test_names_of_special_words_in_a_text_are_unknown_words(tmp_path):
    model = estimate_ngram(["<s> a <unk> b </s>", "a <UNK> b"] * 3, 2, minimum_counts=(1, 1))
    assert model.words == ("a", "b")
    write_arpa(model, tmp_path / "m.arpa")
    assert load_ngram(tmp_path / "m.arpa").words == model.words


def test_training_from_files_holds_sentences_out(tmp_path):
    text = tmp_path / "text.txt.gz"
    lines = ["held out words", *["some  other words"] * 49, *["more words"] * 10]
    text.write_bytes(gzip.compress("\n".join(lines).encode()))
    model, held_out = train_ngram([text], tmp_path / "m.safetensors", 2)
    assert model.words == ("more", "other", "some", "words")
    assert (held_out.words, held_out.unknown) == (5, 2)  # sentences 1 and 51
    assert load_ngram(tmp_path / "m.safetensors").words == model.words
    with pytest.raises(AsrError, match="cannot read the text"):
        train_ngram([tmp_path / "none.txt"], tmp_path / "m")
