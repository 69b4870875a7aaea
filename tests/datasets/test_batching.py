"""The plan of an epoch: each example once, bounded batches, the heaviest first, a function of the seed."""

import itertools
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from asr.config import AugmentConfig, DataConfig, JoinConfig
from asr.datasets.batching import SILENCE_SECONDS, EpochPlan
from asr.datasets.corpus import Corpus
from asr.datasets.manifest import Utterance, write_manifest


def utterances(durations, speakers=3):
    return [
        Utterance(f"u{i}", Path(f"u{i}.wav"), f"text {i}", duration, speaker=f"s{i % speakers}")
        for i, duration in enumerate(durations)
    ]


def spread(count, seed=0, longest=8.0):
    return utterances(np.random.default_rng(seed).uniform(0.2, longest, count).tolist())


def examples(plan):
    return [example for index in range(len(plan)) for example in plan[index]]


def seconds(plan, example):
    """How long the plan takes the example to be, at most."""
    return plan.seconds[example.key[-1]]


def data(**settings):
    return DataConfig(**settings)


JOIN = JoinConfig(per_epoch=40, min_items=2, max_items=4, min_pause=0.1, max_pause=0.5)
BUSY = AugmentConfig(speeds=(0.9, 1.0, 1.1), edge_silence=0.3, silence=5, join=JOIN)
AUGMENTS = st.builds(
    AugmentConfig,
    speeds=st.sampled_from([(1.0,), (0.8, 1.0, 1.25)]),
    edge_silence=st.sampled_from([0.0, 0.5]),
    silence=st.integers(0, 4),
    join=st.builds(JoinConfig, per_epoch=st.integers(0, 20), max_seconds=st.sampled_from([3.0, 20.0, 1e3])),
)


@settings(max_examples=100)
@given(
    st.lists(st.floats(0.05, 30), min_size=1, max_size=40),
    st.builds(DataConfig, batch_seconds=st.floats(0.5, 100), max_batch=st.integers(1, 20)),
    AUGMENTS,
    st.integers(0, 2**40),
    st.integers(0, 1000),
)
def test_each_example_is_in_one_batch_and_the_heaviest_is_first(durations, limits, augment, seed, epoch):
    spoken = utterances(durations)
    plan = EpochPlan(Corpus.of(spoken), limits, augment, seed, epoch)
    everything = examples(plan)
    assert all(plan[i] for i in range(len(plan)))

    singles = [e.parts[0] for e in everything if len(e.parts) == 1 and e.key[-1] < len(spoken)]
    assert sorted(singles) == list(range(len(spoken)))
    assert sum(not e.parts for e in everything) == augment.silence
    assert len(everything) == len(spoken) + augment.join.per_epoch + augment.silence == len(plan.seconds)
    assert len({e.key for e in everything}) == len(everything)

    padded = []
    for index in range(len(plan)):
        lengths = [float(seconds(plan, e)) for e in plan[index]]
        padded.append(len(lengths) * max(lengths))
        assert len(lengths) <= limits.max_batch
        assert len(lengths) == 1 or padded[-1] <= limits.batch_seconds
    assert padded[0] == pytest.approx(max(padded), rel=1e-6)


def test_the_first_batch_has_the_most_padded_seconds_though_not_the_longest_row():
    spoken = utterances([7.0] + [3.0] * 100)
    for seed in range(20):
        plan = EpochPlan(Corpus.of(spoken), data(batch_seconds=10), AugmentConfig(), seed, epoch=0)
        assert [spoken[e.parts[0]].duration for e in plan[0]] == [3.0] * 3


def test_the_plan_is_a_function_of_seed_and_epoch():
    spoken = spread(60)

    def plan(seed, epoch):
        return [EpochPlan(Corpus.of(spoken), data(batch_seconds=20), BUSY, seed, epoch)[i] for i in range(10)]

    first = plan(3, 5)
    np.random.default_rng().random(7)
    np.random.seed(1)
    assert plan(3, 5) == first
    for other in (plan(3, 6), plan(4, 5), plan(5, 3)):
        assert other != first
        assert [[e.parts for e in batch] for batch in other] != [[e.parts for e in batch] for batch in first]


def test_a_batch_is_the_same_each_time():
    plan = EpochPlan(Corpus.of(spread(50)), data(batch_seconds=20), BUSY, 1, 2)
    forwards = [plan[i] for i in range(len(plan))]
    assert [plan[i] for i in reversed(range(len(plan)))] == forwards[::-1]


def test_neighbors_and_order_change_from_epoch_to_epoch():
    spoken = spread(400)
    batches, longest = [], []
    for epoch in (0, 1):
        plan = EpochPlan(Corpus.of(spoken), data(batch_seconds=30), AugmentConfig(), 0, epoch)
        batches.append([frozenset(e.parts[0] for e in plan[i]) for i in range(len(plan))])
        longest.append([max(seconds(plan, e) for e in plan[i]) for i in range(1, len(plan))])
    assert len(set(batches[0]) & set(batches[1])) < len(batches[0]) / 4
    for lengths in longest:  # after the first batch, long and short ones come as it happens
        falls = sum(a > b for a, b in itertools.pairwise(lengths)) / len(lengths)
        assert 0.3 < falls < 0.7


def test_there_is_little_padding():
    plan = EpochPlan(Corpus.of(spread(3000, longest=15)), data(batch_seconds=120), AugmentConfig(), 0, 0)
    lengths = [[seconds(plan, e) for e in plan[i]] for i in range(len(plan))]
    padded = sum(len(batch) * max(batch) for batch in lengths)
    assert padded < 1.08 * sum(map(sum, lengths))
    assert np.mean([len(batch) * max(batch) for batch in lengths]) > 0.85 * 120  # and batches are full


def test_strings_are_of_one_speaker_with_the_counts_and_pauses_asked_for():
    spoken = spread(90)
    augment = AugmentConfig(edge_silence=0.2, join=JOIN.model_copy(update={"per_epoch": 600}))
    strings = [
        e
        for e in examples(EpochPlan(Corpus.of(spoken), data(), augment, 0, 0))
        if e.key[-1] >= len(spoken)  # after the single ones
    ]
    assert len(strings) == 600
    for string in strings:
        assert len({spoken[i].speaker for i in string.parts}) == 1
        assert len(string.pauses) == len(string.parts) + 1
        assert all(0 <= pause <= 0.2 for pause in (string.pauses[0], string.pauses[-1]))
        assert all(0.1 <= pause <= 0.5 for pause in string.pauses[1:-1])
    counts = Counter(len(string.parts) for string in strings)
    assert set(counts) == {2, 3, 4} and min(counts.values()) > 60
    assert len({string.parts for string in strings}) > 550
    assert {i for string in strings for i in string.parts} == set(range(90))
    middle = [pause for string in strings for pause in string.pauses[1:-1]]
    assert min(middle) < 0.12 and max(middle) > 0.48


def test_strings_stop_before_their_recordings_grow_too_long():
    spoken = utterances([1.0] * 30 + [9.0] * 3, speakers=1)
    join = JoinConfig(per_epoch=300, min_items=3, max_items=6, max_seconds=5.0)
    plan = EpochPlan(Corpus.of(spoken), data(), AugmentConfig(join=join), 0, 0)
    strings = [e.parts for e in examples(plan) if e.key[-1] >= len(spoken)]
    totals = [sum(spoken[i].duration for i in parts) for parts in strings]
    assert all(total <= 5 or len(parts) == 1 for total, parts in zip(totals, strings, strict=True))
    assert {len(parts) for parts in strings} == {1, 2, 3, 4, 5}


def test_speakers_are_chosen_in_proportion_to_their_recordings():
    spoken = [
        Utterance(f"u{i}", Path("a.wav"), "a", 1.0, speaker="often" if i < 30 else "seldom")
        for i in range(40)
    ]
    augment = AugmentConfig(join=JoinConfig(per_epoch=2000))
    strings = [
        e.parts for e in examples(EpochPlan(Corpus.of(spoken), data(), augment, 0, 0)) if e.key[-1] >= 40
    ]
    assert sum(parts[0] < 30 for parts in strings) / 2000 == pytest.approx(0.75, abs=0.05)


def test_neighbors_are_those_that_follow_in_the_manifest():
    spoken = spread(60)  # of three speakers, who take turns
    join = JoinConfig(order="neighbors", per_epoch=900, min_items=2, max_items=5, max_seconds=1e3)
    plan = EpochPlan(Corpus.of(spoken), data(), AugmentConfig(join=join), 0, 0)
    strings = [e.parts for e in examples(plan) if e.key[-1] >= 60]
    assert all(b == a + 3 for parts in strings for a, b in itertools.pairwise(parts))
    counts = Counter(map(len, strings))
    assert counts.keys() == {2, 3, 4, 5} and counts[2] > counts[5] > 60
    assert {i for parts in strings for i in parts} == set(range(60))


def test_a_speaker_with_few_recordings_gives_short_strings_of_neighbors():
    spoken = utterances([1.0] * 10, speakers=10)
    spoken += [Utterance(f"v{i}", Path("a.wav"), "a", 1.0, speaker="two") for i in range(2)]
    join = JoinConfig(order="neighbors", per_epoch=200, min_items=3, max_items=4)
    plan = EpochPlan(Corpus.of(spoken), data(), AugmentConfig(join=join), 0, 0)
    strings = {e.parts for e in examples(plan) if e.key[-1] >= 12}
    assert strings == {(i,) for i in range(10)} | {(10, 11)}


def test_speeds_are_drawn_in_each_epoch_and_count_in_the_seconds():
    spoken = utterances([2.0] * 300)
    augment = AugmentConfig(speeds=(0.8, 1.25))
    drawn = []
    for epoch in (0, 1):
        plan = EpochPlan(Corpus.of(spoken), data(), augment, 0, epoch)
        assert all(seconds(plan, e) == pytest.approx(2.0 / e.speed) for e in examples(plan))
        drawn.append({e.parts[0]: e.speed for e in examples(plan)})
        assert sum(speed == 0.8 for speed in drawn[-1].values()) == pytest.approx(150, abs=45)
    assert drawn[0] != drawn[1]


def test_the_planned_seconds_are_an_upper_limit():
    spoken = spread(40)
    plan = EpochPlan(Corpus.of(spoken), data(), BUSY, 0, 0)
    for example in examples(plan):
        asked = sum(spoken[i].duration for i in example.parts) / example.speed + sum(example.pauses)
        assert asked <= seconds(plan, example) + 1e-5


def test_silence_has_no_parts():
    plan = EpochPlan(Corpus.of(spread(3)), data(), AugmentConfig(silence=200), 0, 0)
    silences = [e for e in examples(plan) if not e.parts]
    low, high = SILENCE_SECONDS
    assert len(silences) == 200 and all(low <= e.pauses[0] <= high and len(e.pauses) == 1 for e in silences)
    assert len({e.pauses for e in silences}) == 200


def test_an_empty_corpus_has_no_batches():
    plan = EpochPlan(Corpus.of([]), data(), AugmentConfig(), 0, 0)
    assert len(plan) == 0


def test_without_augmentation_an_example_is_its_recording():
    plan = EpochPlan(Corpus.of(spread(20)), data(), AugmentConfig(), 0, 0)
    assert all(e.pauses == (0.0, 0.0) and e.speed == 1.0 for e in examples(plan))


def test_plans_of_many_utterances_are_small_and_quick():
    """300,000 utterances with 15,000 strings: 60 bytes each while the plan is made, 12 that stay."""
    count, random = 300_000, np.random.default_rng(0)
    durations = random.uniform(1, 20, count).astype(np.float32)
    speakers = random.integers(1000, size=count, dtype=np.int32)
    corpus = Corpus(durations, speakers, lambda index: pytest.fail("no utterance is needed"), "simulated")
    join = JoinConfig(order="neighbors", per_epoch=count // 20, max_seconds=60)
    augment = AugmentConfig(speeds=(0.9, 1.0, 1.1), join=join)
    EpochPlan(corpus, data(first=1), augment, 0, 0)
    tracemalloc.start()
    plan = EpochPlan(corpus, data(batch_seconds=600), augment, 0, 1)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 12 * count and peak < 60 * count
    places = random.integers(len(plan), size=50).tolist()
    assert all(len(plan[i]) * max(seconds(plan, e) for e in plan[i]) <= 600 for i in places)


def weighted(tmp_path, sizes=(3, 4, 10), weights=(2, 0.5, 1.5)):
    """A corpus of several manifests, and the settings with their weights."""
    paths = [tmp_path / f"{i}.jsonl" for i in range(len(sizes))]
    for i, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        rows = [Utterance(f"{i}-{j}", Path("a.wav"), "a", 1.0 + i + 0.01 * j) for j in range(size)]
        write_manifest(path, rows)
    settings = DataConfig(train=tuple(paths), weights=weights)
    return Corpus.read(settings, "train"), settings


def taken(plan):
    return Counter(part for example in examples(plan) for part in example.parts)


def test_weights_are_passes_over_each_manifest(tmp_path):
    corpus, settings = weighted(tmp_path)
    chosen = []
    for epoch in range(30):
        plan = EpochPlan(corpus, settings, AugmentConfig(silence=2), seed=0, epoch=epoch)
        counts = [taken(plan)[i] for i in range(17)]
        assert counts[:3] == [2, 2, 2]
        assert sum(counts[3:7]) == 2 and max(counts[3:7]) == 1
        assert sum(counts[7:]) == 15 and sorted(counts[7:]) == [1] * 5 + [2] * 5
        assert len(examples(plan)) == 6 + 2 + 15 + 2 == len({e.key for e in examples(plan)})
        for example in examples(plan):  # lengths belong to the right utterance
            if example.parts:
                assert seconds(plan, example) == pytest.approx(corpus.durations[example.parts[0]])
        chosen.append(tuple(counts))
    assert len(set(chosen)) > 20  # each epoch draws its own part
    assert all(sum(counts[i] for counts in chosen) > 0 for i in range(17))
    again = EpochPlan(corpus, settings, AugmentConfig(), seed=0, epoch=4)
    assert tuple(taken(again)[i] for i in range(17)) == chosen[4]


def test_weights_of_one_equal_no_weights_and_keep_the_strings(tmp_path):
    corpus, settings = weighted(tmp_path, weights=(1, 1.0, 1))
    plain = DataConfig(train=settings.train)
    first, second = (EpochPlan(corpus, each, BUSY, seed=3, epoch=1) for each in (settings, plain))
    assert examples(first) == examples(second)
    corpus, settings = weighted(tmp_path, weights=(3, 2, 2))
    plan = EpochPlan(corpus, settings, BUSY, seed=3, epoch=1)
    strings = [e for e in examples(plan) if len(e.parts) > 1]
    assert len(strings) == sum(len(e.parts) > 1 for e in examples(second))


@pytest.mark.parametrize(
    ("weights", "message"), [((1, 2), "2 weights for 1 manifests"), ((0,), "greater than 0")]
)
def test_impossible_weights_are_refused(weights, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig(train=(Path("a.jsonl"),), weights=weights)
