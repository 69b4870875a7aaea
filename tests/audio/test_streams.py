"""Files that are cut, damaged or concatenated: all audio is read, or one clear line says why not."""

import io
import os
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
from sounds import FORMATS, encode, tone

from asr import audio
from asr.errors import AsrError


def without_xing(encoded):
    """An MP3 without its first frame, which holds the number of frames and no audio."""
    return encoded[encoded.index(encoded[:2], 4) :]


def pitch(samples, rate=16000):
    """The strongest frequency in Hz."""
    return np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)


# -------------------------------------------------------------------------------------------- cut and damaged


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8, 0.97])
def test_truncated_files_are_rejected(name, part):
    encoded = encode(tone(seconds=3.0), name)
    for function in (audio.read, audio.duration, lambda source: list(audio.blocks(source))):
        with pytest.raises(AsrError, match=r"truncated|damaged"):
            function(encoded[: int(part * len(encoded))])


def test_flac_cut_between_frames():
    encoded = encode(tone(seconds=3.0), "flac")
    last = encoded.rindex(b"\xff\xf8")
    for function in (audio.read, audio.duration, lambda source: list(audio.blocks(source, seconds=0.5))):
        with pytest.raises(AsrError, match="truncated"):
            function(encoded[:last])


def test_mp3_cut_between_frames_and_within_one():
    encoded = encode(tone(seconds=3.0), "mp3")
    frames = [at for at in range(len(encoded)) if encoded[at : at + 2] == encoded[:2]]
    with pytest.raises(AsrError, match="MPEG frames where the header says"):
        audio.read(encoded[: frames[-5]])
    with pytest.raises(AsrError, match="the last MPEG frame ends at"):
        audio.read(without_xing(encoded)[:-3])


def test_ogg_cut_between_pages_has_no_last_page():
    encoded = encode(tone(seconds=9.0), "opus")
    with pytest.raises(AsrError, match="no last page"):
        audio.read(encoded[: encoded.rindex(b"OggS")])


def test_ogg_pages_damaged_missing_and_foreign():
    encoded = bytearray(encode(tone(seconds=9.0), "opus"))
    pages = [at for at in range(len(encoded)) if encoded[at : at + 4] == b"OggS"]
    middle = len(pages) // 2
    with pytest.raises(AsrError, match=r"Ogg page \d+ is missing"):
        audio.read(bytes(encoded[: pages[middle]] + encoded[pages[middle + 1] :]))
    with pytest.raises(AsrError, match="no Ogg page begins"):
        audio.read(bytes(encoded[: pages[middle]] + b"????" + encoded[pages[middle] :]))
    encoded[pages[middle] + 60] ^= 1
    with pytest.raises(AsrError, match="checksum"):
        audio.read(bytes(encoded))


def test_mp3_with_a_damaged_frame_header():
    encoded = bytearray(encode(tone(seconds=3.0), "mp3"))
    frames = [at for at in range(len(encoded)) if encoded[at : at + 2] == encoded[:2]]
    encoded[frames[9]] = 0
    with pytest.raises(AsrError, match=f"at byte {frames[9]}"):
        audio.read(bytes(encoded))


def test_messages_of_mpg123_are_not_printed(tmp_path):
    encoded = bytearray(encode(tone(seconds=3.0), "mp3"))
    frames = [at for at in range(len(encoded)) if encoded[at : at + 2] == encoded[:2]]
    for at in frames[20:60]:
        encoded[at + 8 : at + 24] = b"\xff\x7f" * 8  # the headers stay, their contents are nonsense
    path = tmp_path / "a.mp3"
    path.write_bytes(encoded)
    code = (
        "import sys, soundfile, ctypes; from asr import audio\n"
        "reads = {'ours': lambda: audio.read(sys.argv[2]), 'plain': lambda: soundfile.read(sys.argv[2])}\n"
        "try: reads[sys.argv[1]]()\n"
        "except audio.reading.AsrError: pass\n"
        "print('python', file=sys.stderr)\n"
        "ctypes.CDLL(None).perror(b'after')"
    )
    errors = {
        kind: subprocess.run(
            [sys.executable, "-c", code, kind, str(path)], capture_output=True, text=True, check=True
        ).stderr
        for kind in ("ours", "plain")
    }
    assert "layer3" in errors["plain"]  # there is something to keep off
    assert "layer3" not in errors["ours"] and errors["ours"].startswith("python")
    assert "after" in errors["ours"]  # the C library has its stderr back


def test_stderr_stays_redirected_until_the_last_thread_is_done():
    from asr.audio import quiet

    before = quiet._c_stderr().value
    inside, leave = threading.Barrier(3), threading.Event()

    def call():
        with quiet.quiet_c_stderr():
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    with quiet.quiet_c_stderr():
        pass
    assert quiet._c_stderr().value != before  # two are still inside
    leave.set()
    for thread in threads:
        thread.join()
    assert quiet._c_stderr().value == before


# ----------------------------------------------------------------------------------------------- concatenated


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "opus", "mp3"])
def test_concatenated_files_are_read_to_their_end(name):
    first, second = tone(seconds=1.0), tone(48000, 2.0, 880.0)
    encoded = encode(first, name) + encode(second, name, 48000)
    samples = audio.read(encoded)
    assert len(samples) == 48000
    assert pitch(samples[2000:14000]) == pytest.approx(440, abs=5)
    assert pitch(samples[18000:46000]) == pytest.approx(880, abs=5)
    assert audio.duration(encoded) == pytest.approx(3.0)
    np.testing.assert_allclose(np.concatenate(list(audio.blocks(encoded, seconds=0.3))), samples, atol=1e-6)
    part = audio.read(encoded, start=0.75, duration=1.5)
    assert len(part) == 24000
    np.testing.assert_allclose(part[500:3500], samples[12500:15500], atol=5e-3)
    np.testing.assert_allclose(part[4500:23500], samples[16500:35500], atol=5e-3)
    assert len(audio.read(encoded, start=1.5, duration=9.0)) == 24000


@pytest.mark.parametrize("padded", [False, True])
def test_wav_files_of_an_odd_size_are_read_to_their_end(padded):
    """A byte belongs after an odd number of bytes; some writers leave it out."""
    out = io.BytesIO()
    soundfile.write(out, tone()[:8001], 16000, "PCM_U8", format="WAV")
    first = out.getvalue()
    assert len(first) % 2 == 0
    assert len(audio.read((first if padded else first[:-1]) + encode(tone(), "wav"))) == 24001


@pytest.mark.parametrize("name", ["ogg", "flac", "mp3", "wav"])
def test_a_truncated_second_stream_is_rejected(name):
    encoded = encode(tone(), name)
    with pytest.raises(AsrError, match=r"truncated|damaged"):
        audio.read(encoded + encoded[: int(len(encoded) * 0.7)])


def test_mp3_of_variable_bit_rate_without_a_header_is_read_to_its_end():
    encoded = without_xing(encode(np.concatenate([np.zeros(48000, np.float32), tone(seconds=3.0)]), "mp3"))
    samples = audio.read(encoded)
    assert len(samples) == pytest.approx(96000, abs=2500)
    assert np.abs(samples[-20000:-5000]).max() > 0.3
    assert audio.duration(encoded) == pytest.approx(len(samples) / 16000)
    # A header that counts fewer frames than there are: those of a second file without a header were added.
    both = audio.read(encode(tone(), "mp3") + encoded)
    assert len(both) == pytest.approx(16000 + 96000, abs=4000)


def test_mp3_with_tags_around_and_inside():
    encoded = encode(tone(), "mp3")
    id3 = b"ID3\x04\0\0\0\0\x02\x01" + bytes(257)
    ape = b"APETAGEX" + struct.pack("<4I8x", 2000, 64, 1, 1 << 31) + bytes(64)
    samples = audio.read(id3 + encoded + b"TAG".ljust(128) + id3 + encoded + ape + b"TAG".ljust(128))
    assert len(samples) == 32000
    assert len(audio.read(encoded + bytes(70000))) == 16000
    assert len(audio.read(encoded + bytes(70000) + id3 + encoded)) == 32000
    headless = without_xing(encoded)
    middle = headless.index(headless[:2], 900)
    with pytest.raises(AsrError, match=f"at byte {middle} "):  # zeros where frames were
        audio.read(headless[:middle] + bytes(500) + headless[middle:])
    assert len(audio.read(id3 + encode(tone(), "flac"))) == 16000


def test_a_damaged_tag_removes_no_samples():
    encoded = bytearray(encode(tone(), "mp3"))
    assert len(audio.read(bytes(encoded))) == 16000  # encoder delay and padding are removed
    encoded[13 + 141 : 13 + 144] = b"\xff\xff\xff"  # 4095 samples at each end
    assert 16000 < len(audio.read(bytes(encoded))) < 18500


def test_vbri_header_counts_frames():
    encoded = encode(tone(seconds=3.0), "mp3")
    first = encoded.index(encoded[:2], 4)
    count = int.from_bytes(encoded[21:25], "big")
    vbri = b"VBRI\0\1\0\0\0\0" + struct.pack(">II", len(encoded), count)
    header = bytearray(encoded[:first])
    header[4:] = bytes(len(header) - 4)
    header[36 : 36 + len(vbri)] = vbri
    assert len(audio.read(bytes(header) + encoded[first:])) == pytest.approx(48000, abs=2500)
    frames = [at for at in range(len(encoded)) if encoded[at : at + 2] == encoded[:2]]
    with pytest.raises(AsrError, match="MPEG frames where"):
        audio.read(bytes(header) + encoded[first : frames[-3]])


# ------------------------------------------------------------------------------------------ kinds of sources


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"])
def test_encodings_that_cannot_seek(tmp_path, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(8000, 3.0), 8000, subtype)
    samples = audio.read(path, 8000)
    assert len(samples) == pytest.approx(24000, abs=400)
    assert np.corrcoef(samples[1000:23000], tone(8000, 3.0)[1000:23000])[0, 1] > 0.9
    np.testing.assert_array_equal(audio.read(path, 8000, start=1.5, duration=0.5), samples[12000:16000])
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(AsrError, match="truncated"):
        audio.read(path, 8000)


def test_bytes_and_open_files_are_read_as_paths_are(tmp_path):
    path = tmp_path / "a.flac"
    encoded = encode(tone(), "flac")
    path.write_bytes(encoded)
    expected = audio.read(path)
    buffer = io.BytesIO(encoded)
    buffer.read(100)
    with path.open("rb") as file:
        for source in (encoded, bytearray(encoded), memoryview(encoded), buffer, file):
            np.testing.assert_array_equal(audio.read(source), expected)
            assert audio.duration(source) == 1.0
            np.testing.assert_allclose(np.concatenate(list(audio.blocks(source))), expected, atol=1e-6)
        assert not file.closed
        with pytest.raises(AsrError, match=r"a\.flac: start 5 s"):
            audio.read(file, start=5.0)
    with pytest.raises(AsrError, match=r"^upload 7: damaged or truncated"):
        audio.read(encoded[:-100], name="upload 7")
    with pytest.raises(AsrError, match=r"^audio data: empty"):
        audio.read(b"")
    with path.open(encoding="latin-1") as text, pytest.raises(AsrError, match="opened as text"):
        audio.read(text)
    with pytest.raises(AsrError, match="of the type int"):
        audio.read(7)


def test_pipes_are_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    encoded = encode(tone(), "wav")
    thread = threading.Thread(target=lambda: path.write_bytes(encoded))
    thread.start()
    assert len(audio.read(path)) == 16000
    thread.join()
    reader, writer = os.pipe()
    os.write(writer, encoded)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert len(audio.read(file)) == 16000


class Broken(io.BytesIO):
    """A file on a disk that fails after a while."""

    reads = 0

    def read(self, size=-1):
        Broken.reads += 1
        if Broken.reads > 6:
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_an_error_of_the_disk_is_one_line(capfd):
    with pytest.raises(AsrError, match="Input/output error"):
        audio.read(Broken(encode(tone(seconds=9.0), "wav")))
    assert not capfd.readouterr().err


@pytest.mark.parametrize("name", ["new\nline.wav", "tab\t.wav", "\x1b[31mred.wav", os.fsdecode(b"\xff.wav")])
def test_names_of_files_are_printable(tmp_path, name):
    for function in (audio.read, audio.duration):
        with pytest.raises(AsrError, match="no such file") as caught:
            function(tmp_path / name)
        assert str(caught.value).isprintable()


def test_formats_that_libsndfile_would_misread_are_refused_without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    out = io.BytesIO()
    soundfile.write(out, tone(), 16000, "PCM_16", format="VOC")
    with pytest.raises(AsrError, match="VOC needs PyAV"):
        audio.read(out.getvalue())
