"""Music that the English recipe makes, and that becomes an example with an empty text."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asr.audio import read
from asr.config import DataConfig
from asr.datasets.batching import Example
from asr.datasets.corpus import Corpus
from asr.datasets.loading import Loader
from asr.datasets.manifest import read_manifest
from asr.tokenizers import CharacterTokenizer

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "english"
sys.path.append(str(RECIPE))
import music  # noqa: E402
from music import HIGHEST, SECONDS, Song, Timbre, make_music, play  # noqa: E402
from voices import SAMPLE_RATE  # noqa: E402

PLAIN = Timbre(harmonics=3, rolloff=1.0, attack=0.01, decay=0.0, vibrato=0.0, odd=False)


def peaks(samples: np.ndarray) -> list[int]:
    """The frequencies in Hz of one second that have at least a tenth of the largest amplitude."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    inner = spectrum[1:-1]
    top = (inner > spectrum[:-2]) & (inner > spectrum[2:]) & (inner > 0.1 * inner.max())
    return (np.flatnonzero(top) + 1).tolist()


def test_a_note_has_its_harmonics() -> None:
    assert peaks(PLAIN.note(300, 1.0)) == [300, 600, 900]
    assert peaks(replace(PLAIN, odd=True).note(300, 1.0)) == [300, 900, 1500]
    assert peaks(replace(PLAIN, rolloff=0.0).note(3000, 1.0)) == [3000, 6000]  # not 9000: above HIGHEST
    assert HIGHEST < SAMPLE_RATE / 2


def test_a_struck_note_fades_and_a_held_one_does_not() -> None:
    def fall(timbre: Timbre) -> float:
        note = np.square(timbre.note(300, 1.0))
        return float(note[2000:4000].mean() / note[12000:14000].mean())

    assert fall(PLAIN) == pytest.approx(1, abs=0.01)
    assert fall(replace(PLAIN, decay=3.0)) > 10


def test_notes_begin_at_their_step_and_have_the_pitch_of_their_degree() -> None:
    song = Song(beat=1.0, key=100.0, scale=(0, 2, 4, 5, 7, 9, 11), seconds=3.0)
    found = play(song, [(0,), (), (7, 4)], 1.0, 1, replace(PLAIN, harmonics=1))
    first, second, third = np.split(found, 3)
    assert peaks(first) == [200]
    assert not second.any()
    assert peaks(third) == [300, 400]  # 7 is an octave above 0; 4 is a fifth, 299.7 Hz


def test_recordings_differ_and_can_be_made_again() -> None:
    first, again, other = (make_music(random.Random(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert len(first) != len(other) or not np.allclose(first, other)
    for seed in range(20):
        audio = make_music(random.Random(seed))
        assert SECONDS[0] <= len(audio) / SAMPLE_RATE <= SECONDS[1]
        assert np.isfinite(audio).all() and audio.std() > 1e-3


def test_a_shard_is_a_manifest_of_empty_texts_that_training_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["music.py", str(tmp_path), "--shards", "1", "--first", "3", "--sentences", "4"]
    monkeypatch.setattr(sys, "argv", line)
    music.main()
    manifest = tmp_path / "music-003.jsonl"
    found = read_manifest(manifest)
    assert [each.id for each in found] == [f"music-003-000{i}" for i in range(4)]
    for each in found:
        assert each.text == "" and each.phonemes == ""
        assert len(read(each.audio, SAMPLE_RATE)) == pytest.approx(each.duration * SAMPLE_RATE, abs=200)
    loader = Loader(
        Corpus.of(found), CharacterTokenizer.from_characters("ab"), SAMPLE_RATE, DataConfig(), phonemes="ab"
    )
    batch = loader.load([Example((0,), (0.0, 0.0), 1.0, (0, 0, 0))], 0)
    assert batch.has_text.tolist() == [True] and batch.token_lengths.tolist() == [0]
    assert batch.has_phonemes.tolist() == [True] and batch.phoneme_lengths.tolist() == [0]
    capsys.readouterr()
    music.main()
    assert "exists; skipped" in capsys.readouterr().out
