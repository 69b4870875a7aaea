"""From plans to padded batches: in order, from any position, bit for bit the same."""

import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PAD

from asr import audio
from asr.config import Config
from asr.datasets.batching import EpochPlan, Example
from asr.datasets.corpus import Corpus
from asr.datasets.loading import Loader
from asr.datasets.manifest import Utterance, write_manifest
from asr.datasets.settings import DataConfig
from asr.errors import AsrError
from asr.tokenizers import CharacterTokenizer

RATE = 16000
KEY = (0, 0, 0)
TEXTS = ["one", "two", "three", "机器学习", "", "six"]

BUSY = {
    "speeds": [0.9, 1.0, 1.1],
    "gain_db": 6,
    "edge_silence": 0.1,
    "noise_db": [-60, -40],
    "silence": 2,
    "join": {"per_epoch": 8, "min_items": 2, "max_items": 3, "min_pause": 0.02, "max_pause": 0.1},
}


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Fading tones of different heights and lengths: 12 utterances of 2 speakers."""
    folder, found = tmp_path_factory.mktemp("tones"), []
    for i in range(12):
        path, duration = folder / f"tone{i}.wav", 0.2 + 0.03 * i
        time = np.arange(round(duration * RATE)) / RATE
        audio.write(path, (0.4 - 0.3 * time) * np.sin(2 * np.pi * (300 + 100 * i) * time))
        found.append(Utterance(f"tone{i}", path, TEXTS[i % 6], duration, speaker=f"s{i % 2}"))
    return found


def configuration(augment=None, **data):
    return Config.model_validate({"augment": augment or {}, "data": {"batch_seconds": 1.5} | data})


def loader(tones, config, train=True):
    augment = config.augment if train else None
    tokenizer = CharacterTokenizer.from_characters(TEXTS)
    return Loader(Corpus.of(tones), tokenizer, config.features.sample_rate, config.data, augment)


def plan_of(tones, config, epoch=0):
    return EpochPlan(Corpus.of(tones), config.data, config.augment, seed=1, epoch=epoch)


def equal(first, second):
    """Bit for bit."""
    tensors = ("waveforms", "lengths", "tokens", "token_lengths")
    return (first.ids, first.texts, first.amount) == (second.ids, second.texts, second.amount) and all(
        torch.equal(getattr(first, name), getattr(second, name)) for name in tensors
    )


@pytest.fixture
def reads(monkeypatch):
    """Counts how often each file is read."""
    counts, original, lock = Counter(), audio.read, threading.Lock()

    def read(path, *rest):
        with lock:
            counts[Path(path).name] += 1
        return original(path, *rest)

    monkeypatch.setattr(audio, "read", read)
    return counts


# ---------------------------------------------------------------------------------------- what is in a batch


def test_rows_are_recordings_and_their_texts_padded(tones):
    tokenizer = CharacterTokenizer.from_characters(TEXTS)
    config = configuration()
    targets = [3, 4, 0]
    batch = loader(tones, config, train=False).load([Example((i,), (0.0, 0.0), 1.0, KEY) for i in targets])
    recordings = [audio.read(tones[i].audio) for i in targets]
    lengths = [len(samples) for samples in recordings]
    assert batch.waveforms.shape == (3, max(lengths)) and batch.waveforms.dtype == torch.float32
    assert batch.lengths.tolist() == lengths
    for row, samples in zip(batch.waveforms, recordings, strict=True):
        assert np.array_equal(row[: len(samples)], samples) and not row[len(samples) :].any()
    assert batch.texts == ["机器学习", "", "one"] and batch.ids == ["tone3", "tone4", "tone0"]
    assert batch.token_lengths.tolist() == [4, 0, 3] and batch.tokens.shape == (3, 4)
    for row, text in zip(batch.tokens.tolist(), batch.texts, strict=True):
        ids = tokenizer.encode(text)
        assert row == ids + [PAD] * (4 - len(ids))
    assert batch.amount == pytest.approx(sum(lengths) / RATE)


def test_a_part_of_a_longer_recording(tones):
    tone = tones[11]
    part = Utterance("part", tone.audio, "six", 0.1, start=0.2)
    batch = loader([part], configuration(), train=False).load([Example((0,), (0.0, 0.0), 1.0, KEY)])
    assert np.array_equal(batch.waveforms[0], audio.read(tone.audio)[3200:4800])


@pytest.mark.parametrize("separator", [" ", ""])
def test_joined_strings_are_recordings_with_silence_around_and_between(tones, separator):
    augment = {"edge_silence": 0.05, "join": BUSY["join"] | {"separator": separator}}
    config = configuration(augment)
    plan, source = plan_of(tones, config), loader(tones, config)
    joined = 0
    for index in range(len(plan)):
        batch = source.load(plan[index])
        for row, example in enumerate(plan[index]):
            pieces = [np.zeros(round(example.pauses[0] * RATE))]
            for part, pause in zip(example.parts, example.pauses[1:], strict=True):
                pieces += [audio.read(tones[part].audio), np.zeros(round(pause * RATE))]
            expected = np.concatenate(pieces)
            assert np.array_equal(batch.waveforms[row, : len(expected)], expected)
            assert int(batch.lengths[row]) == len(expected)
            assert batch.texts[row] == separator.join(tones[part].text for part in example.parts)
            assert batch.ids[row] == "+".join(tones[part].id for part in example.parts)
            joined += len(example.parts) > 1
    assert joined == 8


def test_silence_alone_has_no_text(tones):
    config = configuration({"silence": 3})
    source = loader(tones, config)
    batch = source.load([Example((), (0.5,), 1.0, (1, 2, 3)), Example((), (0.25,), 1.0, (1, 2, 4))])
    assert batch.lengths.tolist() == [8000, 4000] and not batch.waveforms.any()
    assert batch.texts == ["", ""] and batch.token_lengths.tolist() == [0, 0] and batch.tokens.shape == (2, 0)


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_speed_moves_length_and_pitch(tones, speed):
    batch = loader(tones, configuration({"speeds": [speed]})).load([Example((5,), (0.0, 0.0), speed, KEY)])
    samples = batch.waveforms[0].numpy()
    assert len(samples) == pytest.approx(0.35 * RATE / speed, abs=1)
    peak = np.abs(np.fft.rfft(samples, RATE)).argmax()  # in Hz
    assert peak == pytest.approx(800 * speed, abs=5)


def level(samples):
    return 20 * np.log10(np.sqrt(np.mean(np.square(samples))))


def test_gain_and_noise_are_within_their_limits(tones):
    example = [Example((5,), (0.0, 0.0), 1.0, (0, 0, i)) for i in range(200)]
    plain = level(audio.read(tones[5].audio))
    batch = loader(tones, configuration({"gain_db": 6})).load(example)
    gains = np.array([level(row) - plain for row in batch.waveforms.numpy()])
    assert -6.001 <= gains.min() < -5 and 5 < gains.max() <= 6.001

    source = loader(tones, configuration({"noise_db": [-60, -40], "gain_db": 6}))
    silence = source.load([Example((), (0.5,), 1.0, (0, 0, i)) for i in range(200)])
    levels = np.array([level(row) for row in silence.waveforms.numpy()])
    assert -60.5 <= levels.min() < -58 and -42 < levels.max() <= -39.5
    assert len(np.unique(silence.waveforms.numpy()[:, 0])) == 200


def test_nothing_is_augmented_in_validation(tones):
    config = configuration(BUSY)
    batch = loader(tones, config, train=False).load([Example((5,), (0.1, 0.1), 1.0, KEY)])
    assert np.array_equal(batch.waveforms[0], audio.read(tones[5].audio))


def test_no_example_is_longer_than_planned(tones):
    config = configuration(BUSY | {"join": BUSY["join"] | {"per_epoch": 60}})
    plan, source = plan_of(tones, config), loader(tones, config)
    shares = []
    for index in range(len(plan)):
        batch = source.load(plan[index])
        for length, example in zip(batch.lengths.tolist(), plan[index], strict=True):
            promised = plan.seconds[example.key[-1]] * RATE
            assert length <= promised + len(example.parts) + 1  # each piece is rounded to a sample
            shares.append(length / promised)
        if len(batch.ids) > 1:
            assert batch.waveforms.numel() / RATE <= config.data.batch_seconds + 1e-3
    assert np.mean(shares) > 0.75  # and the bound is not far off


@pytest.mark.parametrize("train", [True, False])
def test_batches_are_padded_to_multiples(tones, train):
    config = configuration(BUSY, batch_seconds=4.0, pad_seconds=0.25, pad_tokens=8)
    source = loader(tones, config, train)
    same = loader(tones, config.model_copy(update={"data": configuration().data}), train)
    plan = EpochPlan(
        Corpus.of(tones), config.data, config.augment if train else configuration().augment, 1, 0
    )
    for index in range(len(plan)):
        batch, unpadded = source.load(plan[index]), same.load(plan[index])
        assert batch.waveforms.size(1) % 4000 == 0 and batch.tokens.size(1) % 8 == 0
        assert batch.waveforms.size(1) - unpadded.waveforms.size(1) < 4000
        assert batch.tokens.size(1) - unpadded.tokens.size(1) < 8
        assert torch.equal(batch.lengths, unpadded.lengths)
        assert torch.equal(batch.token_lengths, unpadded.token_lengths)
        width = unpadded.waveforms.size(1)
        assert torch.equal(batch.waveforms[:, :width], unpadded.waveforms)
        assert not batch.waveforms[:, width:].any()
        assert (batch.tokens[:, unpadded.tokens.size(1) :] == PAD).all()
        if len(batch.ids) > 1:
            assert batch.waveforms.numel() / RATE <= config.data.batch_seconds + 1e-6


# ----------------------------------------------------------------------------------------- order and resuming


def test_the_same_example_is_the_same_audio_bit_for_bit(tones):
    config = configuration(BUSY)
    plan = plan_of(tones, config)
    source = loader(tones, config)
    first = [source.load(plan[i]) for i in range(len(plan))]
    assert all(equal(source.load(plan[i]), first[i]) for i in reversed(range(len(plan))))  # from the cache
    uncached = loader(tones, configuration(BUSY, cache_mb=0))
    assert all(equal(uncached.load(plan[i]), first[i]) for i in range(len(plan)))
    # One by one, too: nothing depends on the rest of the batch.
    for index in range(len(plan)):
        for row, example in enumerate(plan[index]):
            alone = source.load([example])
            assert torch.equal(alone.waveforms[0], first[index].waveforms[row, : int(alone.lengths[0])])


def test_another_epoch_has_different_audio(tones):
    config = configuration(BUSY)
    source = loader(tones, config)
    found = []
    for epoch in (0, 1):
        plan = plan_of(tones, config, epoch)
        batches = [source.load(plan[i]) for i in range(len(plan))]
        rows = {id: row for batch in batches for id, row in zip(batch.ids, batch.waveforms, strict=True)}
        found.append(rows["tone5"])
    width = min(len(row) for row in found)
    assert not torch.equal(found[0][:width], found[1][:width])


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_from_any_position_equal_those_of_a_whole_pass(tones, workers):
    config = configuration(BUSY, workers=workers)
    plan = plan_of(tones, config)
    whole = [loader(tones, config).load(plan[i]) for i in range(len(plan))]
    assert len(plan) > 6
    for start in range(len(plan) + 1):
        rest = list(loader(tones, config).batches(plan, range(start, len(plan))))
        assert len(rest) == len(plan) - start
        assert all(map(equal, rest, whole[start:]))


def test_the_order_holds_when_the_first_batch_takes_longest(tones, monkeypatch):
    config = configuration(workers=3, cache_mb=0)
    plan = plan_of(tones, config)
    slow, original = {tones[e.parts[0]].audio for e in plan[0]}, audio.read

    def read(path, *rest):
        time.sleep(0.1 if path in slow else 0)
        return original(path, *rest)

    monkeypatch.setattr(audio, "read", read)
    found = [batch.ids for batch in loader(tones, config).batches(plan, range(len(plan)))]
    assert found == [[tones[e.parts[0]].id for e in plan[i]] for i in range(len(plan))]


def test_closing_the_iterator_stops_reading(tones, reads):
    config = configuration(workers=1, max_batch=1)
    batches = loader(tones, config).batches(plan_of(tones, config), range(12))
    next(batches)
    batches.close()
    read = sum(reads.values())
    assert 1 <= read <= 3  # two ahead, for one worker
    time.sleep(0.05)
    assert sum(reads.values()) == read


# ---------------------------------------------------------------------------------------- cache and bad files


def passes(source, plan, count=2):
    for _ in range(count):
        for index in range(len(plan)):
            source.load(plan[index])


def test_a_file_is_read_once(tones, reads):
    config = configuration()
    passes(loader(tones, config), plan_of(tones, config), 3)
    assert reads == {u.audio.name: 1 for u in tones}


def test_without_a_cache_it_is_read_each_time(tones, reads):
    config = configuration(cache_mb=0)
    passes(loader(tones, config), plan_of(tones, config), 3)
    assert reads == {u.audio.name: 3 for u in tones}


def test_the_cache_keeps_within_its_limit(tmp_path, reads):
    spoken = []
    for i in range(9):  # 0.18 MiB each
        path = tmp_path / f"{i}.wav"
        audio.write(path, np.full(3 * RATE, 0.1))
        spoken.append(Utterance(str(i), path, "one", 3.0))
    config = configuration(cache_mb=1)
    passes(loader(spoken, config), plan_of(spoken, config))
    kept = [name for name, count in reads.items() if count == 1]
    assert len(kept) == 5  # 0.92 MiB; a sixth would be too much


def test_augmentation_does_not_change_cached_audio(tones):
    config = configuration(BUSY)
    source, plan = loader(tones, config), plan_of(tones, config)
    passes(source, plan)
    source.augmenter = None
    batch = source.load([Example((5,), (0.0, 0.0), 1.0, KEY)])
    assert np.array_equal(batch.waveforms[0], audio.read(tones[5].audio))


def test_recordings_that_cannot_be_read_are_left_out_and_named(tones, tmp_path):
    (tmp_path / "broken.wav").write_text("not audio")
    (tmp_path / "empty.wav").touch()
    audio.write(tmp_path / "short.wav", np.full(RATE // 2, 0.1))
    names = ("missing.wav", "broken.wav", "empty.wav", "short.wav")
    bad = [Utterance(name, tmp_path / name, "one", 1.0) for name in names]
    config = configuration(BUSY)
    spoken = [*tones, *bad]
    source, plan = loader(spoken, config), plan_of(spoken, config)
    batches = list(source.batches(plan, range(len(plan))))
    assert [batch.place for batch in batches] == list(range(len(plan)))
    for name in names:
        messages = [line for batch in batches for line in batch.bad if name in line]
        assert messages and not any("\n" in line for line in messages)
        assert not any(name in id.split("+") for batch in batches for id in batch.ids)
    left = sum(any(part >= 12 for part in e.parts) for i in range(len(plan)) for e in plan[i])
    assert left == sum(len(batch.bad) for batch in batches) >= 4
    for batch in batches:  # what is left is as it would be without the bad ones
        good = [e for e in plan[batch.place] if all(part < 12 for part in e.parts)]
        assert equal(batch, replace(source.load(good, batch.place), bad=batch.bad))


def test_a_batch_without_a_readable_recording_has_no_rows(tmp_path):
    spoken = [Utterance("a", tmp_path / "a.wav", "one", 1.0)]
    batch = loader(spoken, configuration()).load([Example((0,), (0.0, 0.0), 1.0, KEY)])
    assert batch.waveforms.shape == (0, 0) == batch.tokens.shape and batch.tokens.dtype == torch.long
    assert batch.lengths.shape == (0,) == batch.token_lengths.shape
    assert batch.amount == 0 and len(batch.bad) == 1 and not batch.ids


def test_without_reading_a_batch_has_silence_of_the_same_length(tones, reads):
    config = configuration(BUSY)
    source, plan = loader(tones, config), plan_of(tones, config)
    silent = [source.load(plan[place], place, read=False) for place in range(len(plan))]
    assert not reads
    for place, batch in enumerate(silent):
        full = source.load(plan[place], place)
        assert batch.ids == full.ids and torch.equal(batch.tokens, full.tokens)
        # Each part and pause is rounded to whole samples.
        assert (batch.lengths - full.lengths).abs().max() <= 4 and not batch.waveforms.any()


def test_what_the_model_has_no_positions_for_is_left_out_and_named(tones):
    config = configuration()
    source = loader(tones, config)
    examples = [Example((i,), (0.0, 0.0), 1.0, KEY) for i in range(12)]
    whole = source.load(examples)
    source.max_tokens, source.max_samples = 3, round(0.4 * RATE)
    batch = source.load(examples)
    fits = [
        id
        for id, n, m in zip(whole.ids, whole.token_lengths, whole.lengths, strict=True)
        if n <= 3 and m <= 0.4 * RATE
    ]
    assert batch.ids == fits and 0 < len(fits) < 12 and len(batch.bad) == 12 - len(fits)
    assert any("tokens, but the decoder has only 3 positions" in line for line in batch.bad)
    assert any(
        "s long after augmentation, but the window of the features has 0.4 s" in line for line in batch.bad
    )


def test_a_manifest_that_changes_during_training_is_an_error(tones, tmp_path):
    write_manifest(tmp_path / "m.jsonl", tones)
    corpus = Corpus.read(DataConfig(train=(tmp_path / "m.jsonl",)), "train")
    source = Loader(corpus, CharacterTokenizer.from_characters(TEXTS), RATE, DataConfig())
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    lines[0] = lines[0].replace('"text": "', '"text": "longer ')
    (tmp_path / "m.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(AsrError, match="changed"):
        source.load([Example((i,), (0.0, 0.0), 1.0, KEY) for i in range(3)])
