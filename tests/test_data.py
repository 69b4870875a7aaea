"""The audio that ships with the repository holds what its manifests say."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.datasets.manifest import Utterance, read_manifest

DATA = Path(__file__).parents[1] / "data"
DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
EDGE = 0.02  # seconds at either end of a cut that hold no speech

SAMPLES = "samples/digits"
SETS = {name: read_manifest(DATA / name / "manifest.jsonl") for name in (SAMPLES, "synthetic_digits")}
SENTENCES = read_manifest(DATA / "samples" / "manifest.jsonl")


def cut(utterance: Utterance) -> tuple[np.ndarray, int]:
    """An utterance, mixed down, by seeking to its start; and its rate."""
    with soundfile.SoundFile(utterance.audio) as file:
        file.seek(round(utterance.start * file.samplerate))
        audio = file.read(round(utterance.duration * file.samplerate), dtype="float32", always_2d=True)
        return audio.mean(axis=1), file.samplerate


def rms(audio: np.ndarray) -> float:
    return float(np.sqrt(np.mean(audio**2)))


@pytest.mark.parametrize("name", SETS)
def test_text_is_digits_in_lower_case(name: str) -> None:
    for utterance in SETS[name]:
        words = utterance.text.split(" ")
        assert 1 <= len(words) <= 10 and DIGITS.issuperset(words), utterance


@pytest.mark.parametrize("name", SETS)
def test_every_audio_file_is_there_and_long_enough(name: str) -> None:
    listed = set()
    for audio, group in groupby(SETS[name], key=lambda utterance: utterance.audio):
        end = 0.0
        for utterance in group:
            assert utterance.start >= end, f"{utterance.id} starts before the one before it ends"
            end = utterance.start + utterance.duration
        info = soundfile.info(audio)
        assert end <= info.frames / info.samplerate + 1e-4, f"{audio} ends before its last utterance"
        listed.add(audio)
    assert listed == {path for path in (DATA / name).iterdir() if path.suffix in (".wav", ".ogg")}


@pytest.mark.parametrize("name", SETS)
def test_every_cut_holds_speech_between_quiet_margins(name: str) -> None:
    for utterance in SETS[name]:
        audio, rate = cut(utterance)
        edge = round(EDGE * rate)
        assert len(audio) == round(utterance.duration * rate), utterance
        assert 0.01 < rms(audio) < 0.3, f"{utterance.id}: RMS {rms(audio):.4f}"
        assert np.abs(audio).max() < 0.999, f"{utterance.id} clips"
        assert max(rms(audio[:edge]), rms(audio[-edge:])) < 0.1 * rms(audio), (
            f"{utterance.id}: speech at an edge"
        )


def test_samples_have_their_text_beside_them() -> None:
    for sample in SETS[SAMPLES]:
        assert sample.audio.with_suffix(".txt").read_text(encoding="utf-8") == sample.text + "\n", sample.id
    assert len(list((DATA / SAMPLES).glob("*.txt"))) == len(SETS[SAMPLES])


def test_no_training_string_holds_a_sample() -> None:
    for training in SETS["synthetic_digits"]:
        for sample in SETS[SAMPLES]:
            assert sample.text not in training.text, f"{training.id} holds {sample.id}"


def test_unseen_voices_are_unseen() -> None:
    trained = {utterance.speaker for utterance in SETS["synthetic_digits"]}
    unseen = [sample for sample in SETS[SAMPLES] if sample.speaker not in trained]
    assert len(unseen) >= 3
    assert unseen == [sample for sample in SETS[SAMPLES] if sample.extra["unseen_voice"]]


def test_the_readmes_name_every_voice_and_sample() -> None:
    readme = (DATA / "synthetic_digits" / "README.md").read_text(encoding="utf-8")
    for speaker in {utterance.speaker for utterance in SETS["synthetic_digits"]}:
        assert speaker is not None
        for part in speaker.split("-", 1)[1].split("+"):
            assert part in readme, f"{speaker} is missing from the README"
    readme = (DATA / SAMPLES / "README.md").read_text(encoding="utf-8")
    for sample in SETS[SAMPLES]:
        row = next(line for line in readme.splitlines() if sample.audio.name in line)
        assert f" {sample.text} " in row and ("**" in row) == sample.extra["unseen_voice"], row


def test_sentences_have_their_text_beside_them_and_in_the_readme() -> None:
    readme = (DATA / "samples" / "README.md").read_text(encoding="utf-8")
    assert len(SENTENCES) == len(list((DATA / "samples").glob("*.flac"))) == 6
    for sample in SENTENCES:
        assert sample.audio.with_suffix(".txt").read_text(encoding="utf-8") == sample.text + "\n", sample.id
        info = soundfile.info(sample.audio)
        assert sample.duration == pytest.approx(info.frames / info.samplerate, abs=1e-3)
        row = next(line for line in readme.splitlines() if sample.audio.name in line)
        assert f" {sample.text} " in row and f" {sample.speaker.split('-')[0]} " in row.replace("`", ""), row
