"""Containers that PyAV decodes give the samples that were put into them; channels can be chosen."""

import io
import sys

import numpy as np
import pytest
import soundfile

from asr import audio
from asr.errors import AsrError

RATE = 48000
TIME = np.arange(RATE) / RATE
LEFT, RIGHT = (0.3 * np.sin(2 * np.pi * f * TIME).astype(np.float32) for f in (440, 1000))


def container(format, codec, samples=None, rate=RATE):
    """The bytes of a file with two channels."""
    av = pytest.importorskip("av")
    samples = np.stack([LEFT, RIGHT]) if samples is None else samples
    raw = io.BytesIO()
    with av.open(raw, "w", format=format) as out:
        track = out.add_stream(codec, rate=rate)
        track.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), "fltp", "stereo")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            track.format.name, "stereo", rate, frame_size=1024 if codec == "aac" else 960
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(track.encode(part))
        out.mux(track.encode(None))
    return raw.getvalue()


@pytest.fixture(scope="module")
def mp4():
    return container("mp4", "aac")


def strength(samples, frequency):
    """The amplitude of a tone in the middle of samples at 16 kHz."""
    middle = samples[4000:12000]
    phase = np.exp(-2j * np.pi * frequency * np.arange(len(middle)) / 16000)
    return 2 * abs(np.mean(middle * phase))


@pytest.mark.parametrize(("format", "codec"), [("mp4", "aac"), ("webm", "libopus"), ("matroska", "aac")])
def test_a_tone_in_a_container(format, codec, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(container(format, codec))
    samples = audio.read(path)
    assert len(samples) / 16000 == pytest.approx(1.0, abs=0.05)
    assert audio.duration(path) == pytest.approx(len(samples) / 16000, abs=0.001)
    assert [strength(samples, f) for f in (440, 1000)] == pytest.approx([0.15, 0.15], abs=0.02)
    assert audio.channels(path) == 2
    np.testing.assert_allclose(np.concatenate(list(audio.blocks(path, seconds=0.3))), samples, atol=1e-4)


def test_one_channel_of_a_container(mp4):
    assert strength(audio.read(mp4, channel=1), 1000) == pytest.approx(0.3, abs=0.03)
    assert strength(audio.read(mp4, channel=1), 440) < 0.01


def test_a_part_of_a_container(mp4):
    part = audio.read(mp4, start=0.5, duration=0.25)
    assert len(part) == 4000  # the resampler's filter reaches over the ends
    np.testing.assert_allclose(part[50:-50], audio.read(mp4)[8050:11950], atol=0.01)


def test_without_pyav(mp4, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    message = r"audio data: MP4/M4A \(AAC\) needs PyAV; install it with: pip install 'asr\[containers\]'"
    with pytest.raises(AsrError, match=message):
        audio.read(mp4)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_cut_container_is_refused(share):
    """webm and mkv have their header first, mp4 made here its index last."""
    for format in ("mp4", "matroska"):
        data = container(format, "aac")
        with pytest.raises(AsrError, match=r"^audio data: .*(cannot be read|damaged or truncated)"):
            audio.read(data[: round(share * len(data))])


@pytest.mark.parametrize("channel", [0, 1, None])
def test_one_channel_of_a_wav(tmp_path, channel):
    soundfile.write(tmp_path / "a.wav", np.stack([LEFT, RIGHT], 1), RATE)
    found = audio.read(tmp_path / "a.wav", RATE, channel=channel)
    expected = {0: LEFT, 1: RIGHT, None: (LEFT + RIGHT) / 2}[channel]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    blocks = np.concatenate(list(audio.blocks(tmp_path / "a.wav", RATE, 0.2, channel=channel)))
    np.testing.assert_allclose(blocks, expected, atol=1e-4)


def test_a_channel_that_is_not_there(tmp_path):
    soundfile.write(tmp_path / "a.wav", LEFT, RATE)
    with pytest.raises(AsrError, match=r"a\.wav: no channel 2, it has 1; give a lower number"):
        audio.read(tmp_path / "a.wav", channel=1)
    assert audio.channels(tmp_path / "a.wav") == 1
