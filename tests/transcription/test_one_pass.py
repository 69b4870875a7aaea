"""A recording is decoded once, and only the beginning of a long one is read before its turn."""

import numpy as np
import pytest
import soundfile
from recordings import RATE, input_of, same, sound

from asr.audio import reading
from asr.errors import AsrError
from asr.transcription import pieces
from asr.transcription.recognizer import Recognizer

SECONDS = 9
SAMPLES = np.stack([sound(0, SECONDS), sound(1, SECONDS)])


@pytest.fixture(params=["webm", "matroska", "flac", "mp3", "ogg", "wav"])
def recording(request, tmp_path):
    """A file with two channels. That of Matroska has its samples as they are, in 16 bits."""
    path = tmp_path / f"a.{request.param}"
    if request.param not in ("webm", "matroska"):
        soundfile.write(path, SAMPLES.T, RATE)
        return path
    av = pytest.importorskip("av")
    with av.open(path, "w", format=request.param) as out:
        track = out.add_stream("libopus" if request.param == "webm" else "pcm_s16le", rate=RATE)
        track.layout = "stereo"
        resampler = av.AudioResampler(track.format.name, "stereo", RATE, frame_size=RATE // 50)
        whole = av.AudioFrame.from_ndarray(SAMPLES, "fltp", "stereo")
        whole.sample_rate, whole.pts = RATE, 0
        for part in [*resampler.resample(whole), None]:
            out.mux(track.encode(part))
    return path


@pytest.fixture
def opened(monkeypatch):
    """The files whose bytes are checked before they are decoded."""
    found, original = [], reading.find_streams
    monkeypatch.setattr(reading, "find_streams", lambda *a: found.append(a[2]) or original(*a))
    return found


@pytest.mark.parametrize("long", [120.0, 3.0])
@pytest.mark.parametrize("channels", pieces.CHANNELS)
def test_a_recording_is_decoded_once(tiny_model, recording, decoded, opened, monkeypatch, channels, long):
    """Separate channels once each."""
    monkeypatch.setattr(pieces, "LONG", long)
    monkeypatch.setattr(pieces, "BLOCK", 2.0)
    found = Recognizer(tiny_model, "cpu", channels=channels).transcribe(recording)
    passes = 2 if channels == "separate" else 1
    assert sum(decoded) / decoded.rate == pytest.approx(passes * found.duration, abs=0.001)
    assert len(opened) == (3 if channels == "separate" else 1)  # one more to count the channels
    assert found.duration == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("long", [120.0, 3.0])
def test_a_cut_recording_has_no_transcript(recognizer, recording, monkeypatch, long):
    monkeypatch.setattr(pieces, "LONG", long)
    monkeypatch.setattr(pieces, "BLOCK", 2.0)
    data = recording.read_bytes()
    for share in (0.3, 0.7, 0.95):
        recording.write_bytes(data[: round(share * len(data))])
        with pytest.raises(AsrError, match=rf"^{recording}: .*(damaged|truncated)"):
            recognizer.transcribe(recording)


def test_only_the_beginning_of_a_long_recording_is_read_before_its_turn(
    recognizer, recording, decoded, monkeypatch
):
    monkeypatch.setattr(pieces, "BLOCK", 1.0)
    expected = recognizer.transcribe(recording)
    monkeypatch.setattr(pieces, "LONG", 3.0)
    decoded.clear()
    job = pieces.Job(input_of(recording))
    found = recognizer._reader._begin(job)
    assert 3 < sum(decoded) / decoded.rate < 8
    assert len(list(found)) == len(expected.segments) > 4
    assert job.duration == pytest.approx(expected.duration, abs=0.001)
    same(recognizer.transcribe(recording), expected)
