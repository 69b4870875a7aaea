"""Containers that PyAV decodes give the samples that were put into them; channels can be chosen."""

import io
import sys
import tracemalloc
from functools import cache

import numpy as np
import pytest
import soundfile

from asr import audio
from asr.errors import AsrError

RATE = 8000
SECONDS = 15  # longer than what PyAV reads from a file at once
TIME = np.arange(SECONDS * RATE) / RATE
LEFT, RIGHT = (0.3 * np.sin(2 * np.pi * f * TIME).astype(np.float32) for f in (440, 1000))


@cache
def container(format, codec, quiet=0.0, begin=0.0, gap=0.0, frame=None, seekable=True, **options):
    """The bytes of a file with two channels, which begin after `quiet` seconds of silence.

    With `begin`, a second track begins at 0 and the first at `begin` s. With `gap`, the times of the first
    one jump ahead by so many seconds after the first 5 s. A file that is not `seekable` has no length in it.
    """
    av = pytest.importorskip("av")
    samples = np.stack([LEFT, RIGHT]) * (quiet < TIME)
    raw = io.BytesIO()
    raw.seekable = lambda: seekable
    size = frame or (1024 if codec == "aac" else RATE // 50)
    with av.open(raw, "w", format=format, options=options) as out:
        packets = []
        for first in [begin, 0.0] if begin else [0.0]:
            track = out.add_stream(codec, rate=RATE)
            track.layout = "stereo"
            whole = av.AudioFrame.from_ndarray(samples.astype(np.float32), "fltp", "stereo")
            whole.sample_rate, whole.pts = RATE, 0
            resampler = av.AudioResampler(track.format.name, "stereo", RATE, frame_size=size)
            for part in [*resampler.resample(whole), *resampler.resample(None)]:
                part.pts += round(RATE * (first + gap * (part.pts >= 5 * RATE)))
                packets += track.encode(part)
            packets += track.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return raw.getvalue()


def encoded(samples, rate, format, codec):
    """The bytes of a file with one channel."""
    av = pytest.importorskip("av")
    raw = io.BytesIO()
    with av.open(raw, "w", format=format) as out:
        track = out.add_stream(codec, rate=48000 if codec == "libopus" else rate)
        track.layout = "mono"
        whole = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        whole.sample_rate, whole.pts = rate, 0
        resampler = av.AudioResampler(
            track.format.name, "mono", track.rate, frame_size=1024 if codec == "aac" else track.rate // 50
        )
        for part in [*resampler.resample(whole), *resampler.resample(None)]:
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
    assert len(samples) / 16000 == pytest.approx(SECONDS, abs=0.3)
    assert audio.duration(path) == pytest.approx(len(samples) / 16000, abs=0.001)
    assert [strength(samples, f) for f in (440, 1000)] == pytest.approx([0.15, 0.15], abs=0.02)
    assert audio.channels(path) == 2
    np.testing.assert_allclose(np.concatenate(list(audio.blocks(path, seconds=7))), samples, atol=1e-4)


@pytest.mark.parametrize("format", ["mov", "matroska"])
def test_mp3_in_a_container(format):
    data = container(format, "libmp3lame", frame=1152)
    assert len(audio.read(data)) / 16000 == pytest.approx(SECONDS, abs=0.3)


def test_one_channel_of_a_container(mp4):
    assert strength(audio.read(mp4, channel=1), 1000) == pytest.approx(0.3, abs=0.03)
    assert strength(audio.read(mp4, channel=1), 440) < 0.01


def test_a_part_of_a_container(mp4):
    part = audio.read(mp4, start=10.5, duration=0.25)
    assert len(part) == 4000  # the resampler's filter reaches over the ends
    np.testing.assert_allclose(part[50:-50], audio.read(mp4)[168050:171950], atol=0.01)


@pytest.mark.parametrize(("format", "codec"), [("mp4", "aac"), ("webm", "libopus"), ("adts", "aac")])
def test_a_container_is_decoded_once(format, codec, decoded):
    data = container(format, codec)
    length = len(audio.read(data)) / 16000
    for function in (audio.read, audio.duration, lambda source: list(audio.blocks(source, seconds=3))):
        decoded.clear()
        function(data)
        assert sum(decoded) == pytest.approx(length * decoded.rate, abs=1)
    decoded.clear()
    audio.read(data, start=3.0, duration=1.5)
    assert sum(decoded) == 4.5 * decoded.rate
    decoded.clear()
    assert audio.channels(data) == 2 and not decoded


@pytest.mark.parametrize(
    ("format", "codec", "off"), [("mp4", "aac", 0), ("matroska", "aac", 0), ("webm", "libopus", 16)]
)
def test_a_part_far_from_the_beginning_is_found_without_decoding_all(format, codec, off, decoded):
    pytest.importorskip("av")
    seconds, rate = 60, 16000
    time = np.arange(seconds * rate) / rate
    sweep = 0.3 * np.sin(2 * np.pi * (200 * time + 10 * time**2))  # no two parts are equal
    data = encoded(sweep.astype(np.float32), rate, format, codec)
    whole = audio.read(data)
    decoded.clear()
    part = audio.read(data, start=40.0, duration=2.0)
    assert sum(decoded) < 8 * decoded.rate  # of 42 s
    assert len(part) == 2 * rate
    # Times in WebM are rounded to 1 ms.
    errors = [
        np.abs(part[50:-50] - whole[40 * rate + shift :][50 : 2 * rate - 50]).max()
        for shift in range(-off, off + 1)
    ]
    assert min(errors) < 1e-3
    with pytest.raises(
        AsrError, match=r"^audio data: start 99 s is beyond the end \((60|59\.9)\d*(\.\d+)? s\)"
    ):
        audio.read(data, start=99.0)


@pytest.mark.parametrize(("format", "codec"), [("mp4", "aac"), ("matroska", "aac")])
def test_a_part_before_a_late_track_is_silence(format, codec):
    data = container(format, codec, begin=13.0)
    part, whole = audio.read(data, start=12.0, duration=3.0), audio.read(data)
    assert len(part) == 3 * 16000
    begins, expected = (np.flatnonzero(np.abs(samples) > 0.01)[0] / 16000 for samples in (part, whole))
    assert 12.0 + begins == pytest.approx(expected, abs=0.02)  # half a packet


def test_a_start_beyond_the_end_of_a_container(mp4):
    with pytest.raises(AsrError, match=r"^audio data: start 99 s is beyond the end \(15\.\d+ s\)"):
        audio.read(mp4, start=99.0)


def test_memory_does_not_grow_with_the_length_of_a_container():
    pytest.importorskip("av")
    seconds = 1200
    data = b"#!AMR\n" + (b"\x04" + bytes(12)) * (50 * seconds)
    tracemalloc.start()
    try:
        samples = sum(len(block) for block in audio.blocks(data, 8000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert samples == seconds * 8000
    assert peak < 4 * samples / 4  # bytes: a quarter of the samples


def test_containers_without_a_length_are_whole():
    """ffmpeg guesses their length by the bit rate of their beginning, which says nothing of what follows."""
    for codec, options in (("aac", {}), ("libmp3lame", dict(frame=1152, seekable=False))):
        data = container("adts" if codec == "aac" else "matroska", codec, quiet=10, **options)
        assert len(audio.read(data)) / 16000 == pytest.approx(SECONDS, abs=0.3)


def test_amr_that_becomes_louder_is_whole():
    """Frames of 20 ms: the first ones have fewer bits than the others."""
    pytest.importorskip("av")
    data = b"#!AMR\n" + (b"\x04" + bytes(12)) * 300 + (b"\x3c" + bytes(31)) * 500
    assert audio.duration(data) == pytest.approx(16.0, abs=0.05)


@pytest.mark.parametrize(("format", "codec"), [("mp4", "aac"), ("webm", "libopus"), ("matroska", "aac")])
def test_times_in_a_container(format, codec):
    """Zeros stand before a track that begins late, and in a gap: positions are times of the recording."""
    sound = audio.read(container(format, codec))
    late = audio.read(container(format, codec, begin=3.0))
    assert np.flatnonzero(np.abs(late) > 0.1)[0] / 16000 == pytest.approx(3.0, abs=0.08)
    assert len(late) - len(sound) == pytest.approx(3 * 16000, abs=0.08 * 16000)
    broken = container(format, codec, gap=2.0)
    samples = audio.read(broken)
    assert len(samples) - len(sound) == pytest.approx(2 * 16000, abs=0.08 * 16000)
    silent = np.flatnonzero(np.abs(samples[: 15 * 16000].reshape(-1, 1600)).max(1) < 0.1) / 10
    assert len(silent) in (18, 19, 20) and 5 <= silent[0] <= 5.2
    assert audio.duration(broken) == pytest.approx(len(samples) / 16000, abs=0.001)
    np.testing.assert_allclose(np.concatenate(list(audio.blocks(broken, seconds=7))), samples, atol=1e-4)


def test_an_impossible_time_in_a_container_is_refused():
    with pytest.raises(AsrError, match=r"^audio data: damaged or truncated at .* s or later"):
        audio.read(container("matroska", "aac", gap=5000.0))


def test_an_error_of_the_disk_in_a_container(mp4):
    class Disk(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 1000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(AsrError, match=r"^audio data: cannot be read \(Input/output error\)"):
        audio.read(Disk(mp4))


def test_without_pyav(mp4, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    message = r"audio data: MP4/M4A \(AAC\) needs PyAV; install it with: pip install av"
    with pytest.raises(AsrError, match=message):
        audio.read(mp4)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_cut_container_is_refused(share):
    """webm and mkv have their header first, mp4 made here its index last."""
    for format in ("mp4", "matroska"):
        data = container(format, "aac")
        for function in (audio.read, audio.duration, lambda source: list(audio.blocks(source, seconds=3))):
            with pytest.raises(AsrError, match=r"^audio data: .*(cannot be read|damaged or truncated)"):
                function(data[: round(share * len(data))])


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
    with pytest.raises(
        AsrError, match=r"a\.wav: there is no channel 2 \(number of channels: 1\); give a lower number"
    ):
        audio.read(tmp_path / "a.wav", channel=1)
    assert audio.channels(tmp_path / "a.wav") == 1


@pytest.mark.parametrize("format", ["WAV", "AIFF"])
def test_zeros_after_the_audio_are_not_searched_for_chunks(format):
    """A recorder can reserve space for more audio than there is."""

    class Counted(io.BytesIO):
        reads = 0

        def read(self, size=-1):
            Counted.reads += 1
            return super().read(size)

    raw = io.BytesIO()
    soundfile.write(raw, LEFT, RATE, format=format, subtype="PCM_16")
    file = Counted(raw.getvalue() + bytes(100_000))
    assert len(audio.read(file, RATE)) == len(LEFT)
    assert Counted.reads < 1000


def test_a_second_recording_after_zeros_is_read_too():
    raw = io.BytesIO()
    soundfile.write(raw, LEFT, RATE, format="WAV", subtype="PCM_16")
    file = raw.getvalue() + bytes(70_003) + raw.getvalue()
    assert len(audio.read(file, RATE)) == 2 * len(LEFT)
