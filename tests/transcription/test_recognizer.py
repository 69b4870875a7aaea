"""Transcripts of files and arrays: independent of the other files in a batch, in the given order."""

import copy
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import sections
from recordings import RATE, input_of, same, silence, sound, write

from asr import audio
from asr.config import Config
from asr.decoding import DecodingOptions, FinishReason, Hypothesis
from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer
from asr.transcription import pieces as module
from asr.transcription.inputs import Input
from asr.transcription.precision import use_bf16
from asr.transcription.recognizer import Recognizer

# ------------------------------------------------------------------------------------- order and batches


@pytest.mark.parametrize("batch_seconds", [2.5, 8.0, 120.0])
def test_alone_as_in_a_batch_of_16(bundle, mixed, alone, batch_seconds):
    together = list(Recognizer(bundle, batch_seconds=batch_seconds).transcribe_all(mixed))
    assert [transcript.id for transcript in together] == [each.id for each in mixed]
    for one, other in zip(alone, together, strict=True):
        same(one, other)


PYRAMID = {"encoder": {"kind": "pyramidal_lstm"}, "decoder": {"kind": "lstm"}}
PATCHES = {"front_end": {"kind": "patches", "frames": 2, "bins": 16}}  # 0.4 frames in a state


@pytest.mark.parametrize("parts", [PYRAMID, PATCHES], ids=["pyramidal LSTM", "patches"])
def test_times_of_words_do_not_depend_on_the_batch(parts, tmp_path):
    torch.manual_seed(0)
    config = Config.model_validate({"model": {"d_model": 16} | parts, "train": {"ctc_weight": 1.0}})
    made = Bundle.build(config, CharacterTokenizer.from_characters(["efgh"])).eval()
    made.features.mean.fill_(-8.0)
    recognizer = Recognizer(made, voice_activity=False)
    files = [write(tmp_path / f"{i}.wav", sound(i, seconds)) for i, seconds in enumerate((0.35, 0.75, 6.0))]
    together = list(recognizer.transcribe_all(files))
    words = [[word for segment in each.segments for word in segment.words] for each in together]
    assert words[2]
    for each, found in zip(files, words, strict=True):
        alone = recognizer.transcribe(each.audio).segments
        times = [(word.start, word.end) for segment in alone for word in segment.words]
        assert [(word.start, word.end) for word in found] == times
    assert 3.0 < words[2][-1].end <= 6.0


def test_results_are_in_the_order_given(bundle, mixed, alone, tmp_path):
    """In several windows, and with silent files, which have no audio in a window."""
    quiet = write(tmp_path / "quiet.wav", silence(0.5))
    order = np.random.default_rng(0).integers(0, 17, 40)
    results = Recognizer(bundle, batch_seconds=2.5).transcribe_all(
        quiet if i == 16 else mixed[i] for i in order
    )
    for i, result in zip(order, results, strict=True):
        assert result.id == (quiet if i == 16 else mixed[i]).id
        assert result.duration == pytest.approx(0.5 if i == 16 else alone[i].duration)
        assert result.text == ("" if i == 16 else alone[i].text)


def test_no_inputs(recognizer):
    assert list(recognizer.transcribe_all([])) == []


def test_results_are_returned_after_their_window(bundle, tmp_path, monkeypatch):
    """With long files, there may always be audio that waits to be decoded."""
    monkeypatch.setattr(module, "LONG", 1.0)
    monkeypatch.setattr(module, "READERS", 1)  # so that files are ready in their order
    files = [write(tmp_path / f"{i}.wav", sound(i, 11)) for i in range(4)]
    recognizer, begun = Recognizer(bundle, batch_seconds=2.5), []
    original = module._in_thread
    monkeypatch.setattr(
        module, "_in_thread", lambda pieces: (begun.append(pieces) or piece for piece in original(pieces))
    )
    results = recognizer.transcribe_all(files)
    assert next(results).id == files[0].id
    assert len(set(map(id, begun))) == 2
    assert [result.id for result in results] == [file.id for file in files[1:]]


# ----------------------------------------------------------------------------------------- arrays and files


def test_an_array_has_the_text_of_its_file(recognizer, tmp_path):
    for rate in (RATE, 8000):
        samples = sound(1, 1.5, rate)
        write(tmp_path / "a.wav", samples, rate)
        from_file = recognizer.transcribe(tmp_path / "a.wav")
        from_array = recognizer.transcribe(samples, rate)
        assert from_file.text
        same(from_file, from_array)
        same(from_file, recognizer.transcribe(np.stack([samples, samples], 1), sample_rate=rate))
        assert (from_array.id, from_array.audio) == ("array", "")
        assert from_file.audio == str(tmp_path / "a.wav")
        assert from_array.duration == from_file.duration == 1.5


def test_an_array_needs_its_rate(recognizer):
    with pytest.raises(AsrError, match="sample_rate"):
        recognizer.transcribe(sound(0, 1))


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.5, float("nan"), float("inf")])
def test_impossible_batches(bundle, seconds):
    with pytest.raises(AsrError, match=r"batch_seconds .*give"):
        Recognizer(bundle, batch_seconds=seconds)


def test_a_part_of_a_file(recognizer, tmp_path):
    samples = sound(4, 3.0)
    file = write(tmp_path / "a.wav", samples)
    (part,) = recognizer.transcribe_all([input_of(file.audio, start=1.0, duration=0.8)])
    alone = recognizer.transcribe(samples[RATE : RATE + round(0.8 * RATE)], RATE)
    assert part.text == alone.text != "" and part.duration == 0.8
    # Times are in seconds from the start of the file.
    assert [(s.start, s.end) for s in part.segments] == [(s.start + 1, s.end + 1) for s in alone.segments]


def test_a_part_of_an_array(recognizer):
    samples = sound(4, 3.0)
    part = Input("a", samples, Path("a"), 1.0, 0.8, sample_rate=RATE)
    found = recognizer.transcribe(part)
    expected = recognizer.transcribe(samples[RATE : RATE + round(0.8 * RATE)], RATE)
    assert found.text == expected.text != "" and found.duration == pytest.approx(0.8)
    assert [s.start for s in found.segments] == [s.start + 1 for s in expected.segments]
    assert recognizer.transcribe(replace(part, start=0.0, duration=400.0)).duration == 3.0


@pytest.mark.parametrize("kind", [bytes, io.BytesIO, "open file", torch.Tensor, list, Input])
def test_other_sources(recognizer, tmp_path, kind):
    """Bytes, open files, tensors and lists give the text of the file."""
    samples = sound(4, 1.0)
    file = write(tmp_path / "a.wav", samples)
    expected, content = recognizer.transcribe(file.audio), (tmp_path / "a.wav").read_bytes()
    assert expected.text
    if kind is torch.Tensor:
        same(recognizer.transcribe(torch.from_numpy(samples), RATE), expected)
    elif kind is list:
        for each in recognizer.transcribe([str(file.audio), content]):
            same(each, expected)
    elif kind == "open file":
        with (tmp_path / "a.wav").open("rb") as opened:
            same(recognizer.transcribe(opened), expected)
    else:
        same(recognizer.transcribe(file if kind is Input else kind(content)), expected)


def test_a_list_is_decoded_in_batches(bundle, mixed, alone, monkeypatch, tmp_path):
    recognizer, sizes = Recognizer(bundle, batch_seconds=60.0), []
    original = recognizer._decode
    monkeypatch.setattr(
        recognizer, "_decode", lambda batch, d, p=(): sizes.append(len(batch)) or original(batch, d, p)
    )
    samples = [soundfile.read(each.audio, dtype="float32")[0] for each in mixed]
    for found, expected in zip(recognizer.transcribe(samples, RATE), alone, strict=True):
        same(found, expected)
    assert max(sizes) > 4


def test_a_batch_has_at_most_batch_seconds_of_padded_audio(bundle, mixed, monkeypatch):
    recognizer, batches = Recognizer(bundle, batch_seconds=6.0), []
    original = recognizer._decode
    monkeypatch.setattr(
        recognizer, "_decode", lambda batch, d, p=(): batches.append(batch) or original(batch, d, p)
    )
    list(recognizer.transcribe_all(mixed[::-1] * 4))
    for batch in batches:
        assert len(batch) * max(len(piece.samples) for piece in batch) <= 6.0 * RATE
    assert max(map(len, batches)) > 4


def test_a_list_with_a_file_that_cannot_be_read(recognizer, mixed, tmp_path):
    with pytest.raises(AsrError, match=r"missing\.wav: no such file"):
        recognizer.transcribe([mixed[0], tmp_path / "missing.wav", mixed[1]])


def test_precision(bundle, mixed, monkeypatch):
    """auto is bf16 only where the GPU computes it natively."""
    for native in (True, False):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, n=native: n or including_emulation,
        )
        assert use_bf16("auto", torch.device("cuda")) is native
    assert not use_bf16("auto", torch.device("cpu")) and use_bf16("bf16", torch.device("cpu"))
    assert not use_bf16("float32", torch.device("cuda"))
    with pytest.raises(AsrError, match="precision 'int4': unknown; choose auto, float32, bf16 or int8"):
        Recognizer(bundle, precision="int4")
    network = type(bundle.network)
    types, encode = [], network.encode

    def seen(*arguments):
        types.append(torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"))
        return encode(*arguments)

    monkeypatch.setattr(network, "encode", seen)
    for precision in ("bf16", "auto"):
        Recognizer(bundle, precision=precision).transcribe(mixed[0])
    assert types[0] is torch.bfloat16 and types[-1] is False


def test_the_default_batch_depends_on_the_device(bundle):
    assert Recognizer(bundle).batch_seconds == 60.0


def test_options_for_one_call(recognizer, mixed, alone):
    first = recognizer.transcribe(mixed[0], options=DecodingOptions(max_tokens=1))
    assert all(len(segment.text) <= 1 for segment in first.segments)
    same(recognizer.transcribe(mixed[0]), alone[0])


def test_several_threads_at_once(recognizer, mixed, alone):
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(recognizer.transcribe, mixed), alone, strict=True):
            same(found, expected)


def test_a_small_batch_does_not_change_where_a_recording_is_cut(bundle, bursts):
    """A setting of memory must not change the text."""
    samples, _ = bursts
    found = [Recognizer(bundle, batch_seconds=b).transcribe(samples, RATE) for b in (1.0, 120.0)]
    same(*found)
    assert any(segment.end - segment.start > 1.0 for segment in found[0].segments)


@pytest.mark.parametrize("gain", [0.01, 0.1, 3.0])
def test_the_level_does_not_change_the_text(recognizer, mixed, alone, gain):
    samples, _ = soundfile.read(mixed[2].audio, dtype="float32")
    assert recognizer.transcribe(samples * np.float32(gain), RATE).text == alone[2].text


@pytest.mark.parametrize("value", ["abc", "-3", "nan", "inf"])
def test_a_model_with_an_impossible_length_is_refused(bundle, value):
    strange = replace(bundle, metadata=bundle.metadata | {"longest_seconds": value})
    with pytest.raises(AsrError, match="longest_seconds"):
        Recognizer(strange)


def test_a_model_in_training_mode_is_refused(bundle):
    training = copy.deepcopy(bundle)
    training.network.train()
    with pytest.raises(AsrError, match=r"in training mode.*eval\(\)"):
        Recognizer(training)


def test_a_model_whose_output_is_not_finite_is_refused(bundle):
    broken = copy.deepcopy(bundle)
    broken.network.encoder.norm.weight.data[0] = torch.nan
    with pytest.raises(AsrError, match="not finite"):
        Recognizer(broken).transcribe(sound(0, 1.0), RATE)


def test_a_model_of_8_khz_reads_recordings_of_other_rates_at_its_own(tmp_path):
    """A file at 16 kHz has the text of its samples at 8 kHz, not that of the same numbers at 8 kHz."""
    torch.manual_seed(3)
    sizes = dict(d_model=32, n_heads=2, d_ffn=64, encoder_layers=1, decoder_layers=1, conv_channels=4)
    config = Config.model_validate({"features": {"sample_rate": 8000}, "model": sections(**sizes)})
    slow = Bundle.build(config, CharacterTokenizer.from_characters(["abcdefgh "])).eval()
    slow.features.mean.fill_(-8.0)
    slow.features.std.fill_(3.0)
    slow.metadata = {"voice_activity": "false"}
    recognizer, samples = Recognizer(slow, "cpu"), sound(2, 1.5)
    found = recognizer.transcribe(write(tmp_path / "a.wav", samples))
    assert found.duration == pytest.approx(1.5) and found.text
    same(found, recognizer.transcribe(audio.from_array(samples, RATE, 8000), 8000))
    assert found.text != recognizer.transcribe(samples, 8000).text


def test_the_first_result_needs_one_batch_of_audio(bundle, mixed, monkeypatch):
    monkeypatch.setattr(module, "READERS", 1)  # several can finish the first file after many others
    recognizer, decoded = Recognizer(bundle, batch_seconds=3.0), []
    original = recognizer._decode
    monkeypatch.setattr(
        recognizer, "_decode", lambda batch, d, p=(): decoded.append(batch) or original(batch, d, p)
    )
    results = recognizer.transcribe_all(mixed * 20)
    next(results)
    assert sum(len(piece.samples) for batch in decoded for piece in batch) < 8 * RATE
    # Nor does it need a whole large batch.
    recognizer, decoded = Recognizer(bundle, batch_seconds=600.0), []
    monkeypatch.setattr(
        recognizer, "_decode", lambda batch, d, p=(): decoded.append(batch) or original(batch, d, p)
    )
    next(recognizer.transcribe_all(mixed * 20))
    assert sum(len(piece.samples) for batch in decoded for piece in batch) < 25 * RATE


# ------------------------------------------------------------------------------------------ hypotheses


def test_segments_have_the_results_of_the_decoder(recognizer, monkeypatch):
    ids = tuple(recognizer.bundle.tokenizer.encode("seven"))
    samples = np.concatenate([sound(0, 1.2), silence(2), sound(1, 0.9)])
    best, other = (
        Hypothesis(ids, np.log(0.5) * 6),
        Hypothesis(ids, np.log(0.25) * 5, FinishReason.length, -7.5),
    )
    monkeypatch.setattr(recognizer, "decoder", lambda memory, _: [[best], [other, best]])
    transcript = recognizer.transcribe(samples, RATE)
    assert transcript.text == "seven seven"
    assert [segment.finish_reason for segment in transcript.segments] == ["end", "length"]
    assert [segment.score for segment in transcript.segments] == [None, -7.5]
    assert transcript.segments[0].alternatives == ()
    (alternative,) = transcript.segments[1].alternatives
    assert (alternative.text, alternative.score) == ("seven", None)
    assert alternative.confidence == pytest.approx(0.5)
    assert [segment.confidence for segment in transcript.segments] == pytest.approx([0.5, 0.25])


def test_a_bound_on_the_length_truncates(bundle, mixed, alone):
    bounded = Recognizer(bundle, options=DecodingOptions(max_tokens=2)).transcribe_all(mixed)
    cut = 0
    for transcript, whole in zip(bounded, alone, strict=True):
        for segment in transcript.segments:
            assert len(segment.text) <= 2
            cut += segment.finish_reason == "length"
        assert transcript.text or not whole.segments[:1] or not whole.segments[0].text[:2].strip()
    assert cut > 8


@pytest.mark.parametrize(("mean", "normalized"), [("global", True), ("utterance", False)])
def test_the_level_is_normalized_only_for_models_that_need_it(monkeypatch, mean, normalized):
    config = Config.model_validate({"features": {"mean": mean}, "model": {"preset": "tiny"}})
    recognizer = Recognizer(
        Bundle.build(config, CharacterTokenizer.from_characters("ab ")).eval(), voice_activity=False
    )
    calls, original = [], module.audio.normalize_level
    monkeypatch.setattr(module.audio, "normalize_level", lambda *a, **k: calls.append(1) or original(*a, **k))
    recognizer.transcribe(sound(0, 0.5), RATE)
    assert bool(calls) == normalized


def test_a_batch_that_does_not_fit_into_memory_is_halved(bundle, mixed, alone, monkeypatch):
    recognizer, sizes = Recognizer(bundle, batch_seconds=120.0), []
    original = recognizer._decode

    def decode(batch, decoder, previous=()):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return original(batch, decoder, previous)

    monkeypatch.setattr(recognizer, "_decode", decode)
    for result, expected in zip(recognizer.transcribe_all(mixed), alone, strict=True):
        same(result, expected)
    assert max(sizes) > 3 and recognizer.batch_seconds < 120


def test_a_piece_that_does_not_fit_into_memory_fails_alone(bundle, mixed, alone, monkeypatch):
    recognizer = Recognizer(bundle)
    original, bad = recognizer._decode, mixed[2].id

    def decode(batch, decoder, previous=()):
        if any(piece.job.input.id == bad for piece in batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return original(batch, decoder, previous)

    monkeypatch.setattr(recognizer, "_decode", decode)
    results = list(recognizer.transcribe_all(mixed))
    assert str(results[2]).startswith(f"{bad}: not enough memory on cpu for a segment of")
    for place in range(len(mixed)):
        if place != 2:
            same(results[place], alone[place])


def test_errors_of_another_kind_are_not_taken_for_lack_of_memory(bundle, mixed, monkeypatch):
    recognizer = Recognizer(bundle)

    def decode(batch, decoder, previous=()):
        raise RuntimeError("shapes do not match in this memory format")

    monkeypatch.setattr(recognizer, "_decode", decode)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(recognizer.transcribe_all(mixed))


def test_an_input_that_is_not_ready_does_not_hold_back_the_others(bundle, mixed, tmp_path):
    """A pipe to which nothing is written while the other results are there."""
    os.mkfifo(tmp_path / "pipe")
    inputs = [Input.of(tmp_path / "pipe"), *mixed]
    results = Recognizer(bundle, batch_seconds=2.0).transcribe_unordered(inputs, range(len(inputs)))
    found = [next(results)[0] for _ in range(3)]
    assert 0 not in found
    (tmp_path / "pipe").write_bytes(mixed[0].audio.read_bytes())
    found += [place for place, _ in results]
    assert sorted(found) == list(range(len(inputs)))
