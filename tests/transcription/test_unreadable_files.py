"""Files that cannot be read have an error each, and do not affect the other files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import RATE, input_of, same, silence, sound, write

from asr.errors import AsrError
from asr.transcription import pieces as module
from asr.transcription.inputs import Input
from asr.transcription.recognizer import Recognizer


@pytest.fixture
def bad(tmp_path):
    """One file of each kind that cannot be read."""
    nan = sound(0, 1.0)
    nan[5000] = np.nan
    files = [write(tmp_path / "nan.wav", nan), write(tmp_path / "no_samples.wav", silence(0))]
    for name, content in (("empty.wav", b""), ("text.wav", b"This is no audio.\n" * 9)):
        (tmp_path / name).write_bytes(content)
        files.append(input_of(tmp_path / name))
    whole = write(tmp_path / "truncated.wav", sound(0, 1.0)).audio
    whole.write_bytes(whole.read_bytes()[:20000])
    (tmp_path / "folder.wav").mkdir()
    return [*files, input_of(whole), input_of(tmp_path / "missing.wav"), input_of(tmp_path / "folder.wav")]


@pytest.mark.parametrize("batch_seconds", [2.5, 120.0])
def test_unreadable_files_do_not_affect_the_others(bundle, mixed, alone, bad, batch_seconds):
    inputs = [mixed[0], *bad]
    for i, each in enumerate(mixed[1:]):
        inputs.insert(2 * i, each)
    results = list(Recognizer(bundle, batch_seconds=batch_seconds).transcribe_all(inputs))
    assert len(results) == len(inputs) == 23
    expected = dict(zip([each.id for each in mixed], alone, strict=True))
    for each, result in zip(inputs, results, strict=True):
        if each in bad:
            assert isinstance(result, AsrError)
            assert str(result).startswith(f"{each.audio}: ") and "\n" not in str(result)
        else:
            assert result.id == each.id
            same(result, expected[each.id])


def test_a_list_of_unreadable_files_only(recognizer, bad):
    results = list(recognizer.transcribe_all(bad))
    assert [str(result).split(":")[0] for result in results] == [str(each.audio) for each in bad]


def test_one_bad_file_raises(recognizer, bad):
    for each in bad:
        with pytest.raises(AsrError, match=each.audio.name):
            recognizer.transcribe(each.audio)


@pytest.mark.parametrize("batch_seconds", [2.5, 120.0])
def test_a_long_file_damaged_in_the_middle(bundle, mixed, alone, tmp_path, monkeypatch, batch_seconds):
    """Segments before the damage are dropped, and are in no other text."""
    monkeypatch.setattr(module, "LONG", 2.5)
    samples = sound(50, 45.0)
    samples[40 * RATE] = np.nan
    broken = write(tmp_path / "broken.wav", samples)
    inputs = [mixed[3], broken, mixed[0], broken, mixed[1]]
    results = list(Recognizer(bundle, batch_seconds=batch_seconds).transcribe_all(inputs))
    for result in (results[1], results[3]):
        assert isinstance(result, AsrError)
        assert f"{broken.audio}: NaN or infinite sample at 40.000 s" in str(result)
    for i, result in ((3, results[0]), (0, results[2]), (1, results[4])):
        same(result, alone[i])


def test_a_long_part_of_a_missing_file(recognizer, mixed, alone, tmp_path):
    missing = input_of(tmp_path / "missing.wav", duration=module.LONG + 1)
    first, error, last = recognizer.transcribe_all([mixed[0], missing, mixed[1]])
    assert isinstance(error, AsrError) and "missing.wav: no such file" in str(error)
    same(first, alone[0])
    same(last, alone[1])


def test_an_impossible_part_of_an_array(recognizer):
    samples = sound(0, 1.0)
    for start, rate, says in (
        (5.0, RATE, r"start 5 s is beyond the end \(1 s\)"),
        (-0.5, RATE, "start -0.5 s: impossible"),
        (0.0, float("nan"), "sample rate of nan Hz is impossible"),
    ):
        with pytest.raises(AsrError, match=f"^talk: {says}"):
            recognizer.transcribe(Input("talk", samples, Path("talk"), start, None, rate))


def test_a_tensor_of_bfloat16(recognizer):
    samples = torch.from_numpy(sound(0, 1.0)).bfloat16()
    assert recognizer.transcribe(samples, RATE).text == recognizer.transcribe(samples.float(), RATE).text
