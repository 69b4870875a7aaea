"""Rates and samples that no recording has are refused, and floats of 16-bit values are scaled."""

import io
import struct

import numpy as np
import pytest
import soundfile
from sounds import encode, tone

from asr import audio
from asr.errors import AsrError


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2_000_000_000])
def test_impossible_rates_are_rejected(rate):
    encoded = bytearray(encode(tone(), "wav"))
    encoded[24:28] = struct.pack("<I", rate)
    for function in (audio.read, audio.duration, lambda source: list(audio.blocks(source))):
        with pytest.raises(AsrError, match=r"rate of .* impossible|cannot be read"):
            function(bytes(encoded))
    with pytest.raises(AsrError, match="rate"):
        audio.from_array(tone(), rate)


def float_file(samples):
    out = io.BytesIO()
    soundfile.write(out, samples, 16000, "FLOAT", format="WAV")
    return out.getvalue()


@pytest.mark.parametrize("size", [65537, 1e20, -1e20])
def test_samples_of_impossible_size_are_rejected(size):
    samples = np.stack([tone(), tone()], axis=1)
    samples[8000] = size, -size  # their mean is 0
    for function in (audio.read, lambda source: list(audio.blocks(source))):
        with pytest.raises(AsrError, match=r"of size .* at 0\.500 s"):
            function(float_file(samples))
    with pytest.raises(AsrError, match="of size"):
        audio.from_array(samples, 16000)


def test_the_time_of_an_impossible_sample_is_that_in_the_file():
    bad = tone()
    bad[8000] = np.nan
    for function in (audio.read, lambda source: list(audio.blocks(source))):
        with pytest.raises(AsrError, match=r"NaN or infinite sample at 2\.500 s"):
            function(float_file(tone(seconds=2.0)) + float_file(bad))


def test_floats_of_16_bits_are_scaled_with_a_warning():
    quiet_start = np.concatenate([tone() / 1000, tone()])
    for scaled in (
        lambda: audio.from_array(32768 * quiet_start, 16000),
        lambda: audio.read(float_file(32768 * quiet_start)),
        lambda: np.concatenate(list(audio.blocks(float_file(32768 * quiet_start), seconds=0.5))),
    ):
        with pytest.warns(UserWarning, match="divided by 32768"):
            samples = scaled()
        np.testing.assert_allclose(samples, quiet_start, atol=1e-6)


def test_floats_that_fit_in_a_block_are_decoded_once(decoded):
    encoded = float_file(tone(seconds=2.0))
    for seconds, times in ((2.0, 1), (1.5, 2)):
        decoded.clear()
        list(audio.blocks(encoded, seconds=seconds))
        assert sum(decoded) == times * 2 * 16000


def test_impossible_values_from_a_decoder_are_not_read_as_16_bit_samples():
    encoded = bytearray(encode(tone(seconds=3.0), "mp3"))
    frames = [at for at in range(len(encoded)) if encoded[at : at + 2] == encoded[:2]]
    for at in frames[20:60]:
        encoded[at + 8 : at + 24] = b"\xff\x7f" * 8
    with pytest.raises(AsrError, match="sample of size"):
        audio.read(bytes(encoded))


def test_loud_floats_are_not_scaled(recwarn):
    np.testing.assert_allclose(audio.from_array(50 * tone(), 16000), 50 * tone())
    np.testing.assert_allclose(audio.read(float_file(50 * tone())), 50 * tone())
    assert not recwarn.list
