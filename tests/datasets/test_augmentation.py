"""Rooms, levels and noise have the configured values, and do not depend on chance or order."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import audio
from asr.config import AugmentConfig, Config
from asr.datasets import augmentation
from asr.datasets.augmentation import SPEECH_DB, Augmenter, Folder, add_noise, reverberate
from asr.datasets.batching import EpochPlan, Stream, random_stream
from asr.datasets.corpus import Corpus
from asr.datasets.loading import Loader
from asr.datasets.manifest import Utterance
from asr.errors import AsrError
from asr.tokenizers import CharacterTokenizer

RATE = 16000
KEY = (0, 0, 0)

ONE = CharacterTokenizer.from_characters(["one"])


def noise(count, seed=0, level=0.1):
    return (level * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def decibel(power):
    return 10 * np.log10(power)


def power(samples):
    return np.mean(np.square(samples, dtype=np.float64))


def response(direct=50, length=4000, seed=0):
    """A room: the direct sound, reflections that fade, and a little before them, as filters leave it."""
    tail = noise(length, seed, 0.2) * np.exp(-np.arange(length) / 800)
    tail[:direct] = noise(direct, seed, 0.001)
    tail[direct] = 1.0
    return tail.astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    rooms, noises = tmp_path_factory.mktemp("rooms"), tmp_path_factory.mktemp("noises")
    for i in range(3):
        soundfile.write(rooms / f"room{i}.wav", response(20 * i, seed=i), RATE, subtype="FLOAT")
        (noises / str(i)).mkdir()
        soundfile.write(noises / str(i) / f"noise{i}.wav", noise(RATE * (i + 1), i), RATE, subtype="FLOAT")
    (noises / "._noise.wav").write_text("macOS's own")
    (noises / "README.txt").write_text("not audio")
    return {"rooms": rooms, "noise": noises}


def config(folders, **settings):
    full = {"rooms": {"folder": folders["rooms"], "probability": 1.0}, "gain_db": 6.0}
    full |= {"noise": {"folder": folders["noise"], "probability": 1.0}, "noise_db": (-60, -40)}
    return AugmentConfig.model_validate(full | settings)


# ------------------------------------------------------------------------------------------------- rooms


@settings(max_examples=30)
@given(st.integers(1, 2000), st.integers(1, 300), st.integers(0, 2**32))
def test_a_room_equals_naive_convolution_from_the_direct_sound_on(n, m, seed):
    dry, room = noise(n, seed), noise(m, seed + 1, 1.0)
    direct = int(np.abs(room).argmax())
    plain = np.convolve(dry.astype(float), room.astype(float))[direct : direct + n]  # sums, no transform
    wet = reverberate(dry, room)
    assert wet.shape == (n,) and wet.dtype == np.float32
    if power(plain) > 1e-4 * power(dry):
        expected = plain * np.sqrt(power(dry) / power(plain))
        assert np.abs(wet - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_click_keeps_its_position_and_level():
    click = np.zeros(8000, np.float32)
    click[3000] = 0.5
    for direct in (0, 50, 700):
        wet = reverberate(click, response(direct))
        assert np.abs(wet).argmax() == 3000
        assert power(wet) == pytest.approx(power(click), rel=1e-4)


def test_a_room_without_reflections_changes_nothing_and_silence_stays_silent():
    delay = np.zeros(500, np.float32)
    delay[123] = 0.3
    dry = noise(4000)
    assert reverberate(dry, delay) == pytest.approx(dry, abs=1e-6)
    assert not reverberate(np.zeros(100, np.float32), delay).any()


def test_the_first_of_several_microphones_is_used(tmp_path):
    both = np.stack([response(0), -response(90)], 1)
    soundfile.write(tmp_path / "array.wav", both, RATE, subtype="FLOAT")
    assert np.array_equal(Folder(tmp_path, "key", RATE, mix=False).whole(0), response(0))


# ------------------------------------------------------------------------------------------------- noise


@settings(max_examples=50)
@given(st.floats(-10, 40), st.integers(100, 5000), st.floats(1e-3, 1.0), st.floats(0.1, 1))
def test_the_ratio_of_speech_to_noise_is_the_one_asked_for(snr, count, level, share):
    speech, added = noise(count, 1, level), noise(count, 2)
    spoken = max(1, int(share * count))
    speech[spoken:] = 0  # a pause
    mixed = add_noise(speech, added, snr, spoken)
    assert decibel(power(speech[:spoken])) - decibel(power(mixed.astype(float) - speech)) == pytest.approx(
        snr, abs=0.02 if snr < 25 else 0.3
    )


def test_noise_alone_has_the_level_that_it_has_with_speech_of_usual_level():
    mixed = add_noise(np.zeros(5000, np.float32), noise(5000), 10.0, 0)
    assert decibel(power(mixed)) == pytest.approx(SPEECH_DB - 10, abs=0.01)
    assert np.array_equal(add_noise(noise(50), np.zeros(50, np.float32), 0.0, 50), noise(50))


def test_the_ratio_holds_after_room_and_gain(folders):
    speech = noise(RATE, 7)
    settings = {"noise_db": None}
    quiet = Augmenter(config(folders, noise=None, **settings), RATE)
    noisy = {"folder": folders["noise"], "probability": 1.0, "snr_db": (7.0, 7.0)}
    loud = Augmenter(config(folders, noise=noisy, **settings), RATE)
    for place in range(20):
        key = (0, 0, place)
        without, (before, message) = quiet(speech, RATE, key)[0], loud(speech, RATE, key)
        assert decibel(power(without)) - decibel(power(before - without)) == pytest.approx(7, abs=0.02)
        assert "at an SNR of 7.0 dB" in message[-1]


def test_excerpts_begin_anywhere_and_short_recordings_are_repeated(folders):
    folder = Folder(folders["noise"], "key", RATE)
    assert [file.name for file in folder.files] == ["noise0.wav", "noise1.wav", "noise2.wav"]
    whole = noise(2 * RATE, 1)
    assert np.array_equal(folder.excerpt(1, 0.0, 100), whole[:100])
    assert np.array_equal(folder.excerpt(1, 0.999999, 100), whole[-100:])
    assert np.array_equal(folder.excerpt(1, 0.25, 2 * RATE), whole)
    long = folder.excerpt(1, 0.25, 5 * RATE)
    assert np.array_equal(long, np.tile(whole, 4)[RATE // 2 :][: 5 * RATE])


def test_recordings_that_are_not_in_memory_are_read_when_needed(folders, monkeypatch):
    held = Folder(folders["noise"], "key", RATE)
    monkeypatch.setattr(augmentation, "KEPT_MB", 0.07)  # of one second and two
    folder = Folder(folders["noise"], "key", RATE)
    assert folder._kept.keys() == {0}
    for place, count in itertools.product(range(3), (100, RATE, 5 * RATE)):
        assert np.array_equal(folder.excerpt(place, 0.0, count), held.excerpt(place, 0.0, count))
        assert len(folder.excerpt(place, 0.7, count)) == count
    assert np.array_equal(folder.excerpt(2, 0.5, RATE), noise(3 * RATE, 2)[RATE : 2 * RATE])


def test_other_rates_are_resampled(tmp_path):
    seconds = np.arange(8000) / 8000
    audio.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 1000 * seconds), 8000)
    tone = Folder(tmp_path, "key", RATE).whole(0)
    assert len(tone) == RATE and np.abs(np.fft.rfft(tone)).argmax() == 1000


def test_probabilities_are_kept(folders):
    half = config(
        folders,
        rooms={"folder": folders["rooms"], "probability": 0.3},
        noise={"folder": folders["noise"], "probability": 0.5},
    )
    message = [Augmenter(half, RATE)(noise(100), 100, (0, 0, i))[1] for i in range(200)]
    assert sum(any("room" in part for part in parts) for parts in message) == pytest.approx(60, abs=24)
    assert sum(any("SNR" in part for part in parts) for parts in message) == pytest.approx(100, abs=28)
    assert len({part for parts in message for part in parts if "room" in part}) == 3


# ---------------------------------------------------------------------------------------------- streams


def test_all_random_streams_differ():
    keys = itertools.product((0, 1, 2**32, 2**40), (0, 1), (0, 1, 5), Stream)
    draws = [random_stream(*key).integers(2**63) for key in keys]
    assert len(set(draws)) == len(draws)


def test_each_step_draws_from_its_own_stream(folders):
    """A step does not change when all other steps are switched off."""
    everything = Augmenter(config(folders), RATE)
    alone = {"room": {"rooms"}, "gain": {"gain_db"}, "noise": {"noise"}, "white": {"noise_db"}}
    off = {"rooms": None, "gain_db": 0.0, "noise": None, "noise_db": None}
    for place in range(10):
        samples, message = everything(noise(500), 500, (3, 1, place))
        assert [part.split()[0] for part in message] == [*alone]
        for part, kept in zip(message, alone.values(), strict=True):
            one = Augmenter(config(folders, **{k: v for k, v in off.items() if k not in kept}), RATE)
            assert one(noise(500), 500, (3, 1, place))[1] == [part]
        again, _ = everything(noise(500), 500, (3, 1, place))
        assert np.array_equal(samples, again)
        assert not np.array_equal(samples, everything(noise(500), 500, (3, 2, place))[0])


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_the_number_of_workers_or_the_first_batch(folders, tmp_path, workers):
    found = []
    for i in range(10):
        audio.write(tmp_path / f"{i}.wav", noise(3000 + 400 * i, i))
        found.append(Utterance(str(i), tmp_path / f"{i}.wav", "one", (3000 + 400 * i) / RATE))
    full = config(
        folders, speeds=(0.9, 1.1), edge_silence=0.1, silence=2, join={"per_epoch": 5, "order": "neighbors"}
    )
    data = {"batch_seconds": 1.5, "workers": workers}
    settings = Config.model_validate({"augment": full.model_dump(), "data": data})
    corpus = Corpus.of(found)
    plan = EpochPlan(corpus, settings.data, settings.augment, seed=1, epoch=2)
    source = Loader(corpus, ONE, settings.features.sample_rate, settings.data, settings.augment)
    whole = [source.load(plan[i], i) for i in range(len(plan))]
    for places in (range(len(plan)), range(3, len(plan)), range(1, len(plan), 2)):
        fresh = Loader(corpus, ONE, settings.features.sample_rate, settings.data, settings.augment)
        batches = list(fresh.batches(plan, places))
        assert [batch.place for batch in batches] == list(places)
        for batch in batches:
            assert torch.equal(batch.waveforms, whole[batch.place].waveforms)
            assert torch.equal(batch.lengths, whole[batch.place].lengths)
            assert batch.treatments == whole[batch.place].treatments
    assert all("room" in message and "SNR" in message for batch in whole for message in batch.treatments)


# ------------------------------------------------------------------------------------------- bad folders


@pytest.mark.parametrize("which", ["rooms", "noise"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "not a folder"),
        ({}, "no audio"),
        ({"a.wav": b"not audio at all"}, r"a\.wav"),
        ({"a.wav": b""}, r"a\.wav: empty"),
        ({"a.wav": 0.0}, r"a\.wav: nothing but digital silence"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_before_training(tmp_path, which, content, says):
    folder = tmp_path / "folder"
    for name, data in (content or {}).items():
        folder.mkdir()
        if isinstance(data, bytes):
            (folder / name).write_bytes(data)
        else:
            audio.write(folder / name, np.zeros(100))
    if content == {}:
        folder.mkdir()
    with pytest.raises(AsrError, match=says) as caught:
        Augmenter(AugmentConfig.model_validate({which: {"folder": folder}}), RATE)
    assert str(caught.value).startswith(f"augment.{which}.folder: ") and "\n" not in str(caught.value)


def test_examples_with_a_recording_that_is_gone_are_left_out(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(augmentation, "KEPT_MB", 0)
    audio.write(tmp_path / "a.wav", noise(3000))
    noises = tmp_path / "noises"
    noises.mkdir()
    audio.write(noises / "hum.wav", noise(3000))
    settings = Config.model_validate({"augment": {"noise": {"folder": noises, "probability": 1.0}}})
    corpus = Corpus.of([Utterance("a", Path(tmp_path / "a.wav"), "one", 0.18)])
    source = Loader(corpus, ONE, settings.features.sample_rate, settings.data, settings.augment)
    plan = EpochPlan(corpus, settings.data, settings.augment, 0, 0)
    assert source.load(plan[0]).ids == ["a"]
    (noises / "hum.wav").unlink()
    batch = source.load(plan[0])
    assert not batch.ids and "hum.wav" in batch.bad[0]
