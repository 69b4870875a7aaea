"""Any file is read as mono float32, or refused with one clear line."""

import os
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asr import audio
from asr.errors import AsrError


def tone(rate, seconds=1.0, frequency=440.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def inner(samples):
    """Without the first and last tenth, where a filter sees the edge of the file."""
    edge = len(samples) // 10
    return samples[edge:-edge]


def message(path, function=audio.read, **options):
    """The one line that `function` complains with; it names the file."""
    with pytest.raises(AsrError) as caught:
        result = function(path, **options)
        list(result)  # a generator complains when it is used
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and re.search("[;:] ", line)
    return line


# ---------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 96000])
def test_any_rate_becomes_the_same_tone(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(rate), rate, "FLOAT")
    samples = audio.read(path)
    assert samples.dtype == np.float32 and samples.shape == (16000,)
    np.testing.assert_allclose(inner(samples), inner(tone(16000)), atol=1e-3)
    assert audio.duration(path) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [("PCM_U8", 1 / 100), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-6), ("FLOAT", 0), ("DOUBLE", 0)],
)
def test_every_encoding_of_a_wav_file_is_read(tmp_path, subtype, tolerance):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000), 16000, subtype)
    np.testing.assert_allclose(audio.read(path), tone(16000), atol=tolerance)


@pytest.mark.parametrize(
    ("name", "form", "subtype"),
    [
        ("a.flac", "FLAC", "PCM_16"),
        ("a.ogg", "OGG", "VORBIS"),
        ("a.opus", "OGG", "OPUS"),
        ("a.mp3", "MP3", "MPEG_LAYER_III"),
        ("a.aiff", "AIFF", "PCM_24"),
        ("a.au", "AU", "ULAW"),
        ("a.wav", "NIST", "PCM_16"),  # as LDC names its sphere files
        ("a.wav", "RF64", "PCM_16"),
        ("a.wav", "WAV", "IMA_ADPCM"),
    ],
)
def test_the_format_does_not_depend_on_the_suffix(tmp_path, name, form, subtype):
    path = tmp_path / name
    soundfile.write(path, tone(16000), 16000, subtype, format=form)
    samples = audio.read(path)
    assert len(samples) == pytest.approx(16000, abs=1200)
    assert np.corrcoef(inner(samples[:16000]), inner(tone(16000)[: len(samples)]))[0, 1] > 0.99


def test_channels_are_mixed_by_their_mean(tmp_path):
    path = tmp_path / "eight.wav"
    channels = np.stack([noise(4000, seed) for seed in range(8)], axis=1)
    soundfile.write(path, channels, 16000, "FLOAT")
    np.testing.assert_allclose(audio.read(path), channels.mean(axis=1), atol=1e-7)
    soundfile.write(path, np.stack([tone(16000), -tone(16000)], axis=1), 16000, "FLOAT")
    assert not audio.read(path).any()  # antiphase is silence: that is what mixing means


def test_resampling_is_band_limited(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000, frequency=7000), 16000, "FLOAT")
    assert np.abs(inner(audio.read(path, 8000))).max() < 1e-4  # naive decimation: 0.5 at 1000 Hz
    assert np.abs(inner(audio.read(path, 48000))).max() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_part_equals_the_same_part_of_the_whole_file(tmp_path, name):
    path = tmp_path / name
    soundfile.write(path, tone(16000, 5.0), 16000)
    whole = audio.read(path)
    part = audio.read(path, start=3.25, duration=0.5)
    np.testing.assert_allclose(part, whole[52000:60000], atol=1e-6)
    assert len(audio.read(path, start=4.5, duration=9.0)) == len(whole) - 72000
    assert len(audio.read(path, 8000, start=1.0, duration=2.0)) == 16000


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("seconds", [0.011, 0.5, 60.0])
@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_blocks_join_to_the_whole(tmp_path, rate, seconds, name):
    path = tmp_path / name
    soundfile.write(path, tone(rate, 3.0) + noise(3 * rate) / 10, rate)
    pieces = list(audio.blocks(path, seconds=seconds))
    assert all(len(piece) and piece.dtype == np.float32 for piece in pieces)
    assert max(map(len, pieces)) <= 16000 * seconds + 2000
    np.testing.assert_allclose(np.concatenate(pieces), audio.read(path), atol=1e-6)


def test_wav_streamed_without_a_length(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000), 16000, "PCM_16")
    encoded = path.read_bytes()
    at = encoded.index(b"data") + 4
    for size in (0, 0xFFFFFFFF, 0x7FFFF000):
        path.write_bytes(
            encoded[:4]
            + struct.pack("<I", size)
            + encoded[8:at]
            + struct.pack("<I", size)
            + encoded[at + 4 :]
        )
        np.testing.assert_allclose(audio.read(path), tone(16000), atol=1e-4)
        assert audio.duration(path) == 1.0


def test_flac_streamed_without_a_length(tmp_path, decoded):
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(16000, 20.0), 16000)
    encoded = bytearray(path.read_bytes())
    encoded[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    encoded[22:26] = bytes(4)
    path.write_bytes(encoded)
    np.testing.assert_allclose(audio.read(path, start=18.5), tone(16000, 20.0)[296000:], atol=1e-4)
    for function in (audio.read, audio.duration, lambda source: list(audio.blocks(source, seconds=3))):
        decoded.clear()
        function(path)
        assert sum(decoded) == 20 * 16000
    assert audio.duration(path) == 20.0
    assert message(path, start=21.0).endswith("a.flac: start 21 s is beyond the end (20 s); check the times")
    twice = path.read_bytes() * 2
    np.testing.assert_allclose(audio.read(twice, start=19.0, duration=2.0)[16000:], tone(16000), atol=1e-4)


def test_importing_audio_does_not_import_torch_or_librosa():
    code = "import sys, asr.audio; sys.exit(any(name in sys.modules for name in ('torch', 'librosa')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -------------------------------------------------------------------------------------------- what is refused


def test_missing_folder_and_empty(tmp_path):
    assert "no such file" in message(tmp_path / "none.wav")
    assert "a folder" in message(tmp_path)
    (tmp_path / "zero.wav").touch()
    assert "0 bytes" in message(tmp_path / "zero.wav")
    assert "not a regular file" in message("/dev/null")


def test_no_samples(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), 16000)
    for function in (audio.read, audio.duration, audio.blocks):
        assert "the file has no audio" in message(path, function)
    soundfile.write(path, np.zeros(1), 48000)
    for function in (audio.read, audio.blocks):
        assert "shorter than one sample" in message(path, function)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_without_permission(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(8000), 8000)
    path.chmod(0)
    assert "Permission denied" in message(path)


def test_permission_error_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(8000), 8000)

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert "Permission denied" in message(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_reported_with_its_time(tmp_path, bad):
    path = tmp_path / "a.wav"
    samples = np.zeros((8000, 2), np.float32)
    samples[4000, 1] = bad
    soundfile.write(path, samples, 8000, "FLOAT")
    assert "at 0.500 s" in message(path)
    assert "at 0.500 s" in message(path, audio.blocks, seconds=0.1)
    assert "at 0.500 s" in message(path, start=0.25)
    assert len(audio.read(path, 8000, start=0.6)) == 3200


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.raw"])
def test_text_is_not_audio(tmp_path, name):
    (tmp_path / name).write_text("The quick brown fox.\n" * 40)
    assert "convert it to wav or flac" in message(tmp_path / name)


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"\0\0\0 ftypM4A ", "M4A"), (b"\x1aE\xdf\xa3", "WebM"), (b"\xff\xf1P\x80", "AAC"), (b"#!AMR\n", "AMR")],
)
def test_other_formats_are_refused_by_name_without_pyav(tmp_path, monkeypatch, head, name):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.m4a").write_bytes(head + bytes(2000))
    line = message(tmp_path / "a.m4a")
    assert name in line and "PyAV" in line and "convert the file to wav or flac" in line


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au", "a.flac"])
def test_truncated(tmp_path, name):
    path = tmp_path / name
    soundfile.write(path, noise(16000), 16000)
    path.write_bytes(path.read_bytes()[:-9000])
    for function in (audio.read, audio.duration, audio.blocks):
        assert "truncated" in message(path, function)


def test_times_outside_the_recording_are_refused(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(8000), 8000)
    assert "beyond the end (1 s)" in message(path, start=1.0)
    assert "impossible" in message(path, start=-1.0)
    assert "impossible" in message(path, duration=0.0)
    assert "impossible" in message(path, duration=float("inf"))
    assert "impossible" in message(path, start=1e305)
    with pytest.raises(AsrError, match="rate of 0 Hz"):
        audio.read(path, 0)
    with pytest.raises(AsrError, match="blocks of 0 seconds"):
        list(audio.blocks(path, seconds=0))


# -------------------------------------------------------------------------------------------- arrays, writing


@settings(max_examples=60, deadline=None)
@given(data=st.data(), channels=st.integers(0, 4), samples=st.integers(1, 300))
def test_from_array_scales_integers(data, channels, samples):
    shape = (samples, channels) if channels else (samples,)
    dtype = data.draw(st.sampled_from([np.uint8, np.int16, np.int32]))
    array = data.draw(arrays.arrays(dtype, shape))
    info = np.iinfo(dtype)
    zero = 128 if dtype == np.uint8 else 0
    expected = (array.astype(np.float64) - zero) / (info.max + 1 - zero)
    mono = audio.from_array(array, 16000)
    assert mono.dtype == np.float32 and mono.shape == (samples,)
    np.testing.assert_allclose(mono, expected.mean(axis=1) if channels else expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    array=arrays.arrays(np.float32, st.integers(1, 500), elements=st.floats(-1, 1, width=32)),
    rate=st.sampled_from([8000, 16000, 22050, 48000]),
)
def test_from_array_returns_the_length_that_follows_from_the_rates(array, rate):
    mono = audio.from_array(array, rate)
    assert abs(len(mono) - len(array) * 16000 / rate) <= 1
    if rate == 16000:
        np.testing.assert_array_equal(mono, array)


def test_from_array_agrees_with_read(tmp_path):
    path = tmp_path / "a.wav"
    pcm = (32767 * np.stack([tone(44100), noise(44100)], axis=1)).astype(np.int16)
    soundfile.write(path, pcm, 44100)
    np.testing.assert_allclose(audio.from_array(pcm, 44100), audio.read(path), atol=1e-6)
    assert audio.from_array(tone(8000).astype(np.float64), 8000).dtype == np.float32


def test_from_array_reads_the_part_and_the_channel_that_read_reads(tmp_path):
    path = tmp_path / "a.wav"
    pcm = (32767 * np.stack([tone(16000), noise(16000)], axis=1)).astype(np.int16)
    soundfile.write(path, pcm, 16000)
    part = (16000, 0.5, 0.25, None, 1)
    np.testing.assert_allclose(audio.from_array(pcm, 16000, *part), audio.read(path, *part), atol=1e-6)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array(0.5), "shape"),
        (np.zeros((2, 2, 2)), "shape"),
        (np.zeros((2, 16000)), "shape"),  # (channels, samples): transposed
        (np.zeros(0), "the array has no samples"),
        (np.zeros(8, np.int64), "int64"),
        (np.array([0.0, np.nan]), "NaN"),
    ],
)
def test_from_array_refuses(array, says):
    with pytest.raises(AsrError, match=says):
        audio.from_array(array, 16000)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "deep/a.opus"])
def test_write_and_read_back(tmp_path, name):
    path = tmp_path / name
    lossy = name.endswith(("ogg", "opus"))
    audio.write(path, 4 * tone(16000), 16000)
    back = audio.read(path)
    assert len(back) == 16000 and (lossy or np.abs(back).max() <= 1)  # clipped, not wrapped
    audio.write(path, tone(16000), 16000)
    np.testing.assert_allclose(inner(audio.read(path)), inner(tone(16000)), atol=0.05 if lossy else 1e-4)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # nothing temporary is left


def test_write_refuses(tmp_path):
    assert ".xyz" in message(tmp_path / "a.xyz", audio.write, samples=tone(8000))
    assert "44100" in message(tmp_path / "a.ogg", audio.write, samples=tone(44100), sample_rate=44100)
    assert "NaN" in message(tmp_path / "a.wav", audio.write, samples=np.array([np.nan]))
    assert "shape" in message(tmp_path / "a.wav", audio.write, samples=np.array(0.5))
    assert not list(tmp_path.iterdir())


def test_write_long_opus(tmp_path):
    audio.write(tmp_path / "a.ogg", np.zeros(8000 * 120, np.float32), 8000)
    assert audio.duration(tmp_path / "a.ogg") == 120.0
