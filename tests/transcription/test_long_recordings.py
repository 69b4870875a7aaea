"""Long recordings are cut in their pauses and read block by block; silence never reaches the model."""

import io
import os
import tracemalloc
from threading import Thread

import numpy as np
import pytest
import soundfile
from recordings import RATE, same, silence, sound, write

from asr.config import Config
from asr.decoding import Hypothesis
from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer
from asr.transcription import pieces as module
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Transcript


def test_a_long_recording_is_cut_in_its_pauses(recognizer, bursts, monkeypatch):
    def by_length(memory, previous=()):  # never an empty text, which would have no segment
        return [[Hypothesis((5 + int(length) % 15,), -1.0)] for length in memory.lengths]

    monkeypatch.setattr(recognizer, "decoder", by_length)
    samples, places = bursts
    found = recognizer.transcribe(samples, RATE)
    assert found.duration == pytest.approx(len(samples) / RATE)
    for segment, (begin, end) in zip(found.segments, places, strict=True):
        assert 0 <= segment.start < segment.end <= found.duration
        assert segment.end - segment.start <= recognizer._reader.longest == 2.0
        assert segment.start <= begin and end <= segment.end
        excerpt = samples[round(segment.start * RATE) : round(segment.end * RATE)]
        assert recognizer.transcribe(excerpt, RATE).text == segment.text
    for before, after in zip(found.segments, found.segments[1:], strict=False):
        assert before.end <= after.start
    assert found.text == " ".join(segment.text for segment in found.segments)


def test_read_block_by_block_as_at_once(recognizer, bursts, tmp_path, monkeypatch):
    samples = np.concatenate([bursts[0]] * 2)  # longer than a block
    file = write(tmp_path / "a.wav", samples)
    at_once = recognizer.transcribe(samples, RATE)
    monkeypatch.setattr(module, "LONG", 1.0)
    monkeypatch.setattr(module, "BLOCK", 5.0)
    by_blocks = recognizer.transcribe(file.audio)
    same(at_once, by_blocks)
    assert by_blocks.duration == at_once.duration == pytest.approx(len(samples) / RATE, abs=1e-3)


def test_a_script_without_spaces_is_joined_without_them(monkeypatch):
    bundle = Bundle.build(Config(), CharacterTokenizer.from_characters(["机器学习"])).eval()
    hypothesis = Hypothesis(tuple(bundle.tokenizer.encode("机器学习")), -1.0)
    samples = np.concatenate([sound(0, 0.5), silence(5), sound(1, 0.5)])
    bundle.metadata["longest_seconds"] = "4"
    recognizer = Recognizer(bundle, voice_activity=False)
    monkeypatch.setattr(
        recognizer, "decoder", lambda memory, previous=(): [[hypothesis]] * len(memory.lengths)
    )
    found = recognizer.transcribe(samples, RATE)
    assert [segment.text for segment in found.segments] == ["机器学习", "机器学习"]
    assert found.text == "机器学习机器学习"


def test_a_long_silence_has_no_text_and_needs_little_memory(recognizer, tmp_path):
    """It is read block by block, and nothing goes to the model."""
    path, seconds = tmp_path / "long.flac", 1200
    soundfile.write(path, np.zeros(seconds * 8000, np.int16), 8000)
    tracemalloc.start()
    try:
        found = recognizer.transcribe(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == Transcript(str(path), str(path), "", seconds, ())
    assert peak < 4 * RATE * seconds / 2  # bytes: half of the samples


def test_silence_never_reaches_the_model(recognizer, monkeypatch):
    monkeypatch.setattr(recognizer, "_decode", None)
    noise = 1e-4 * np.random.default_rng(0).standard_normal(RATE * 600).astype(np.float32)  # -80 dB
    assert recognizer.transcribe(noise, RATE) == Transcript("array", "", "", 600.0, ())


def test_memory_does_not_grow_with_the_length_of_data_in_memory(recognizer, tmp_path, monkeypatch):
    """Bytes, open files and pipes are decoded block by block, as a path is."""
    path = write(tmp_path / "a.wav", sound(3, 6.0)).audio
    data = path.read_bytes()
    expected = recognizer.transcribe(path)
    monkeypatch.setattr(module, "LONG", 2.0)
    monkeypatch.setattr(module, "BLOCK", 1.0)
    monkeypatch.setattr(module.audio, "read", None)  # it would read the whole
    read, write_end = os.pipe()
    Thread(target=lambda: (os.write(write_end, data), os.close(write_end)), daemon=True).start()
    opened = io.BytesIO(data)
    opened.seek(100)
    with os.fdopen(read, "rb") as pipe:
        for source in (path, data, bytearray(data), opened, pipe):
            found = recognizer.transcribe(source)
            assert (found.text, found.duration) == (expected.text, 6.0)


def test_a_file_that_was_opened_as_text(recognizer, tmp_path):
    path = write(tmp_path / "a.wav", sound(3, 1.0)).audio
    for encoding in ("utf-8", "latin-1"):
        with path.open(encoding=encoding) as file, pytest.raises(AsrError, match="opened as text"):
            recognizer.transcribe(file)
